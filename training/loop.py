"""Training a student, from a config to a run folder, and on from where it was interrupted."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from training.build import build_student, check_length, read_with
from training.config import Config, ConfigError, EncoderConfig, differences, from_table, to_table
from training.data.windows import Window, save_array
from training.logs import Logs
from training.objective import Losses
from training.processes import Processes, join
from training.retention import HeldOut, Retention
from training.run import Run, RunError
from training.selection import Selection
from training.sounds import Sounds
from training.student import Student
from training.teacher import PROJECTION, Bundle, FrozenStudent, Network, Teacher
from training.trainer import Learner, Trainer
from training.whitening import fit_whitening

# Students of several training seeds lie in one space, so their distances to the target can be compared.
_WHITENING_SEED = 0


def train(config: Config, name: str, parent: Path, progress: Progress) -> Run:
    """Whiten, train, select the best weights, save. Returns the run below `parent`.

    The student keeps the projection of its teacher, so that their embeddings can be compared. Where pooled embeddings
    are aligned, before the projection, that is fitted again on the trained student.

    With `optim.steps` 0 the run holds the frozen encoder under the same read-out: the baseline to beat.

    Raises:
        ConfigError, CheckpointError, DataError, BundleError: before anything is written.
        RunError: a checkpoint could not be written, or the losses are no numbers any more.
    """
    with join(config.loop.device) as processes:
        student, sounds = _prepare(config, processes)
        folder = ""
        if processes.first:
            about = {
                "data_fingerprint": sounds.fingerprint,
                "clips": [clip.name for clip in sounds.clips],
                "held_out_clips": [clip.name for clip in sounds.held_out_clips],
                "refused": sounds.audio.refused,
                "source_classes": sounds.batches(config, processes.shard).vocabulary.sources,
                "noise_classes": sounds.batches(config, processes.shard).vocabulary.noises,
            }
            folder = str(Run.create(parent, name, config, about).folder)
        run = Run(Path(processes.share_text(folder)))
        _run(config, run, student, sounds, processes, progress)
    return run


def resume(run: Run, config: Config, progress: Progress) -> Run:
    """Go on from a run's newest checkpoint, or from its start if it has none, to the losses it would have had.

    Args:
        run: one that was interrupted.
        config: what is asked for now, which must be what the run was started with.
        progress: where to draw it.

    Raises:
        RunError: the run is finished, its checkpoint damaged, or its config or data have changed.
        ConfigError, CheckpointError, DataError, BundleError: as `train`.
    """
    _same(run, run.config, config)
    if run.checkpoints:
        state = run.latest()[1]
        _same(run, from_table(state["config"]), config)
        if state["finished"]:
            raise RunError(f"{run.folder} is finished: it made all {state['step']} steps. Export it.")
    with join(config.loop.device) as processes:
        student, sounds = _prepare(config, processes)
        if sounds.fingerprint != run.about["data_fingerprint"]:
            raise RunError(f"The clips of {run.folder} have changed since it began, so it cannot go on as it was.")
        _run(config, run, student, sounds, processes, progress)
    return run


def _same(run: Run, before: Config, now: Config) -> None:
    for key, old, new in differences(before, now):
        raise RunError(
            f"`{key}` was {old!r} when {run.folder} began and is {new!r} now. Resume it with the config it began "
            "with, or start a new run."
        )


def _prepare(config: Config, processes: Processes) -> tuple[Student, Sounds]:
    torch.set_num_threads(config.threads)
    if config.loop.keep_checkpoints < 1:
        raise ConfigError(f"`loop.keep_checkpoints` is {config.loop.keep_checkpoints}; at least one must be kept.")
    if config.optim.batch < 1:
        raise ConfigError(f"`optim.batch` is {config.optim.batch}, which leaves nothing to learn from.")
    if not 0 <= config.optim.ema_decay < 1:
        raise ConfigError(f"`optim.ema_decay` is at least 0 and below 1, not {config.optim.ema_decay:g}.")
    if not config.teacher.is_copy and config.objective.space != "unit":
        raise ConfigError(
            f"`objective.space` is {config.objective.space}, but only unit embeddings of two encoders can be compared: "
            "with a teacher of another kind it must be unit."
        )
    if not config.teacher.is_copy and config.objective.level != "clip":
        raise ConfigError(
            f"`objective.level` is {config.objective.level}, but grids of two encoders do not lie on each other: "
            "with a teacher of another kind it must be clip."
        )
    student = build_student(config)
    check_length(student, "data.window_seconds", config.data.window_seconds, config.encoder.name)
    with processes.in_turn():
        sounds = Sounds.load(config, student.sample_rate)
    return student.to(processes.device), sounds


def _run(config: Config, run: Run, student: Student, sounds: Sounds, processes: Processes, progress: Progress) -> None:
    tensors, state = run.latest() if run.checkpoints else ({}, {"step": 0})
    _whiten(config, student, sounds, processes, progress, tensors.get)
    other = _other_teacher(config, student, sounds, processes, progress, tensors)
    level, space = config.objective.level, config.objective.space
    network = other or FrozenStudent(student, level, space, half=config.loop.precision == "bfloat16")
    teacher = Teacher(network, Path(config.data.cache), level, space)
    batches = sounds.batches(config, processes.shard)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        learner = Learner(student, len(batches.vocabulary), other.dim if other else None, config)
    trainer = Trainer(config, learner, teacher, processes)
    selection = Selection(trainer, _held_out(config, sounds, trainer, network), processes, config.loop)
    if tensors:
        trainer.load(tensors)
        selection.load(tensors, state.get("selection", {}))
    step, stop, every = int(state["step"]), config.optim.steps, config.loop.checkpoint_steps
    writer = _Writer(config, run, teacher, step) if processes.first else None
    task = progress.add_task("training", total=stop, completed=step)
    for batch in batches.loader(step, stop, workers=config.loop.workers):
        losses = trainer.step(batch)
        step = batch.number + 1
        measured = selection.measure(step, last=step == stop)
        if writer is not None:
            writer.log(step, losses, trainer.learning_rate(batch.number), measured)
            if every and step % every == 0 and step < stop and not selection.exhausted:
                found = {**trainer.tensors(), **network.tensors(), **selection.tensors()}
                writer.save(step, found, {"finished": False, "selection": selection.state()})
        progress.update(task, completed=step, description=f"training, alignment {float(losses.alignment):.3f}")
        if selection.exhausted:
            break
    selected = selection.finish(step)
    teachers = {PROJECTION + name: value.clone() for name, value in student.readout.whitening.state_dict().items()}
    if step and space == "pooled":
        # What was aligned is what is whitened, so its covariance is another than before.
        _whiten(config, student, sounds, processes, progress)
    if writer is not None:
        found = {**learner.state_dict(), **teachers}
        writer.save(step, found, {"finished": True, "selected_step": selected})
        writer.logs.close()


def _held_out(config: Config, sounds: Sounds, trainer: Trainer, network: Network) -> HeldOut | None:
    """Prepare the mixtures that a run is measured on, if it is to be and there are clips for it."""
    wanted = config.optim.steps and config.loop.evaluate_steps
    if not wanted or not sounds.held_out_sources or not sounds.held_out_noises:
        return None
    device = trainer.processes.device
    return HeldOut(
        trainer.objective,
        network.vectors,
        lambda windows: sounds.audio.batch(windows).to(device),
        sounds.held_out_sources,
        sounds.held_out_noises,
        config.loop.held_out_mixtures,
    )


class _Writer:
    """What the first process leaves in the run folder."""

    def __init__(self, config: Config, run: Run, teacher: Teacher, step: int) -> None:
        self.config = config
        self.run = run
        self.teacher = teacher
        self.logs = Logs(run, step)

    def log(self, step: int, losses: Losses, learning_rate: float, measured: Sequence[Retention]) -> None:
        """Log a step, and what was measured after it."""
        row = {name: value.item() for name, value in vars(losses).items()}
        self.logs.add(step, {**row, "learning_rate": learning_rate}, measured)

    def save(self, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write a checkpoint and draw the plot."""
        state = {
            **about,
            "config": to_table(self.config),
            "teacher_hits": self.teacher.hits,
            "teacher_misses": self.teacher.misses,
        }
        self.run.save(step, tensors, state, keep=self.config.loop.keep_checkpoints)
        self.logs.plot()


