"""Creates networks with weights from the names in a config."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from service.encoder.bundle import MANIFEST_FILE
from training.config import Config, ConfigError, EncoderConfig
from training.encoders import CheckpointError, Encoder, find_encoder
from training.readout import POOLINGS
from training.run import RUN_FILE, Run, RunError
from training.student import Student
from training.teacher import PROJECTION, Bundle, FrozenStudent
from training.weights import read_weights
from training.whitening import Whitener


def build_student(config: Config) -> Student:
    """Create the student at its start: initial weights and the configured read-out, not yet whitened.

    Raises:
        ConfigError: there is no encoder, layer or pooling of that name, or a window is too short for the encoder.
        CheckpointError: the checkpoint does not fit the encoder.
        BundleError: the checkpoint is a bundle that is damaged.
    """
    student = build_with(config.encoder, "encoder", config.readout.layers, config.readout.pooling)
    for key, seconds in (("window.min_seconds", config.window.min_seconds), ("window.seconds", config.window.seconds)):
        check_length(student, key, seconds, config.encoder.name)
    return student


def build_with(source: EncoderConfig, key: str, layers: Sequence[str], pooling: str) -> Student:
    """Create an encoder with its weights and a read-out that is not whitened. Raises as `build_student`."""
    kind = find_encoder(source.name, f"{key}.name")
    if pooling not in POOLINGS:
        raise ConfigError(f"No pooling is called {pooling!r}. There are: {', '.join(POOLINGS)}.")
    encoder = _encoder(source, kind)
    available = Student.layers_of(encoder)
    unknown = [layer for layer in layers if layer not in available]
    if unknown:
        raise ConfigError(f"{source.name} has no layer {', '.join(unknown)}; it has {', '.join(available)}.")
    if not set(layers).intersection(encoder.layers):
        own = ", ".join(encoder.layers)
        raise ConfigError(f"The read-out of `{key}` takes no layer of {source.name}, which has {own}.")
    return Student(encoder, tuple(layers), pooling).eval()


def build_teacher(
    config: Config, student: Student, whitener: Whitener, tensors: Mapping[str, Tensor], device: torch.device
) -> FrozenStudent | Bundle:
    """Create the teacher: a frozen copy of the whitened student, a model bundle, or an encoder with its own read-out.

    Args:
        config: config of the run.
        student: whitened student, before its first step or its next one.
        whitener: sets the projection of an encoder with its own read-out.
        tensors: checkpoint to resume from; empty at the start.
        device: device of the run.

    Raises:
        ConfigError: two teachers are configured, or the teacher does not fit the student.
        CheckpointError, BundleError: the teacher cannot be loaded.
    """
    teacher, objective, half = config.teacher, config.objective, config.loop.precision == "bfloat16"
    if teacher.is_copy:
        return FrozenStudent(student, objective.level, objective.space, half=half)
    if teacher.bundle and teacher.name:
        raise ConfigError("`teacher.bundle` and `teacher.name` are two teachers. Remove one of them.")
    if teacher.bundle:
        return Bundle(Path(teacher.bundle), student.sample_rate, config.data.window_seconds, config.threads)
    source = EncoderConfig(teacher.name, teacher.checkpoint)
    network = build_with(source, "teacher", teacher.layers, teacher.pooling).to(device)
    if network.sample_rate != student.sample_rate:
        raise ConfigError(
            f"The teacher {teacher.name} takes {network.sample_rate} Hz, the student {student.sample_rate} Hz. "
            "Choose encoders of one rate."
        )
    check_length(network, "data.window_seconds", config.data.window_seconds, teacher.name)
    whitener.restore_or_fit(network, tensors, PROJECTION)
    return FrozenStudent(network, "clip", half=half, save_projection=True)


def check_length(student: Student, key: str, seconds: float, name: str) -> None:
    """Raise `ConfigError` if a waveform is too short for an encoder."""
    least = student.encoder.min_samples
    if not seconds * student.sample_rate >= least:
        raise ConfigError(f"`{key}` is {seconds:g} s, but {name} needs at least {least / student.sample_rate:.2f} s.")


def load_trained(run: Run) -> tuple[Student, int]:
    """Load the trained student of a run; return it with the step of its weights.

    Raises as `build_student`, and `RunError` if the run is not finished.
    """
    tensors, state = run.latest()
    if not state["finished"]:
        raise RunError(f"{run.folder} ended at step {state['step']}. Finish it: offkey train --resume {run.folder}")
    student = build_student(run.config)
    prefix = "student."
    student.load_state_dict({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
    return student, int(state["selected_step"])


def _encoder(source: EncoderConfig, kind: type[Encoder]) -> Encoder:
    path = Path(source.checkpoint)
    if (path / MANIFEST_FILE).is_file():
        return read_weights(path, source.name)
    if (path / RUN_FILE).is_file():
        return _from_run(Run(path), source.name, kind)
    return kind.from_checkpoint(path)


def _from_run(run: Run, name: str, kind: type[Encoder]) -> Encoder:
    trained = run.config.encoder.name
    if find_encoder(trained) is not kind:
        raise CheckpointError(f"{run.folder} trained {trained}, not {name}. Set encoder.name to it.")
    return load_trained(run)[0].encoder
