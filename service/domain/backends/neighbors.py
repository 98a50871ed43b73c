"""Backends that measure the distance to the nearest enrolled windows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from offkey.vocabulary import Domain
from service.domain.backends.base import TINY, Fit, Measures, Recordings, numbered
from service.domain.distance import Distances, Near, Vectors, nearest_in, nearest_rows, nearest_to_others
from service.domain.enrolled import Details

MEAN_OF = 5  # nearest windows


@dataclass(frozen=True)
class Nearest:
    """Cosine distance to the nearest window of a bank (1-NN)."""

    neighbors: ClassVar[int] = 1
    sigma_floor: ClassVar[float] = TINY
    uses_details: ClassVar[bool] = False
    nbytes = 0

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        recordings: Mapping[Domain, Recordings],
        details: Mapping[Domain, Details] | None = None,
    ) -> Fit:
        """Compute the leave-one-recording-out distances; nothing is fitted."""
        del details
        left_out = {
            domain: {
                bank: nearest_to_others(windows, recordings[domain]) if bank is domain else nearest_in(windows, rows)
                for bank, rows in banks.items()
            }
            for domain, windows in banks.items()
        }
        found = {d: {bank: one.astype(np.float64) for bank, one in row.items()} for d, row in left_out.items()}
        return Fit(cls(), found, {})

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Return the smallest distance that the search found."""
        del windows
        return {bank: found.distances[:, 0].astype(np.float64) for bank, found in near.items()}


@dataclass(frozen=True)
class NearestMean:
    """Mean cosine distance to the five nearest windows of a bank, or to all of them if it has fewer (kNN)."""

    neighbors: ClassVar[int] = MEAN_OF
    sigma_floor: ClassVar[float] = TINY
    uses_details: ClassVar[bool] = False
    nbytes = 0

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        recordings: Mapping[Domain, Recordings],
        details: Mapping[Domain, Details] | None = None,
    ) -> Fit:
        """Compute the leave-one-recording-out distances; nothing is fitted."""
        del details
        numbers = numbered(recordings)
        left_out = {
            domain: {
                bank: _mean(nearest_rows(windows, rows, MEAN_OF, apart=(numbers[domain], numbers[bank])).distances)
                for bank, rows in banks.items()
            }
            for domain, windows in banks.items()
        }
        return Fit(cls(), left_out, {})

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Average the distances that the search found."""
        del windows
        return {bank: _mean(found.distances[:, :MEAN_OF]) for bank, found in near.items()}


def _mean(distances: Distances) -> Measures:
    """Average the finite distances in each row `(m, k)`. Returns infinity for rows without one."""
    there = np.isfinite(distances)
    count = there.sum(axis=1)
    total = np.where(there, distances, 0.0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)