def _other_teacher(
    config: Config,
    student: Student,
    sounds: Sounds,
    processes: Processes,
    progress: Progress,
    tensors: Mapping[str, Tensor],
) -> FrozenStudent | Bundle | None:
    """The teacher that is not a copy of the student, if one is asked for."""
    asked, seconds = config.teacher, config.data.window_seconds
    if asked.bundle and asked.name:
        raise ConfigError("`teacher.bundle` and `teacher.name` are two teachers. Leave one of them out.")
    if asked.bundle:
        return Bundle(Path(asked.bundle), student.sample_rate, seconds, config.threads)
    if not asked.name:
        return None
    where = EncoderConfig(asked.name, asked.checkpoint)
    network = read_with(where, "teacher", asked.layers, asked.pooling).to(processes.device)
    if network.sample_rate != student.sample_rate:
        raise ConfigError(
            f"The teacher {asked.name} takes {network.sample_rate} Hz, the student {student.sample_rate} Hz. "
            "Choose encoders of one rate."
        )
    check_length(network, "data.window_seconds", seconds, asked.name)
    _whiten(config, network, sounds, processes, progress, lambda name: tensors.get(f"teacher.{name}"))
    half = config.loop.precision == "bfloat16"
    return FrozenStudent(network, "clip", half=half, keep=True)


