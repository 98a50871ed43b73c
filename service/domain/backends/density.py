"""Distances held against how densely the bank is populated where they end.

A stretch of sound that the machine makes often is enrolled densely, one that it makes seldom is not, and the same
distance means less there (Wilkinghoff et al., "Local Density-Based Anomaly Score Normalization for Domain
Generalization", arXiv 2509.10951). The density is taken over all enrolled recordings, of whatever domain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.backends.base import TINY, LeftOut, Measures, Recordings, numbered
from service.domain.distance import Near, Vectors, cosine_distances, nearest_rows

SURROUNDINGS = 8  # recordings; the paper's K
CANDIDATES = 16  # nearest windows that are held against their density
_BLOCK_ROWS = 1_024  # bounds the arrays held at once


@dataclass(frozen=True)
class DensityRatio:
    """Distance to an enrolled window over its local distance; the smallest among the 16 nearest.

    The local distance of an enrolled window is its mean distance to the 8 nearest other recordings, each taken by its
    nearest window.
    """

    neighbors: ClassVar[int] = CANDIDATES
    sigma_floor: ClassVar[float] = 0.05
    _local: Mapping[Domain, Measures]  # (n,)

    @classmethod
    def fit(cls, banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]) -> tuple[Self, LeftOut]:
        """Local distances of the enrolled windows."""
        local, pairs = _fit(banks, recordings)
        return cls(local), {
            domain: {bank: cls._smallest(pair.distances, pair.local) for bank, pair in row.items()}
            for domain, row in pairs.items()
        }

    @property
    def values(self) -> int:
        """Local distances, two values each."""
        return 2 * sum(map(len, self._local.values()))

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """The smallest ratio among the candidates."""
        del windows
        found = {}
        for bank, one in near.items():
            rows = one.rows[:, :CANDIDATES]
            found[bank] = self._smallest(one.distances[:, :CANDIDATES], self._local[bank][rows])
        return found

    @staticmethod
    def _smallest(distances: NDArray[np.floating], local: Measures) -> Measures:
        ratios: Measures = (distances / np.maximum(local, TINY)).min(axis=1)
        return ratios


@dataclass(frozen=True)
class DensityDifference:
    """Distance to an enrolled window less a share of how much its local distance exceeds the mean one.

    The share is the slope that leaves the left-out distances the least variance, within 0 and 1. The smallest
    difference among the 16 nearest windows counts; local distances are those of `DensityRatio`.
    """

    neighbors: ClassVar[int] = CANDIDATES
    sigma_floor: ClassVar[float] = TINY
    _excess: Mapping[Domain, Measures]  # (n,), the share of it

    @classmethod
    def fit(cls, banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]) -> tuple[Self, LeftOut]:
        """Local distances of the enrolled windows, and the share of them that is taken off."""
        local, pairs = _fit(banks, recordings)
        mean = float(np.mean(np.concatenate(list(local.values()))))
        share = _slope([row[domain] for domain, row in pairs.items()])
        excess = {domain: share * (own - mean) for domain, own in local.items()}
        return cls(excess), {
            domain: {bank: (pair.distances - share * (pair.local - mean)).min(axis=1) for bank, pair in row.items()}
            for domain, row in pairs.items()
        }

    @property
    def values(self) -> int:
        """Local distances, two values each."""
        return 2 * sum(map(len, self._excess.values()))

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """The smallest difference among the candidates."""
        del windows
        return {
            bank: (one.distances[:, :CANDIDATES] - self._excess[bank][one.rows[:, :CANDIDATES]]).min(axis=1)
            for bank, one in near.items()
        }


class _Pairs(NamedTuple):
    """Enrolled windows and their candidates, with the window's own recording left out of both."""

    distances: Measures  # (n, k), infinite where there are fewer
    local: Measures  # (n, k)


class _Around(NamedTuple):
    """The nearest other recordings of each enrolled window."""

    distances: Measures  # (n, SURROUNDINGS + 1), infinite where there are fewer
    recordings: Recordings  # (n, SURROUNDINGS + 1)


