"""Distances that are scaled by the covariance of healthy windows.

Each domain has a mean of its own. All domains share one covariance about these means, because ten windows of a target
domain are enough for its mean but not for its covariance in a thousand dimensions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.backends.base import TINY, LeftOut, Measures, Recordings, numbered
from service.domain.distance import Near, Vectors

FOLDS = 20  # up to this many recordings are left out one by one, more in this many groups
MAX_WINDOWS = 512  # sample that directions are fitted to; the time grows with its cube
_RELATIVE_CUT = 1e-6  # of the largest variance; smaller variances are rounding errors


class Covariance(NamedTuple):
    """Means of the domains, and the principal directions of their common covariance."""

    means: Mapping[Domain, NDArray[np.float32]]  # (dim,)
    directions: NDArray[np.float32]  # (r, dim), orthonormal, largest variance first
    variances: NDArray[np.float64]  # (r,)
    norms: NDArray[np.float64]  # (windows,), squared distances from the mean
    dim: int

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        means = sum(mean.nbytes for mean in self.means.values())
        return means + self.directions.nbytes + self.variances.nbytes + self.norms.nbytes

    def parts(self, domain: Domain, windows: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Decompose windows about a domain's mean. Returns squared lengths by direction `(m, r)` and in all `(m,)`."""
        centered = windows - self.means[domain]
        along = (centered @ self.directions.T).astype(np.float64) ** 2
        return along, np.einsum("md,md->m", centered, centered).astype(np.float64)