def _whiten(
    config: Config,
    student: Student,
    sounds: Sounds,
    processes: Processes,
    progress: Progress,
    saved: Callable[[str], Tensor | None] = lambda _: None,
) -> None:
    """Take the projection that was saved, or fit one."""
    whitening = student.readout.whitening
    names = ("student.readout.whitening.mean", "student.readout.whitening.matrix")
    mean, matrix = map(saved, names)
    if mean is not None and matrix is not None:
        whitening.mean.copy_(mean)
        whitening.matrix.copy_(matrix)
        return
    asked = config.readout
    path = Path(config.data.cache) / "whitening" / f"{_whitening_key(config, student, sounds)}.npy"
    kept = _read_array(path) if processes.first else None
    known = torch.tensor(float(kept is not None), device=processes.device)
    processes.share(known)  # one may look before another run puts the file there, and one after
    if known:
        if kept is not None:
            whitening.mean.copy_(kept[0])
            whitening.matrix.copy_(kept[1:])
        for part in (whitening.mean, whitening.matrix):
            processes.share(part)
        return
    if asked.covariance == "none":
        return
    task = progress.add_task("whitening", total=asked.mixtures)

    def load(chosen: Sequence[Window]) -> Tensor:
        return sounds.audio.batch(chosen).to(processes.device)

    fit_whitening(
        student,
        sounds.sources,
        sounds.noises,
        load,
        covariance=asked.covariance,
        epsilon=asked.epsilon,
        mixtures=asked.mixtures,
        seed=_WHITENING_SEED,
        progress=lambda done: progress.update(task, completed=done),
    )
    for part in (whitening.mean, whitening.matrix):
        processes.share(part)  # the same everywhere, to the last bit
    if processes.first:
        save_array(path, torch.cat([whitening.mean[None], whitening.matrix]).cpu().numpy())


def _whitening_key(config: Config, student: Student, sounds: Sounds) -> str:
    """Hash what a projection depends on: the student before it, the clips and how they are drawn."""
    asked = [student.fingerprint(), sounds.fingerprint, config.data.window_seconds]
    asked += [config.readout.covariance, config.readout.epsilon, config.readout.mixtures]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _read_array(path: Path) -> Tensor | None:
    try:
        return torch.from_numpy(np.load(path))
    except (OSError, ValueError, EOFError):  # absent, or cut short when the machine went down
        return None
