"""Backends that normalize distances by the local density of the bank.

Sounds that a machine makes often are enrolled densely, rare ones sparsely. The same distance therefore means less
in a sparse region (Wilkinghoff et al., "Local Density-Based Anomaly Score Normalization for Domain Generalization",
arXiv 2509.10951). The density is computed over all enrolled recordings of both domains.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.backends.base import TINY, Fit, Measures, Recordings, numbered
from service.domain.distance import Near, Vectors, cosine_distances, nearest_rows
from service.domain.enrolled import Details

SURROUNDINGS = 8  # nearest other recordings, K in the paper
CANDIDATES = 16  # nearest windows whose distances are normalized
_BLOCK_ROWS = 1_024  # bounds the arrays held at once


@dataclass(frozen=True)
class DensityRatio:
    """Ratio of the distance to an enrolled window and its local distance; the smallest over the 16 nearest windows.

    The local distance of an enrolled window is its mean distance to the 8 nearest other recordings, where the distance
    to a recording is that to its nearest window.
    """

    neighbors: ClassVar[int] = CANDIDATES
    sigma_floor: ClassVar[float] = 0.05
    uses_details: ClassVar[bool] = False
    _local: Mapping[Domain, Measures]  # (n,)

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        recordings: Mapping[Domain, Recordings],
        details: Mapping[Domain, Details] | None = None,
    ) -> Fit:
        """Compute the local distances of the enrolled windows."""
        del details
        local, pairs = fit_pairs(banks, recordings)
        left_out = {
            domain: {bank: cls._smallest(pair.distances, pair.local) for bank, pair in row.items()}
            for domain, row in pairs.items()
        }
        return Fit(cls(local), left_out, {})

    @property
    def nbytes(self) -> int:
        """Memory of the local distances, in bytes."""
        return sum(own.nbytes for own in self._local.values())

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Return the smallest ratio over the candidates."""
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


class Pairs(NamedTuple):
    """Enrolled windows and their candidates, computed without the window's own recording."""

    distances: Measures  # (n, k), infinite where there are fewer than k
    local: Measures  # (n, k), local distances of the candidates


class _Around(NamedTuple):
    """The nearest other recordings of each enrolled window."""

    distances: Measures  # (n, SURROUNDINGS + 1), infinite where there are fewer recordings
    recordings: Recordings  # (n, SURROUNDINGS + 1)


def fit_pairs(
    banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]
) -> tuple[dict[Domain, Measures], dict[Domain, dict[Domain, Pairs]]]:
    """Compute the local distances `(n,)` of each bank, and the pairs of each domain's windows with each bank."""
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
    pairs: dict[Domain, dict[Domain, Pairs]] = {}
    for domain, windows in banks.items():
        pairs[domain] = {}
        for bank, rows in banks.items():
            near = nearest_rows(windows, rows, CANDIDATES, apart=(numbers[domain], numbers[bank]))
            without = _local_without(near, numbers[domain], parts[bank], local[bank])
            pairs[domain][bank] = Pairs(near.distances.astype(np.float64), without)
    return local, pairs


def _surroundings(windows: Vectors, numbers: Recordings) -> _Around:
    """Find the nearest other recordings of each window, one more than a density needs, so that one can be left out."""
    order = np.argsort(numbers, kind="stable")
    ordered = windows[order]
    begins = np.flatnonzero(np.diff(numbers[order], prepend=-1))  # first ordered row of each recording
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
    """Average the first `SURROUNDINGS` kept distances over the last axis. Returns NaN where none is kept."""
    used = keep & (np.cumsum(keep, axis=-1) <= SURROUNDINGS)
    count = used.sum(axis=-1)
    total = np.where(used, distances, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _local_without(near: Near, own: Recordings, around: _Around, local: Measures) -> Measures:
    """Compute the local distances `(n, k)` of each window's candidates without the window's own recording.

    Where no third recording is left, a candidate keeps the local distance of the whole bank.
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
