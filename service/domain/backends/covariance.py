"""Distances that allow for the directions in which healthy windows spread.

Both backends know a mean per domain, and one spread about these means that the domains share: ten windows of a
target domain tell where it lies, but not how it spreads in a thousand dimensions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.backends.base import TINY, LeftOut, Measures, Recordings, numbered
from service.domain.distance import Near, Vectors

EXPLAINED = 0.9  # of the variance, by the directions whose residual is taken
FOLDS = 20  # up to as many recordings are left out one by one, more in as many groups
MAX_WINDOWS = 512  # that directions are fitted to: the time for it grows with their cube
_RELATIVE_CUT = 1e-6  # of the largest variance; below it a direction is rounding


class _Spread(NamedTuple):
    """Where the domains lie, and the directions of their common spread."""

    means: Mapping[Domain, NDArray[np.float32]]  # (dim,)
    directions: NDArray[np.float32]  # (r, dim), orthonormal, largest variance first
    variances: NDArray[np.float64]  # (r,)
    norms: NDArray[np.float64]  # (windows,), squared, about the mean
    dim: int

    @property
    def values(self) -> int:
        """Memory it takes, in values of 4 bytes."""
        return self.directions.size + len(self.means) * self.dim + 2 * (len(self.variances) + len(self.norms))

    def parts(self, domain: Domain, windows: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Squared lengths of windows about a domain's mean: along each direction `(m, r)`, and in all `(m,)`."""
        centered = windows - self.means[domain]
        along = (centered @ self.directions.T).astype(np.float64) ** 2
        return along, np.einsum("md,md->m", centered, centered).astype(np.float64)


@dataclass(frozen=True)
class Mahalanobis:
    """Mahalanobis distance to a domain's mean, over the root of the dimension.

    The covariance is shrunk towards a multiple of the identity, by the intensity of Ledoit and Wolf ("A
    well-conditioned estimator for large-dimensional covariance matrices", 2004), but by 1 / recordings at least: theirs
    is an estimate for large samples, and of two recordings it finds nothing to shrink.
    """

    neighbors: ClassVar[int] = 0
    sigma_floor: ClassVar[float] = 0.05
    _spread: _Spread
    _kept: float  # share of the covariance that shrinkage leaves
    _ridge: float  # variance that it adds in every direction

    @classmethod
    def fit(cls, banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]) -> tuple[Self, LeftOut]:
        """Means, covariance and shrinkage. What is left out of the former has its share in the shrinkage."""
        windows = _sample(banks)
        spread = _fit(windows, _none(windows))
        count = sum(len(np.unique(numbers)) for numbers in recordings.values())
        shrinkage = max(_ledoit_wolf(spread), 1.0 / count)
        variance = float(spread.variances.sum()) / spread.dim
        kept, ridge = 1.0 - shrinkage, max(shrinkage * variance, TINY / spread.dim)  # copies may have no variance
        return cls(spread, kept, ridge), _left_out(
            windows, recordings, lambda bank, held, fold: _mahalanobis(fold, kept, ridge, bank, held)
        )

    @property
    def values(self) -> int:
        """Mainly the directions."""
        return self._spread.values

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """The distances to the means."""
        return {bank: _mahalanobis(self._spread, self._kept, self._ridge, bank, windows) for bank in near}


@dataclass(frozen=True)
class PcaResidual:
    """Length of what the first principal directions leave of a window's difference from a domain's mean.

    So many are taken that they explain 90 % of the variance of the enrolled windows.
    """

    neighbors: ClassVar[int] = 0
    sigma_floor: ClassVar[float] = 0.005
    _spread: _Spread

    @classmethod
    def fit(cls, banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]) -> tuple[Self, LeftOut]:
        """Means and principal directions; their number is that of the whole bank, whatever is left out."""
        windows = _sample(banks)
        spread = _fit(windows, _none(windows))
        explained = np.cumsum(spread.variances)
        count = int(np.searchsorted(explained, EXPLAINED * explained[-1])) + 1 if len(explained) else 0
        first = spread._replace(directions=spread.directions[:count], variances=spread.variances[:count])
        return cls(first), _left_out(windows, recordings, lambda bank, held, fold: _residual(fold, count, bank, held))

    @property
    def values(self) -> int:
        """Mainly the directions."""
        return self._spread.values

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """The residuals."""
        return {bank: _residual(self._spread, len(self._spread.variances), bank, windows) for bank in near}


_Measure = Callable[[Domain, Vectors, _Spread], Measures]


def _mahalanobis(spread: _Spread, kept: float, ridge: float, domain: Domain, windows: Vectors) -> Measures:
    along, whole = spread.parts(domain, windows)
    rest = np.maximum(whole - along.sum(axis=1), 0.0)
    squared = (along / (kept * spread.variances + ridge)).sum(axis=1) + rest / ridge
    distance: Measures = np.sqrt(squared / spread.dim)
    return distance


