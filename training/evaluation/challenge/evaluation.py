"""An evaluation: every machine of a tree enrolled, calibrated and scored as the service does it, then judged."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from service.domain.backends import DEFAULT_BACKEND, check_backend
from service.domain.threshold import Threshold
from service.encoder.bundle import Manifest
from training.config import ConfigError
from training.data.catalog import DataError
from training.data.layouts.collection import Collection
from training.evaluation.bootstrap import Interval, clip_weights
from training.evaluation.cells import Cells
from training.evaluation.challenge.hearing import Hearing
from training.evaluation.challenge.years import COLUMNS, Figures, mean, section_figures
from training.evaluation.labels import Labels
from training.evaluation.readings import ServedBank
from training.evaluation.tree import Form, JudgedMachine, read_tree
from training.evaluation.views import BundleView
from training.metrics import Flags, Values

ALL = "all"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LEAST_REPLICATES = 100


@dataclass(frozen=True)
class EvaluationConfig:
    """Everything that decides an evaluation."""

    tree: Path
    bundles: tuple[tuple[str, Path], ...]  # name and folder; an empty name is the bundle's own
    false_alarm_rate: float  # requested
    labels: Path | None = None
    channel: str = ""  # near, far or a number from 0; empty: the mean of all, as the service hears
    backend: str = DEFAULT_BACKEND
    bootstrap: int = 1000
    work: Path = Path("runs/evaluation")
    workers: int = 0


@dataclass(frozen=True)
class Judged:
    """One machine by one bundle."""

    scores: NDArray[np.float64]  # (test clips,)
    threshold: Threshold
    figures: Figures

    @property
    def alarms(self) -> Flags:
        """Which test clips are called anomalous."""
        above: Flags = self.scores > self.threshold.value
        return above


@dataclass(frozen=True)
class Evaluation:
    """What was found, and of what."""

    config: EvaluationConfig
    machines: tuple[JudgedMachine, ...]  # without the clips that were refused
    manifests: Mapping[str, Manifest]  # by name of the bundle
    refused: Mapping[str, str]  # clips that could not be used, with the reason
    judged: Mapping[tuple[str, str], Judged]  # by bundle and machine

    @property
    def form(self) -> Form:
        """The year that the tree is laid out in."""
        return self.machines[0].form

    @property
    def folders(self) -> tuple[str, ...]:
        """Machines as the tree has them; each has one section or several."""
        return tuple(dict.fromkeys(machine.folder for machine in self.machines))

    def figure(self, bundle: str, machine: str, metric: str) -> Interval | None:
        """A figure of a section with its interval; None where it is not defined."""
        return _interval(self.judged[bundle, machine].figures[metric])

    def mean(self, bundle: str, folder: str, how: str, column: str) -> Interval | None:
        """A mean over the sections of a machine, or of `ALL`."""
        return _interval(self._mean(bundle, folder, how, column))

    def difference(self, bundle: str, less: str, how: str, column: str) -> Interval | None:
        """A bundle's mean over everything less that of another, both on the same replicates."""
        return _interval(self._mean(bundle, ALL, how, column) - self._mean(less, ALL, how, column))

    def _mean(self, bundle: str, folder: str, how: str, column: str) -> Values:
        own = [machine.name for machine in self.machines if folder in (ALL, machine.folder)]
        parts = COLUMNS[self.form].get(column, (column,))
        return mean(how, [self.judged[bundle, name].figures for name in own], parts)


def _interval(values: Values) -> Interval | None:
    return None if np.isnan(values[0]) else Interval.of(values)


def evaluate(config: EvaluationConfig, progress: Progress) -> Evaluation:
    """Hear, enroll, calibrate, score, judge. What was heard before is not heard again.

    Args:
        config: of the evaluation.
        progress: where to draw it.

    Raises:
        ConfigError, DataError: before anything is heard, if tree, labels or options are not usable; after it, if a
            machine has no clip left.
        BundleError: a bundle is damaged.
    """
    _check(config)
    channel = Collection(channel=config.channel).channel_number
    labels = None if config.labels is None else Labels.read(config.labels)
    machines = read_tree(config.tree, labels)
    views = _views(config.bundles)
    hearing = Hearing(views, channel, Cells(config.work / "cells"))
    clips = [clip for machine in machines for clip in (*machine.train, *machine.test)]
    refused = hearing.embed(clips, config.workers, progress)
    heard = tuple(_without(machine, refused, config.tree) for machine in machines)
    task = progress.add_task("scoring", total=len(heard) * len(views))
    judged = {}
    for machine in heard:
        weights = clip_weights(machine, config.bootstrap)
        for name in views:
            judged[name, machine.name] = _judge(machine, name, hearing, weights, config)
            progress.advance(task)
    manifests = {name: view.encoder.manifest for name, view in views.items()}
    return Evaluation(config, heard, manifests, dict(_named(machines, refused)), judged)


def _check(config: EvaluationConfig) -> None:
    if not 0 < config.false_alarm_rate < 1:
        raise ConfigError(f"The false-alarm rate is between 0 and 1, not {config.false_alarm_rate:g}.")
    if config.bootstrap < LEAST_REPLICATES:
        raise ConfigError(f"An interval needs {LEAST_REPLICATES} replicates at least, not {config.bootstrap}.")
    if config.workers < 0:
        raise ConfigError(f"The number of workers is 0 at least, not {config.workers}.")
    try:
        check_backend(config.backend)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _views(bundles: Sequence[tuple[str, Path]]) -> dict[str, BundleView]:
    views: dict[str, BundleView] = {}
    for given, folder in bundles:
        view = BundleView(folder)
        name = given or f"{view.encoder.manifest.name}-{view.encoder.manifest.version}"
        if _NAME.fullmatch(name) is None:
            raise ConfigError(f"A bundle's name is letters, digits, dots, dashes and underscores, not {name!r}.")
        if name in views:
            raise ConfigError(f"Two bundles are called {name}. Write --bundle NAME=DIR.")
        views[name] = view
    return views


def _without(machine: JudgedMachine, refused: Mapping[Path, str], root: Path) -> JudgedMachine:
    train = tuple(clip for clip in machine.train if clip.path not in refused)
    test = tuple(clip for clip in machine.test if clip.path not in refused)
    left = replace(machine, train=train, test=test)
    if len(train) + len(test) == len(machine.train) + len(machine.test):
        return machine
    try:
        return left.check(root)
    except DataError as error:
        first = next(clip.path for clip in (*machine.train, *machine.test) if clip.path in refused)
        raise DataError(f"{error} Clips cannot be used, the first, {first}: {refused[first]}") from error


def _named(machines: Sequence[JudgedMachine], refused: Mapping[Path, str]) -> Iterable[tuple[str, str]]:
    for machine in machines:
        for split, clips in (("train", machine.train), ("test", machine.test)):
            for clip in clips:
                if clip.path in refused:
                    yield f"{machine.folder}/{split}/{clip.name}", refused[clip.path]


def _judge(
    machine: JudgedMachine, bundle: str, hearing: Hearing, weights: NDArray[np.float64], config: EvaluationConfig
) -> Judged:
    domains = [clip.domain for clip in machine.train]
    try:
        bank = ServedBank.enroll(hearing.embedded(bundle, machine.train), domains, config.backend)
    except DataError as error:
        raise DataError(f"The machine {machine.name}: {error}") from error
    scores = bank.scores(hearing.embedded(bundle, machine.test))
    threshold = bank.threshold(config.false_alarm_rate)
    figures = section_figures(
        machine.form, scores, scores > threshold.value, machine.anomalous, machine.target, weights
    )
    return Judged(scores, threshold, figures)