def _fit(
    banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]
) -> tuple[dict[Domain, Measures], dict[Domain, dict[Domain, _Pairs]]]:
    numbers = numbered(recordings)
    around = _surroundings(np.concatenate(list(banks.values())), np.concatenate([numbers[domain] for domain in banks]))
    ends = np.cumsum([len(rows) for rows in banks.values()])
    parts = {
        domain: _Around(
            around.distances[end - len(banks[domain]) : end], around.recordings[end - len(banks[domain]) : end]
        )
        for domain, end in zip(banks, ends, strict=True)
    }
    local = {domain: _mean_of_first(part.distances, np.isfinite(part.distances)) for domain, part in parts.items()}
    pairs: dict[Domain, dict[Domain, _Pairs]] = {}
    for domain, windows in banks.items():
        pairs[domain] = {}
        for bank, rows in banks.items():
            near = nearest_rows(windows, rows, CANDIDATES, apart=(numbers[domain], numbers[bank]))
            without = _local_without(near, numbers[domain], parts[bank], local[bank])
            pairs[domain][bank] = _Pairs(near.distances.astype(np.float64), without)
    return local, pairs


def _surroundings(windows: Vectors, numbers: Recordings) -> _Around:
    """The nearest other recordings of each window, one more than a density needs, so that one can be left out."""
    order = np.argsort(numbers, kind="stable")
    ordered = windows[order]
    begins = np.flatnonzero(np.diff(numbers[order], prepend=-1))  # of each recording among the ordered
    count = min(SURROUNDINGS + 1, len(begins))
    distances = np.empty((len(windows), count))
    nearest = np.empty((len(windows), count), dtype=np.int64)
    for start in range(0, len(windows), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        of_recording = np.minimum.reduceat(cosine_distances(windows[rows], ordered), begins, axis=1)
        np.put_along_axis(of_recording, numbers[rows, None], np.inf, axis=1)
        found = np.argpartition(of_recording, count - 1, axis=1)[:, :count]
        held = np.take_along_axis(of_recording, found, axis=1)
        by_distance = np.argsort(held, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(held, by_distance, axis=1)
        nearest[rows] = np.take_along_axis(found, by_distance, axis=1)
    return _Around(distances, nearest)


def _mean_of_first(distances: Measures, keep: NDArray[np.bool_]) -> Measures:
    """Mean over the last axis of the first `SURROUNDINGS` that are kept; NaN where there is none."""
    used = keep & (np.cumsum(keep, axis=-1) <= SURROUNDINGS)
    count = used.sum(axis=-1)
    total = np.where(used, distances, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _local_without(near: Near, own: Recordings, around: _Around, local: Measures) -> Measures:
    """Local distances `(n, k)` of windows' candidates as they are without the windows' own recordings.

    Where no third recording is left, a candidate keeps the local distance it has.
    """
    found = np.empty(near.rows.shape)
    for start in range(0, len(near.rows), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        candidates = near.rows[rows]  # (block, k)
        distances = around.distances[candidates]  # (block, k, SURROUNDINGS + 1)
        others = around.recordings[candidates] != own[rows, None, None]
        without = _mean_of_first(distances, others & np.isfinite(distances))
        found[rows] = np.where(np.isnan(without), local[candidates], without)
    return found


def _slope(nearest: list[_Pairs]) -> float:
    """The share of local distances that leaves the nearest left-out distances the least variance, within 0 and 1."""
    distances = np.concatenate([pair.distances[:, 0] for pair in nearest])
    local = np.concatenate([pair.local[:, 0] for pair in nearest])
    there = np.isfinite(distances)  # a domain's only recording has no other to be near to
    distances, local = distances[there], local[there]
    centered = local - local.mean()
    power = float(centered @ centered) / len(centered)
    if power < TINY**2:
        return 0.0
    return float(np.clip((centered @ (distances - distances.mean())) / len(centered) / power, 0.0, 1.0))
