"""Evaluates bundles: every machine of a tree is enrolled, calibrated and scored as in the service."""

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
from training.evaluation.challenge.embedding import ClipEmbeddings
from training.evaluation.challenge.years import COLUMNS, Figures, mean, section_figures
from training.evaluation.embedders import BundleEmbedder
from training.evaluation.embedding_cache import EmbeddingCache
from training.evaluation.labels import Labels
from training.evaluation.scores import ServedBank
from training.evaluation.tree import Form, JudgedMachine, read_tree
from training.metrics import Flags, Values

ALL = "all"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LEAST_REPLICATES = 100


@dataclass(frozen=True)
class EvaluationConfig:
    """All options of an evaluation."""

    tree: Path
    bundles: tuple[tuple[str, Path], ...]  # name and folder; an empty name: name and version of the bundle
    false_alarm_rate: float  # requested rate of the decision threshold
    labels: Path | None = None  # labels of clips that have none in their names
    channel: str = ""  # near, far or a number from 0; empty: mean of all channels, as in the service
    backend: str = DEFAULT_BACKEND
    bootstrap: int = 1000
    work: Path = Path("runs/evaluation")
    workers: int = 0


@dataclass(frozen=True)
class Judged:
    """Scores and figures of one machine and one bundle."""

    scores: NDArray[np.float64]  # (test clips,)
    alarms: Flags  # test clips with a score above the threshold that decides about them, (test clips,)
    threshold: Threshold
    figures: Figures


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation."""

    config: EvaluationConfig
    machines: tuple[JudgedMachine, ...]  # without the clips that were refused
    manifests: Mapping[str, Manifest]  # manifests by name of the bundle
    refused: Mapping[str, str]  # reasons, by clip that could not be used
    judged: Mapping[tuple[str, str], Judged]  # results by bundle and machine

    @property
    def form(self) -> Form:
        """Layout of the tree."""
        return self.machines[0].form

    @property
    def folders(self) -> tuple[str, ...]:
        """Machine folders of the tree, each with one or more sections."""
        return tuple(dict.fromkeys(machine.folder for machine in self.machines))

    def figure(self, bundle: str, machine: str, metric: str) -> Interval | None:
        """Return a figure of a section with its interval; None if it is not defined."""
        return _interval(self.judged[bundle, machine].figures[metric])

    def mean(self, bundle: str, folder: str, how: str, column: str) -> Interval | None:
        """Return the mean over the sections of a machine, or of `ALL`."""
        return _interval(self._mean(bundle, folder, how, column))

    def difference(self, bundle: str, less: str, how: str, column: str) -> Interval | None:
        """Return the paired difference of two bundles' means over everything."""
        return _interval(self._mean(bundle, ALL, how, column) - self._mean(less, ALL, how, column))

    def _mean(self, bundle: str, folder: str, how: str, column: str) -> Values:
        own = [machine.name for machine in self.machines if folder in (ALL, machine.folder)]
        parts = COLUMNS[self.form].get(column, (column,))
        return mean(how, [self.judged[bundle, name].figures for name in own], parts)


def _interval(values: Values) -> Interval | None:
    return None if np.isnan(values[0]) else Interval.of(values)


def evaluate(config: EvaluationConfig, progress: Progress) -> Evaluation:
    """Embed, enroll, calibrate and score. Cached embeddings are reused.

    Args:
        config: options.
        progress: progress display.

    Raises:
        ConfigError, DataError: tree, labels or options cannot be used, before anything is embedded; or a machine has
            no usable clips, afterwards.
        BundleError: a bundle is damaged.
    """
    _check(config)
    channel = Collection(channel=config.channel).channel_number
    labels = None if config.labels is None else Labels.read(config.labels)
    machines = read_tree(config.tree, labels)
    embedders = _embedders(config.bundles)
    embeddings = ClipEmbeddings(embedders, channel, EmbeddingCache(config.work / "embeddings"))
    refused = embeddings.embed(machines, config.workers, progress)
    usable = tuple(_without(machine, refused, config.tree) for machine in machines)
    task = progress.add_task("scoring", total=len(usable) * len(embedders))
    judged = {}
    for machine, whole in zip(usable, machines, strict=True):
        weights = clip_weights(machine, config.bootstrap)
        for name in embedders:
            judged[name, machine.name] = _judge(machine, whole, name, embeddings, weights, config)
            progress.advance(task)
    manifests = {name: embedder.encoder.manifest for name, embedder in embedders.items()}
    return Evaluation(config, usable, manifests, dict(_named(machines, refused)), judged)


def _check(config: EvaluationConfig) -> None:
    if not 0 < config.false_alarm_rate < 1:
        raise ConfigError(f"The false-alarm rate must be between 0 and 1, not {config.false_alarm_rate:g}.")
    if config.bootstrap < LEAST_REPLICATES:
        raise ConfigError(f"An interval needs at least {LEAST_REPLICATES} replicates, not {config.bootstrap}.")
    if config.workers < 0:
        raise ConfigError(f"The number of workers must be at least 0, not {config.workers}.")
    try:
        check_backend(config.backend)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _embedders(bundles: Sequence[tuple[str, Path]]) -> dict[str, BundleEmbedder]:
    embedders: dict[str, BundleEmbedder] = {}
    for given, folder in bundles:
        embedder = BundleEmbedder(folder)
        name = given or f"{embedder.encoder.manifest.name}-{embedder.encoder.manifest.version}"
        if _NAME.fullmatch(name) is None:
            raise ConfigError(
                f"The name of a bundle may have letters, digits, dots, dashes and underscores, not {name!r}."
            )
        if name in embedders:
            raise ConfigError(f"Two bundles have the name {name}. Write --bundle NAME=DIR.")
        embedders[name] = embedder
    return embedders


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
        raise DataError(f"{error} Some clips cannot be used; the first is {first}: {refused[first]}") from error


def _named(machines: Sequence[JudgedMachine], refused: Mapping[Path, str]) -> Iterable[tuple[str, str]]:
    for machine in machines:
        for split, clips in (("train", machine.train), ("test", machine.test)):
            for clip in clips:
                if clip.path in refused:
                    yield f"{machine.folder}/{split}/{clip.name}", refused[clip.path]


def _judge(
    machine: JudgedMachine,
    whole: JudgedMachine,
    bundle: str,
    embeddings: ClipEmbeddings,
    weights: NDArray[np.float64],
    config: EvaluationConfig,
) -> Judged:
    domains = [clip.domain for clip in machine.train]
    try:
        bank = ServedBank.enroll(embeddings.load(bundle, machine, whole, "bank"), domains, config.backend)
    except DataError as error:
        raise DataError(f"The machine {machine.name}: {error}") from error
    judged = bank.judge(embeddings.load(bundle, machine, whole, "test"))
    scores, alarms = np.array([clip.score for clip in judged]), bank.alarms(judged, config.false_alarm_rate)
    figures = section_figures(machine.form, scores, alarms, machine.anomalous, machine.target, weights)
    return Judged(scores, alarms, bank.threshold(config.false_alarm_rate), figures)
