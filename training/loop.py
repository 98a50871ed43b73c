"""Training a student, from a config to a run folder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from training.config import Config, ConfigError, OptimConfig
from training.data.catalog import Catalog, Clip, classes, fingerprint
from training.data.streams import class_balanced, without_replacement
from training.data.windows import AudioCache, Window
from training.encoders import ENCODERS
from training.mixing import SpecAugment, mix
from training.objective import Losses, Objective, multi_hot
from training.readout import POOLINGS
from training.run import Run
from training.student import Student
from training.teacher import Teacher
from training.whitening import fit_whitening


def build_student(config: Config) -> Student:
    """The student as it starts: published weights, the configured read-out, not yet whitened.

    Raises:
        ConfigError: an encoder, layer or pooling of that name is not known, or a window is too short for it.
        CheckpointError: the checkpoint does not fit the encoder.
    """
    name = config.encoder.name
    if name not in ENCODERS:
        raise ConfigError(f"No encoder is called {name!r}. There are: {', '.join(ENCODERS)}.")
    if config.readout.pooling not in POOLINGS:
        raise ConfigError(f"No pooling is called {config.readout.pooling!r}. There are: {', '.join(POOLINGS)}.")
    encoder = ENCODERS[name].from_checkpoint(Path(config.encoder.checkpoint))
    unknown = [layer for layer in config.readout.layers if layer not in encoder.layers]
    if unknown or not config.readout.layers:
        raise ConfigError(f"{name} has no layer {', '.join(unknown)}; it has {', '.join(encoder.layers)}.")
    for key, seconds in (("window.min_seconds", config.window.min_seconds), ("window.seconds", config.window.seconds)):
        if not seconds * encoder.front_end.sample_rate >= encoder.min_samples:
            shortest = encoder.min_samples / encoder.front_end.sample_rate
            raise ConfigError(f"`{key}` is {seconds:g} s, but {name} needs {shortest:.2f} s at least.")
    return Student(encoder, config.readout.layers, config.readout.pooling).eval()


@dataclass(frozen=True)
class Sounds:
    """The windows of a run: sources and noises apart, with the order of their classes."""

    audio: AudioCache
    sources: tuple[Window, ...]
    noises: tuple[Window, ...]
    source_classes: tuple[str, ...]
    noise_classes: tuple[str, ...]

    @classmethod
    def load(cls, config: Config, sample_rate: int) -> "Sounds":
        """Select, decode once and cut. Raises `DataError` and `ConfigError`."""
        data = config.data
        if not data.noise_labels:
            raise ConfigError("`data.noise_labels` is empty: say which labels are noise.")
        catalog = Catalog.from_csv(Path(data.manifest))
        sources = catalog.select(roles=data.roles, without=data.noise_labels, permissive=data.permissive)
        noises = catalog.select(roles=data.roles, labels=data.noise_labels, permissive=data.permissive)
        audio = AudioCache(Path(data.cache), sample_rate)
        return cls(
            audio,
            audio.windows(sources, data.window_seconds),
            audio.windows(noises, data.window_seconds),
            classes(sources),
            classes(noises),
        )

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Every clip that is heard, once, in order of its name."""
        return tuple(sorted({window.clip for window in (*self.sources, *self.noises)}, key=lambda clip: clip.name))

    def tags(self, sources: list[Window], noises: list[Window]) -> Tensor:
        """Multi-hot tags `(batch, C + N)` of mixtures of these."""
        return multi_hot(
            torch.tensor([self.source_classes.index(window.clip.label) for window in sources]),
            torch.tensor([self.noise_classes.index(window.clip.label) for window in noises]),
            len(self.source_classes),
            len(self.noise_classes),
        )


