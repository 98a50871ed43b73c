"""The training loop: train a student from a config into a run folder, or resume an interrupted run."""

from pathlib import Path

import torch
from rich.progress import Progress

from training.config import Config, check_config, differences, from_table
from training.factory import build_student, build_teacher, check_length
from training.learner import Learner
from training.processes import Processes, join
from training.retention import HeldOut
from training.run import Run, RunError
from training.run_writer import RunWriter
from training.selection import Selection
from training.sounds import Sounds
from training.student import Student
from training.teacher import PROJECTION, Network, Teacher
from training.trainer import Trainer
from training.whitening import Whitener


def train(config: Config, name: str, parent: Path, progress: Progress) -> Run:
    """Whiten, train, select the best weights and save them; return the new run below `parent`.

    The student keeps the projection of its teacher, so that their embeddings can be compared. If `objective.space` is
    `pooled`, embeddings are aligned before the projection; the projection is then fitted again on the trained student.

    With `optim.steps` 0 the run holds the frozen encoder with the same read-out: the baseline.

    Raises:
        ConfigError, CheckpointError, DataError, BundleError: before anything is written.
        RunError: a checkpoint could not be written, or a gradient is not finite.
    """
    with join(config.loop.device) as processes:
        student, sounds = _prepare(config, processes)
        run = _create_run(config, name, parent, sounds, processes)
        _fit(config, run, student, sounds, processes, progress)
    return run


def resume(run: Run, config: Config, progress: Progress) -> Run:
    """Continue a run from its newest checkpoint, or from its start; the losses are those of an uninterrupted run.

    Args:
        run: interrupted run.
        config: present config, which must equal the config that the run was started with.
        progress: progress display.

    Raises:
        RunError: the run is finished, its checkpoint is damaged, or its config or data have changed.
        ConfigError, CheckpointError, DataError, BundleError: as `train`.
    """
    _require_same(run, run.config, config)
    if run.checkpoints:
        state = run.latest()[1]
        _require_same(run, from_table(state["config"]), config)
        if state["finished"]:
            raise RunError(f"{run.folder} is finished: it made all {state['step']} steps. Export it.")
    with join(config.loop.device) as processes:
        student, sounds = _prepare(config, processes)
        if sounds.fingerprint != run.about["data_fingerprint"]:
            raise RunError(f"The clips of {run.folder} have changed since it was started, so it cannot be resumed.")
        _fit(config, run, student, sounds, processes, progress)
    return run


def _fit(config: Config, run: Run, student: Student, sounds: Sounds, processes: Processes, progress: Progress) -> None:
    """Train from the newest checkpoint, or from the start, to the last step; then save the selected weights."""
    tensors, state = run.latest() if run.checkpoints else ({}, {"step": 0})
    whitener = Whitener(config, sounds, processes, progress)
    whitener.restore_or_fit(student, tensors)
    network = build_teacher(config, student, whitener, tensors, processes.device)
    teacher = Teacher(network, Path(config.data.cache), config.objective.level, config.objective.space)
    batches = sounds.batches(config, processes.shard)
    learner = Learner.seeded(student, len(batches.vocabulary), network.dim, config)
    trainer = Trainer(config, learner, teacher, processes)
    selection = Selection(trainer, _held_out(config, sounds, trainer, network), processes, config.loop)
    if tensors:
        trainer.load(tensors)
        selection.load(tensors, state.get("selection", {}))
    step, stop, every = int(state["step"]), config.optim.steps, config.loop.checkpoint_steps
    writer = RunWriter(config, run, teacher, step) if processes.first else None
    task = progress.add_task("training", total=stop, completed=step)

    for batch in batches.loader(step, stop, workers=config.loop.workers):
        losses = trainer.step(batch)
        step = batch.number + 1
        measured = selection.measure(step, last=step == stop)
        if writer is not None:
            writer.log(step, losses, trainer.learning_rate(batch.number), measured)
            if every and step % every == 0 and step < stop and not selection.exhausted:
                checkpoint = {**trainer.tensors(), **network.tensors(), **selection.tensors()}
                writer.save(step, checkpoint, {"finished": False, "selection": selection.state()})
        progress.update(task, completed=step, description=f"training, alignment {float(losses.alignment):.3f}")
        if selection.exhausted:
            break

    selected = selection.finish(step)
    projection = {PROJECTION + name: x.clone() for name, x in student.readout.whitening.state_dict().items()}
    if step and config.objective.space == "pooled":
        whitener.fit(student)  # training has changed the pooled embeddings, and so their covariance
    if writer is not None:
        writer.save(step, {**learner.state_dict(), **projection}, {"finished": True, "selected_step": selected})
        writer.close()


def _prepare(config: Config, processes: Processes) -> tuple[Student, Sounds]:
    torch.set_num_threads(config.threads)
    check_config(config)
    student = build_student(config)
    check_length(student, "data.window_seconds", config.data.window_seconds, config.encoder.name)
    with processes.in_turn():
        sounds = Sounds.load(config, student.sample_rate)
    return student.to(processes.device), sounds


def _create_run(config: Config, name: str, parent: Path, sounds: Sounds, processes: Processes) -> Run:
    """Create the run folder in the first process; return the run in every process."""
    folder = ""
    if processes.first:
        vocabulary = sounds.batches(config, processes.shard).vocabulary
        provenance = {
            "data_fingerprint": sounds.fingerprint,
            "clips": [clip.name for clip in sounds.clips],
            "held_out_clips": [clip.name for clip in sounds.held_out_clips],
            "refused": sounds.audio.refused,
            "source_classes": vocabulary.sources,
            "noise_classes": vocabulary.noises,
        }
        folder = str(Run.create(parent, name, config, provenance).folder)
    return Run(Path(processes.share_text(folder)))


def _held_out(config: Config, sounds: Sounds, trainer: Trainer, network: Network) -> HeldOut | None:
    """Prepare the held-out mixtures; None if the run is not measured or no clip is held out."""
    measures = config.optim.steps and config.loop.evaluate_steps
    if not measures or not sounds.held_out_sources or not sounds.held_out_noises:
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


def _require_same(run: Run, before: Config, now: Config) -> None:
    for key, old, new in differences(before, now):
        raise RunError(
            f"`{key}` was {old!r} when {run.folder} was started and is {new!r} now. Resume it with the config it was "
            "started with, or start a new run."
        )
