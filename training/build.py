"""From names in a config to networks with weights in them."""

from collections.abc import Sequence
from pathlib import Path

from service.encoder.bundle import MANIFEST_FILE
from training.config import Config, ConfigError, EncoderConfig
from training.encoders import CheckpointError, Encoder, find_encoder
from training.readout import POOLINGS
from training.run import RUN_FILE, Run, RunError
from training.student import Student
from training.weights import read_weights


def build_student(config: Config) -> Student:
    """The student as it starts: given weights, the configured read-out, not yet whitened.

    Raises:
        ConfigError: an encoder, layer or pooling of that name is not known, or a window is too short for it.
        CheckpointError: the checkpoint does not fit the encoder.
        BundleError: the checkpoint is a bundle that is damaged.
    """
    student = read_with(config.encoder, "encoder", config.readout.layers, config.readout.pooling)
    for key, seconds in (("window.min_seconds", config.window.min_seconds), ("window.seconds", config.window.seconds)):
        check_length(student, key, seconds, config.encoder.name)
    return student


def read_with(where: EncoderConfig, key: str, layers: Sequence[str], pooling: str) -> Student:
    """An encoder with its weights and a read-out that is not whitened. Raises as `build_student`."""
    kind = find_encoder(where.name, f"{key}.name")
    if pooling not in POOLINGS:
        raise ConfigError(f"No pooling is called {pooling!r}. There are: {', '.join(POOLINGS)}.")
    encoder = _encoder(where, kind)
    known = Student.layers_of(encoder)
    unknown = [layer for layer in layers if layer not in known]
    if unknown:
        raise ConfigError(f"{where.name} has no layer {', '.join(unknown)}; it has {', '.join(known)}.")
    if not set(layers).intersection(encoder.layers):
        own = ", ".join(encoder.layers)
        raise ConfigError(f"The read-out of `{key}` takes no layer of {where.name}, which has {own}.")
    return Student(encoder, tuple(layers), pooling).eval()


def check_length(student: Student, key: str, seconds: float, name: str) -> None:
    """Raise `ConfigError` if an encoder cannot hear so short a waveform."""
    least = student.encoder.min_samples
    if not seconds * student.sample_rate >= least:
        raise ConfigError(f"`{key}` is {seconds:g} s, but {name} needs {least / student.sample_rate:.2f} s at least.")


def load_trained(run: Run) -> tuple[Student, int]:
    """Load the student that a run made, and the step that its weights are of.

    Raises as `build_student`, and `RunError` if the run is not finished.
    """
    tensors, state = run.latest()
    if not state["finished"]:
        raise RunError(f"{run.folder} ended at step {state['step']}. Finish it: offkey train --resume {run.folder}")
    student = build_student(run.config)
    prefix = "student."
    student.load_state_dict({key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)})
    return student, int(state["selected_step"])


def _encoder(where: EncoderConfig, kind: type[Encoder]) -> Encoder:
    path = Path(where.checkpoint)
    if (path / MANIFEST_FILE).is_file():
        return read_weights(path, where.name)
    if (path / RUN_FILE).is_file():
        return _from_run(Run(path), where.name, kind)
    return kind.from_checkpoint(path)


def _from_run(run: Run, name: str, kind: type[Encoder]) -> Encoder:
    trained = run.config.encoder.name
    if find_encoder(trained) is not kind:
        raise CheckpointError(f"{run.folder} trained {trained}, not {name}. Set encoder.name to it.")
    return load_trained(run)[0].encoder
