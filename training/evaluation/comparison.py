"""All figures of an experiment with their bootstrap replicates, so that methods are compared replicate by replicate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import Interval, clip_weights, mean_over, seed_weights
from training.evaluation.protocol import CLEAN, NOISY, Condition
from training.evaluation.tree import JudgedMachine
from training.metrics import METRICS, domain_metrics, official

ALL = "all"  # the mean over machines; of the official score the harmonic mean over all of them
NOISY_MEAN = "noisy"  # the mean over all noisy conditions and ratios


class Cell(NamedTuple):
    """A condition at a ratio, or a mean of such: `matched` and `mismatch` of one ratio, `noisy` of all."""

    condition: str
    snr_db: float | None

    def __str__(self) -> str:
        return self.condition if self.snr_db is None else f"{self.condition} {self.snr_db:g} dB"


class Key(NamedTuple):
    """Which figure."""

    method: str
    scorer: str
    machine: str
    cell: Cell
    metric: str


@dataclass(frozen=True)
class Gap:
    """How much of the way from the reference to the oracle a method goes."""

    size: Interval
    share: Interval | None  # None: there is no gap
    bounded: bool  # is the gap's interval above zero, without which a share's interval means nothing


def cells(snrs: Sequence[float]) -> list[tuple[Cell, Condition]]:
    """Every condition that is measured."""
    noisy = [(Cell(condition.name, snr), condition) for snr in snrs for condition in NOISY]
    return [(Cell(CLEAN.name, None), CLEAN), *noisy]


def summaries(snrs: Sequence[float]) -> list[Cell]:
    """The cells that a table shows."""
    pairs = [Cell(relation, snr) for snr in snrs for relation in ("matched", "mismatch")]
    return [Cell(CLEAN.name, None), *pairs, Cell(NOISY_MEAN, None)]


def directions(snrs: Sequence[float]) -> list[Cell]:
    """List the single directions of the mismatch, bank to tests."""
    found = [condition.name for condition in NOISY if condition.relation == "mismatch"]
    return [Cell(name, snr) for snr in snrs for name in found]


class Comparison:
    """Figures by key, each `(1 + replicates,)` with the figure itself first."""

    def __init__(self, machines: Sequence[JudgedMachine], snrs: Sequence[float], seeds: int, replicates: int) -> None:
        self.machines = tuple(machines)
        self.snrs = tuple(snrs)
        self._clip_weights = {machine.name: clip_weights(machine, replicates) for machine in machines}
        self._seed_weights = seed_weights(seeds, replicates)
        self._replicates = replicates
        self._values: dict[Key, NDArray[np.float64]] = {}

    def add(self, method: str, scorer: str, scores: Mapping[tuple[str, Cell], Sequence[NDArray[np.float64]]]) -> None:
        """Take in a method's scores.

        Args:
            method: its name.
            scorer: how they came about.
            scores: by machine and cell, for each seed the scores of the test clips; one for `clean`.
        """
        found: dict[tuple[str, Cell, str], NDArray[np.float64]] = {}
        for cell, _ in cells(self.snrs):
            by_machine = {machine.name: self._metrics(machine, scores[machine.name, cell]) for machine in self.machines}
            for name, seeds in by_machine.items():
                for metric in METRICS[:-1]:
                    found[name, cell, metric] = self._over_seeds([seed[metric] for seed in seeds])
                found[name, cell, "official"] = self._over_seeds([official([seed]) for seed in seeds])
            for metric in METRICS[:-1]:
                found[ALL, cell, metric] = mean_over([found[name, cell, metric] for name in by_machine])
            together = [official(seed) for seed in zip(*by_machine.values(), strict=True)]
            found[ALL, cell, "official"] = self._over_seeds(together)
        found |= self._summaries(found)
        self._values |= {Key(method, scorer, *key): values for key, values in found.items()}

    def add_means(
        self, method: str, scorer: str, values: Mapping[tuple[str, Cell, str], Sequence[Sequence[NDArray[np.float64]]]]
    ) -> None:
        """Take in figures that are means over test clips.

        Args:
            method: its name.
            scorer: how they came about.
            values: by machine, cell and metric: for each seed, for each of several conditions, the value of each test
                clip. The figure is the mean over clips and conditions.
        """
        names = [machine.name for machine in self.machines]
        found = {}
        for (name, cell, metric), seeds in values.items():
            weights = self._clip_weights[name]
            shares = weights / weights.sum(axis=1, keepdims=True)
            found[name, cell, metric] = self._over_seeds([shares @ np.mean(seed, axis=0) for seed in seeds])
        for cell, metric in dict.fromkeys((cell, metric) for _, cell, metric in found):
            found[ALL, cell, metric] = mean_over([found[name, cell, metric] for name in names])
        self._values |= {Key(method, scorer, *key): figure for key, figure in found.items()}

    def add_group(self, group: str, methods: Sequence[str]) -> None:
        """Add the mean over methods that are one recipe with several training seeds, which each replicate draws.

        Args:
            group: its name, which figures are then found by as by that of a method.
            methods: names of methods that were added before.
        """
        weights = seed_weights(len(methods), self._replicates, group)
        for key in [key for key in self._values if key.method == methods[0]]:
            values = np.stack([self._values[key._replace(method=method)] for method in methods])
            self._values[key._replace(method=group)] = np.einsum("mr,rm->r", values, weights)

    def _metrics(
        self, machine: JudgedMachine, seeds: Sequence[NDArray[np.float64]]
    ) -> list[dict[str, NDArray[np.float64]]]:
        weights = self._clip_weights[machine.name]
        return [domain_metrics(scores, machine.anomalous, machine.target, weights) for scores in seeds]

    def _over_seeds(self, seeds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        if len(seeds) == 1:
            return seeds[0]
        mean: NDArray[np.float64] = np.einsum("sr,rs->r", np.stack(seeds), self._seed_weights)
        return mean

    def _summaries(
        self, found: Mapping[tuple[str, Cell, str], NDArray[np.float64]]
    ) -> dict[tuple[str, Cell, str], NDArray[np.float64]]:
        means = {}
        for scope in (ALL, *(machine.name for machine in self.machines)):
            for metric in METRICS:
                noisy = [(cell, condition) for cell, condition in cells(self.snrs) if condition is not CLEAN]
                for relation, snr in ((cell.condition, cell.snr_db) for cell in summaries(self.snrs)[1:-1]):
                    parts = [c for c, condition in noisy if condition.relation == relation and c.snr_db == snr]
                    means[scope, Cell(relation, snr), metric] = mean_over([found[scope, c, metric] for c in parts])
                means[scope, Cell(NOISY_MEAN, None), metric] = mean_over([found[scope, c, metric] for c, _ in noisy])
        return means

    @property
    def known(self) -> tuple[Key, ...]:
        """All figures, method after method."""
        return tuple(self._values)

    def replicates(self, key: Key) -> NDArray[np.float64]:
        """Return a figure and its replicates, `(1 + replicates,)`; NaN where it is not defined."""
        return self._values[key]

    def interval(self, key: Key) -> Interval | None:
        """A figure with its interval; None where it is not defined, as the AUC of a domain without clips."""
        values = self._values[key]
        return None if np.isnan(values[0]) else Interval.of(values)

    def difference(self, key: Key, other: str) -> Interval | None:
        """A method's figure less that of another method, both on the same replicates."""
        values = self._values[key] - self._values[key._replace(method=other)]
        return None if np.isnan(values[0]) else Interval.of(values)

    def saving(self, key: Key, other: str) -> Interval:
        """Compute the share by which a method's figure is below that of another method."""
        return Interval.of(1 - self._values[key] / self._values[key._replace(method=other)])

    def gap(self, key: Key, reference: str, oracle: str) -> Gap | None:
        """Share of the way from the reference to the oracle; None where a figure is not defined."""
        low = self._values[key._replace(method=reference)]
        way = self._values[key._replace(method=oracle)] - low
        if np.isnan(way[0]):
            return None
        size = Interval.of(way)
        if size.value <= 0:
            return Gap(size, None, bounded=False)
        gaps = way > 0  # a replicate without a gap has no share of it; of a bounded gap they are a fortieth at most
        share = (self._values[key] - low)[gaps] / way[gaps]
        if size.low <= 0:
            return Gap(size, Interval(float(share[0]), float("nan"), float("nan")), bounded=False)
        return Gap(size, Interval.of(share), bounded=True)