class Trainer:
    """One student on its way: `step` by `step`, with the encoder in evaluation mode throughout.

    Batch statistics of a few mixtures are a worse guess than those of AudioSet, so batch norm stays frozen.
    """

    def __init__(self, config: Config, student: Student, sounds: Sounds) -> None:
        """`student` must be whitened already: the teacher is a copy of it as it is now."""
        self.config = config
        self.student = student
        self.sounds = sounds
        self.teacher = Teacher(student, Path(config.data.cache), sounds.audio.batch)
        self.objective = Objective(config.objective)
        self.augment = SpecAugment(config.spec_augment)
        torch.manual_seed(config.seed)
        self.head = nn.Linear(student.dim, len(sounds.source_classes) + len(sounds.noise_classes))
        self.generator = torch.Generator().manual_seed(config.seed)
        self._sources = class_balanced(sounds.sources, config.seed)
        self._noises = without_replacement(sounds.noises, config.seed + 1)
        groups: list[dict[str, Any]] = [
            {"params": list(student.encoder.parameters()), "lr": config.optim.learning_rate},
            {"params": list(self.head.parameters()), "lr": config.optim.head_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.optim.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, config.optim)
        )

    def step(self) -> Losses:
        """One update on one batch of mixtures."""
        batch = self.config.optim.batch
        sources, noises = _take(self._sources, batch), _take(self._noises, batch)
        load = self.sounds.audio.batch
        mixture = mix(load(sources), load(noises), self.config.mixing.snr_db)  # (batch, samples)
        reading = self.student.read(mixture, lambda logmel: self.augment(logmel, self.generator))
        losses = self.objective(
            reading.embedding,
            self.head(reading.whitened),
            self.teacher.embed(sources),
            self.teacher.embed(noises),
            self.sounds.tags(sources, noises),
        )
        self.optimizer.zero_grad()
        torch.autograd.backward(losses.total)
        parameters = [*self.student.encoder.parameters(), *self.head.parameters()]
        nn.utils.clip_grad_norm_(parameters, self.config.optim.clip_norm, error_if_nonfinite=True)
        self.optimizer.step()
        self.schedule.step()
        return losses


def learning_rate_factor(step: int, optim: OptimConfig) -> float:
    """Share of the full learning rate at `step`: a line up over the warm-up, then half a cosine down to 0."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _take(stream: Iterator[Window], count: int) -> list[Window]:
    return [next(stream) for _ in range(count)]


def train(config: Config, name: str, parent: Path, progress: Progress) -> Run:
    """Whiten, train, whiten again, save. Returns the run below `parent`.

    With `optim.steps` 0 the run holds the frozen encoder under the same read-out: the baseline to beat.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is written.
    """
    torch.set_num_threads(config.threads)
    student = build_student(config)
    sounds = Sounds.load(config, student.sample_rate)
    run = Run.create(
        parent,
        name,
        config,
        {
            "data_fingerprint": fingerprint(sounds.clips, sounds.audio.contents),
            "clips": [clip.name for clip in sounds.clips],
            "refused": sounds.audio.refused,
            "source_classes": sounds.source_classes,
            "noise_classes": sounds.noise_classes,
        },
    )
    _whiten(config, student, sounds, progress)
    trainer = Trainer(config, student, sounds)
    task = progress.add_task("training", total=config.optim.steps)
    for step in range(1, config.optim.steps + 1):
        rate = float(trainer.schedule.get_last_lr()[0])
        losses = trainer.step()
        row = {"total": losses.total.item(), "alignment": losses.alignment.item(), "tagging": losses.tagging.item()}
        run.log({"step": step, **row, "learning_rate": rate})
        progress.update(task, advance=1, description=f"training, alignment {row['alignment']:.3f}")
    if config.optim.steps:
        _whiten(config, student, sounds, progress)
    head = {f"head.{key}": value for key, value in trainer.head.state_dict().items()}
    cache = {"teacher_hits": trainer.teacher.hits, "teacher_misses": trainer.teacher.misses}
    run.save(config.optim.steps, {**student.state_dict(prefix="student."), **head}, cache)
    return run


def _whiten(config: Config, student: Student, sounds: Sounds, progress: Progress) -> None:
    windows = (*sounds.sources, *sounds.noises)
    task = progress.add_task("whitening", total=len(windows))
    fit_whitening(
        student,
        windows,
        sounds.audio.batch,
        covariance=config.readout.covariance,
        epsilon=config.readout.epsilon,
        seed=config.seed,
        progress=lambda done: progress.update(task, completed=done),
    )
