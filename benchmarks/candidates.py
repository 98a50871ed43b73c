"""Backends that are measured and not served.

In the mean of source and target, none of them is ahead on either tree of benchmarks/backends.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from offkey.vocabulary import Domain
from service.domain.backends import BACKENDS
from service.domain.backends.base import TINY, Backend, Fit, Measures, Recordings
from service.domain.backends.covariance import (
    Covariance,
    Products,
    fit_covariance,
    left_out_measures,
    sample_windows,
)
from service.domain.backends.density import CANDIDATES, Pairs, fit_pairs
from service.domain.distance import Near, Vectors
from service.domain.enrolled import Details

EXPLAINED = 0.9  # share of the variance that the removed directions explain
FUSION = "fusion"
FUSED = ("nearest", "density-ratio", "mahalanobis", "pca-residual")  # the smallest normalized measure of these


@dataclass(frozen=True)
class DensityDifference:
    """Distance to an enrolled window, less a share of the amount by which its local distance exceeds the mean one.

    The share is the slope that leaves the least variance of the left-out distances, within 0 and 1. The smallest
    difference over the 16 nearest windows counts. Local distances are those of `DensityRatio`.
    """

    neighbors: ClassVar[int] = CANDIDATES
    sigma_floor: ClassVar[float] = TINY
    uses_details: ClassVar[bool] = False
    _excess: Mapping[Domain, Measures]  # (n,), already multiplied by the share

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        recordings: Mapping[Domain, Recordings],
        details: Mapping[Domain, Details] | None = None,
    ) -> Fit:
        """Compute the local distances of the enrolled windows, and the share of them to subtract."""
        del details
        local, pairs = fit_pairs(banks, recordings)
        mean = float(np.mean(np.concatenate(list(local.values()))))
        share = _slope([row[domain] for domain, row in pairs.items()])
        excess = {domain: share * (own - mean) for domain, own in local.items()}
        left_out = {
            domain: {bank: (pair.distances - share * (pair.local - mean)).min(axis=1) for bank, pair in row.items()}
            for domain, row in pairs.items()
        }
        return Fit(cls(excess), left_out, {})

    @property
    def nbytes(self) -> int:
        """Memory of the local distances, in bytes."""
        return sum(own.nbytes for own in self._excess.values())

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Return the smallest difference over the candidates."""
        del windows
        return {
            bank: (one.distances[:, :CANDIDATES] - self._excess[bank][one.rows[:, :CANDIDATES]]).min(axis=1)
            for bank, one in near.items()
        }


@dataclass(frozen=True)
class PcaResidual:
    """Distance to a domain's mean outside the first principal directions, which explain 90 % of the variance."""

    neighbors: ClassVar[int] = 0
    sigma_floor: ClassVar[float] = 0.005
    uses_details: ClassVar[bool] = False
    _covariance: Covariance

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        recordings: Mapping[Domain, Recordings],
        details: Mapping[Domain, Details] | None = None,
    ) -> Fit:
        """Fit means and directions. The number of directions is that of the whole bank, also for left-out measures."""
        del details
        windows = sample_windows(banks)
        products = Products.of(windows, recordings)
        covariance = fit_covariance(windows, products)
        explained = np.cumsum(covariance.variances)
        count = int(np.searchsorted(explained, EXPLAINED * explained[-1])) + 1 if len(explained) else 0
        first = covariance._replace(directions=covariance.directions[:count], variances=covariance.variances[:count])
        left_out, cuts = left_out_measures(
            windows, products, recordings, lambda bank, held, fold: _residual(fold, count, bank, held)
        )
        return Fit(cls(first), left_out, cuts)

    @property
    def nbytes(self) -> int:
        """Memory of the directions, in bytes."""
        return self._covariance.nbytes

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Compute the residuals."""
        return {bank: _residual(self._covariance, len(self._covariance.variances), bank, windows) for bank in near}


CANDIDATE_BACKENDS: Mapping[str, type[Backend]] = {
    "density-difference": DensityDifference,
    "pca-residual": PcaResidual,
}


def register() -> None:
    """Add the candidates to `BACKENDS`, so that `Detector.fit` finds them by name."""
    BACKENDS.update(CANDIDATE_BACKENDS)


def _residual(covariance: Covariance, count: int, domain: Domain, windows: Vectors) -> Measures:
    along, whole = covariance.parts(domain, windows)
    residual: Measures = np.sqrt(np.maximum(whole - along[:, :count].sum(axis=1), 0.0))
    return residual


def _slope(nearest: list[Pairs]) -> float:
    """Compute the share of local distances that leaves the nearest left-out distances the least variance."""
    distances = np.concatenate([pair.distances[:, 0] for pair in nearest])
    local = np.concatenate([pair.local[:, 0] for pair in nearest])
    there = np.isfinite(distances)  # the only recording of a domain has no neighbor in its own bank
    distances, local = distances[there], local[there]
    centered = local - local.mean()
    power = float(centered @ centered) / len(centered)
    if power < TINY**2:
        return 0.0
    return float(np.clip((centered @ (distances - distances.mean())) / len(centered) / power, 0.0, 1.0))