def _residual(spread: _Spread, count: int, domain: Domain, windows: Vectors) -> Measures:
    along, whole = spread.parts(domain, windows)
    residual: Measures = np.sqrt(np.maximum(whole - along[:, :count].sum(axis=1), 0.0))
    return residual


class _Windows(NamedTuple):
    """A domain's enrolled windows, and those among them that directions are fitted to."""

    rows: Vectors  # (n, dim)
    sampled: NDArray[np.bool_]  # (n,)
    total: NDArray[np.float64]  # (dim,), the sum of the rows

    def mean(self, held: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Of the windows that are not held, `(dim,)`."""
        total = self.total - self.rows[held].sum(axis=0, dtype=np.float64)
        mean: NDArray[np.float64] = total / (len(held) - held.sum())
        return mean


def _none(banks: Mapping[Domain, _Windows]) -> dict[Domain, NDArray[np.bool_]]:
    return {domain: np.zeros(len(own.rows), dtype=bool) for domain, own in banks.items()}


def _sample(banks: Mapping[Domain, Vectors]) -> dict[Domain, _Windows]:
    """Windows for the directions, evenly over all in order of content: the order of enrollment does not matter."""
    count = sum(map(len, banks.values()))
    chosen = np.zeros(count, dtype=bool)
    order = np.lexsort(np.concatenate([rows[:, :3] for rows in banks.values()]).T)
    chosen[order[np.linspace(0, count - 1, min(count, MAX_WINDOWS)).round().astype(np.int64)]] = True
    parts = np.split(chosen, np.cumsum([len(rows) for rows in banks.values()])[:-1])
    return {
        domain: _Windows(rows, sampled, rows.sum(axis=0, dtype=np.float64))
        for (domain, rows), sampled in zip(banks.items(), parts, strict=True)
    }


def _fit(banks: Mapping[Domain, _Windows], held: Mapping[Domain, NDArray[np.bool_]]) -> _Spread:
    """Fit to the windows that are not held, `(n,)` per domain. A domain that has no other is left out."""
    means = {domain: bank.mean(held[domain]) for domain, bank in banks.items() if not held[domain].all()}
    centered = np.concatenate(
        [banks[domain].rows[banks[domain].sampled & ~held[domain]] - mean for domain, mean in means.items()]
    )  # (windows, dim)
    count, dim = centered.shape
    if count <= dim:
        variances, vectors = np.linalg.eigh(centered @ centered.T / count)
        vectors = centered.T @ vectors  # (dim, count), of lengths root(count * variance)
    else:
        variances, vectors = np.linalg.eigh(centered.T @ centered / count)
    there = np.flatnonzero(variances > max(_RELATIVE_CUT * float(variances[-1]), (TINY / 10) ** 2))[::-1]
    directions = vectors[:, there].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return _Spread(
        {domain: mean.astype(np.float32) for domain, mean in means.items()},
        directions.astype(np.float32),
        variances[there],
        np.einsum("nd,nd->n", centered, centered),
        dim,
    )


def _ledoit_wolf(spread: _Spread) -> float:
    """The intensity, within 0 and 1."""
    count = len(spread.norms)
    squared = float(spread.variances @ spread.variances)  # of the covariance's Frobenius norm
    off = squared - float(spread.variances.sum()) ** 2 / spread.dim  # of its distance from a multiple of the identity
    noise = (float(spread.norms @ spread.norms) / count - squared) / count
    return 1.0 if off <= TINY**4 else float(np.clip(noise / off, 0.0, 1.0))


def _left_out(
    banks: Mapping[Domain, _Windows], recordings: Mapping[Domain, Recordings], measure: _Measure
) -> dict[Domain, dict[Domain, Measures]]:
    """Measures of enrolled windows by fits without their recordings; infinite where a bank has no others."""
    found = {domain: {bank: np.full(len(own.rows), np.inf) for bank in banks} for domain, own in banks.items()}
    for held in _folds(banks, recordings):
        fold = _fit(banks, held)
        for domain, own in banks.items():
            if held[domain].any():
                for bank in fold.means:
                    found[domain][bank][held[domain]] = measure(bank, own.rows[held[domain]], fold)
    return found


def _folds(
    banks: Mapping[Domain, _Windows], recordings: Mapping[Domain, Recordings]
) -> Iterator[dict[Domain, NDArray[np.bool_]]]:
    """Which windows to leave out, recording after recording or, of many, group after group.

    Never all of a domain's recordings, if it has two. Recordings are grouped in order of content, so that the order of
    enrollment does not matter.
    """
    turns, first = {}, 0
    all_numbers = numbered(recordings)
    for domain in sorted(banks):
        numbers = all_numbers[domain]
        in_order = numbers[np.lexsort(banks[domain].rows[:, :3].T)]
        ranked = list(dict.fromkeys(in_order.tolist()))
        turn = {number: first + rank for rank, number in enumerate(ranked)}
        turns[domain] = np.array([turn[number] for number in numbers.tolist()])
        first += len(ranked)
    for fold in range(min(first, FOLDS)):
        yield {domain: turn % FOLDS == fold for domain, turn in turns.items()}
