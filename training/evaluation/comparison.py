"""The figures of an experiment with their bootstrap replicates, for paired comparisons of methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import Interval, clip_weights, mean_over, seed_weights
from training.evaluation.protocol import CLEAN, NOISY, Condition
from training.evaluation.tree import JudgedMachine
from training.metrics import METRICS, domain_metrics, official

ALL = "all"  # mean over machines; harmonic mean for the official score
NOISY_MEAN = "noisy"  # mean over all noisy conditions and ratios


class Cell(NamedTuple):
    """A condition at a ratio, or a mean: `matched` and `mismatch` of one ratio, `noisy` of all ratios."""

    condition: str
    snr_db: float | None

    def __str__(self) -> str:
        return self.condition if self.snr_db is None else f"{self.condition} {self.snr_db:g} dB"


class Key(NamedTuple):
    """The key of a figure."""

    method: str
    scorer: str
    machine: str
    cell: Cell
    metric: str


@dataclass(frozen=True)
class Gap:
    """The share of the gap between reference and oracle that a method closes."""

    size: Interval
    share: Interval | None  # None if there is no gap
    bounded: bool  # whether the gap's interval is above zero; otherwise the share has no interval


def cells(snrs: Sequence[float]) -> list[tuple[Cell, Condition]]:
    """List every measured condition with its cell."""
    noisy = [(Cell(condition.name, snr), condition) for snr in snrs for condition in NOISY]
    return [(Cell(CLEAN.name, None), CLEAN), *noisy]


def summaries(snrs: Sequence[float]) -> list[Cell]:
    """List the cells of a table."""
    pairs = [Cell(relation, snr) for snr in snrs for relation in ("matched", "mismatch")]
    return [Cell(CLEAN.name, None), *pairs, Cell(NOISY_MEAN, None)]


def directions(snrs: Sequence[float]) -> list[Cell]:
    """List the cells of both directions of the mismatch, from bank to tests."""
    found = [condition.name for condition in NOISY if condition.relation == "mismatch"]
    return [Cell(name, snr) for snr in snrs for name in found]


class Comparison:
    """Figures by key, each `(1 + replicates,)`; the first value is the figure itself."""

    def __init__(self, machines: Sequence[JudgedMachine], snrs: Sequence[float], seeds: int, replicates: int) -> None:
        self.machines = tuple(machines)
        self.snrs = tuple(snrs)
        self._clip_weights = {machine.name: clip_weights(machine, replicates) for machine in machines}
        self._seed_weights = seed_weights(seeds, replicates)
        self._replicates = replicates
        self._values: dict[Key, NDArray[np.float64]] = {}

    def add(self, method: str, scorer: str, scores: Mapping[tuple[str, Cell], Sequence[NDArray[np.float64]]]) -> None:
        """Add the figures of a method's scores.

        Args:
            method: name of the method.
            scorer: name of the scorer.
            scores: scores of the test clips by machine and cell, for each seed; `clean` has one seed.
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
        """Add figures that are means over test clips and conditions.

        Args:
            method: name of the method.
            scorer: name of the scorer.
            values: values of the test clips by machine, cell and metric, for each seed and each condition.
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
        """Add the mean over methods of one config with several training seeds; each replicate draws the seeds.

        Args:
            group: name of the group, used in keys as a method.
            methods: names of added methods.
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
    def keys(self) -> tuple[Key, ...]:
        """Keys of all figures, ordered by method."""
        return tuple(self._values)

    def replicates(self, key: Key) -> NDArray[np.float64]:
        """Return a figure and its replicates, `(1 + replicates,)`; NaN if it is not defined."""
        return self._values[key]

    def interval(self, key: Key) -> Interval | None:
        """Return a figure with its interval; None if it is not defined, as the AUC of a domain without clips."""
        values = self._values[key]
        return None if np.isnan(values[0]) else Interval.of(values)

    def difference(self, key: Key, other: str) -> Interval | None:
        """Return the paired difference of a method's figure from another method's; None if it is not defined."""
        values = self._values[key] - self._values[key._replace(method=other)]
        return None if np.isnan(values[0]) else Interval.of(values)

    def saving(self, key: Key, other: str) -> Interval:
        """Compute the relative reduction of a figure from another method's figure."""
        return Interval.of(1 - self._values[key] / self._values[key._replace(method=other)])

    def gap(self, key: Key, reference: str, oracle: str) -> Gap | None:
        """Compute the share of the gap from reference to oracle; None if a figure is not defined."""
        low = self._values[key._replace(method=reference)]
        way = self._values[key._replace(method=oracle)] - low
        if np.isnan(way[0]):
            return None
        size = Interval.of(way)
        if size.value <= 0:
            return Gap(size, None, bounded=False)
        gaps = way > 0  # a replicate without a gap has no share; with a bounded gap at most 1 in 40 has none
        share = (self._values[key] - low)[gaps] / way[gaps]
        if size.low <= 0:
            return Gap(size, Interval(float(share[0]), float("nan"), float("nan")), bounded=False)
        return Gap(size, Interval.of(share), bounded=True)