@dataclass(frozen=True)
class Mahalanobis:
    """Mahalanobis distance to a domain's mean, divided by the root of the dimension.

    The covariance is shrunk towards a multiple of the identity with the intensity of Ledoit and Wolf ("A
    well-conditioned estimator for large-dimensional covariance matrices", 2004), and at least 1 / recordings. Their
    estimate is for large samples: for two recordings it is 0.
    """

    neighbors: ClassVar[int] = 0
    sigma_floor: ClassVar[float] = 0.05
    _covariance: Covariance
    _kept: float  # share of the covariance after shrinkage
    _ridge: float  # variance that shrinkage adds in every direction

    @classmethod
    def fit(cls, banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]) -> tuple[Self, LeftOut]:
        """Fit means, covariance and shrinkage. Left-out measures use the shrinkage of the whole bank."""
        windows = sample_windows(banks)
        covariance = fit_covariance(windows)
        count = sum(len(np.unique(numbers)) for numbers in recordings.values())
        shrinkage = max(_ledoit_wolf(covariance), 1.0 / count)
        variance = float(covariance.variances.sum()) / covariance.dim
        kept, ridge = 1.0 - shrinkage, max(shrinkage * variance, TINY / covariance.dim)  # copies may have no variance
        return cls(covariance, kept, ridge), left_out_measures(
            windows, recordings, lambda bank, held, fold: _mahalanobis(fold, kept, ridge, bank, held)
        )

    @property
    def nbytes(self) -> int:
        """Memory of the covariance, in bytes."""
        return self._covariance.nbytes

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Compute the distances to the means."""
        return {bank: _mahalanobis(self._covariance, self._kept, self._ridge, bank, windows) for bank in near}


Measure = Callable[[Domain, Vectors, Covariance], Measures]


def _mahalanobis(covariance: Covariance, kept: float, ridge: float, domain: Domain, windows: Vectors) -> Measures:
    along, whole = covariance.parts(domain, windows)
    rest = np.maximum(whole - along.sum(axis=1), 0.0)
    squared = (along / (kept * covariance.variances + ridge)).sum(axis=1) + rest / ridge
    distance: Measures = np.sqrt(squared / covariance.dim)
    return distance


class SampledWindows(NamedTuple):
    """A domain's enrolled windows, and the sample of them that directions are fitted to."""

    rows: Vectors  # (n, dim)
    sampled: NDArray[np.bool_]  # (n,)
    total: NDArray[np.float64]  # (dim,), sum of the rows

    def mean(self, held: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Average the windows that are not held out, `(dim,)`."""
        total = self.total - self.rows[held].sum(axis=0, dtype=np.float64)
        mean: NDArray[np.float64] = total / (len(held) - held.sum())
        return mean


def sample_windows(banks: Mapping[Domain, Vectors]) -> dict[Domain, SampledWindows]:
    """Sample windows evenly over all, ordered by content, so that the order of enrollment does not matter."""
    count = sum(map(len, banks.values()))
    chosen = np.zeros(count, dtype=bool)
    order = np.lexsort(np.concatenate([rows[:, :3] for rows in banks.values()]).T)
    chosen[order[np.linspace(0, count - 1, min(count, MAX_WINDOWS)).round().astype(np.int64)]] = True
    parts = np.split(chosen, np.cumsum([len(rows) for rows in banks.values()])[:-1])
    return {
        domain: SampledWindows(rows, sampled, rows.sum(axis=0, dtype=np.float64))
        for (domain, rows), sampled in zip(banks.items(), parts, strict=True)
    }


def fit_covariance(
    banks: Mapping[Domain, SampledWindows], held: Mapping[Domain, NDArray[np.bool_]] | None = None
) -> Covariance:
    """Fit means and covariance to all windows but those held out.

    Args:
        banks: sampled windows per enrolled domain.
        held: masks `(n,)` of the windows held out, None if none is. A domain held out as a whole has no mean.
    """
    held = {domain: np.zeros(len(bank.rows), dtype=bool) for domain, bank in banks.items()} if held is None else held
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
    return Covariance(
        {domain: mean.astype(np.float32) for domain, mean in means.items()},
        directions.astype(np.float32),
        variances[there],
        np.einsum("nd,nd->n", centered, centered),
        dim,
    )


def _ledoit_wolf(covariance: Covariance) -> float:
    """Compute the shrinkage intensity of Ledoit and Wolf, within 0 and 1."""
    count = len(covariance.norms)
    squared = float(covariance.variances @ covariance.variances)  # of the covariance's Frobenius norm
    # Squared Frobenius distance from the nearest multiple of the identity.
    off = squared - float(covariance.variances.sum()) ** 2 / covariance.dim
    noise = (float(covariance.norms @ covariance.norms) / count - squared) / count
    return 1.0 if off <= TINY**4 else float(np.clip(noise / off, 0.0, 1.0))


def left_out_measures(
    banks: Mapping[Domain, SampledWindows], recordings: Mapping[Domain, Recordings], measure: Measure
) -> dict[Domain, dict[Domain, Measures]]:
    """Measure enrolled windows by fits without their recordings. Returns infinity where a bank has no others."""
    found = {domain: {bank: np.full(len(own.rows), np.inf) for bank in banks} for domain, own in banks.items()}
    for held in _folds(banks, recordings):
        fold = fit_covariance(banks, held)
        for domain, own in banks.items():
            if held[domain].any():
                for bank in fold.means:
                    found[domain][bank][held[domain]] = measure(bank, own.rows[held[domain]], fold)
    return found


def _folds(
    banks: Mapping[Domain, SampledWindows], recordings: Mapping[Domain, Recordings]
) -> Iterator[dict[Domain, NDArray[np.bool_]]]:
    """Yield masks of the windows to hold out: one recording at a time, or groups of recordings if there are many.

    A fold never holds out all recordings of a domain that has two. Recordings are grouped in order of content, so that
    the order of enrollment does not matter.
    """
    folds, first = {}, 0
    all_numbers = numbered(recordings)
    for domain in sorted(banks):
        numbers = all_numbers[domain]
        in_order = numbers[np.lexsort(banks[domain].rows[:, :3].T)]
        ranks = {number: first + rank for rank, number in enumerate(dict.fromkeys(in_order.tolist()))}
        folds[domain] = np.array([ranks[number] for number in numbers.tolist()]) % FOLDS
        first += len(ranks)
    for fold in range(min(first, FOLDS)):
        yield {domain: own == fold for domain, own in folds.items()}
