"""Distances that are scaled by the covariance of healthy windows.

Each domain has a mean of its own. All domains share one covariance about these means, because ten windows of a target
domain are enough for its mean but not for its covariance in a thousand dimensions.

Variants of the enrolled windows (other noise, another recording chain) are added to the covariance. What they change is
not the machine, so a difference in their directions counts less.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.backends.base import TINY, Fit, LeftOut, Measures, Recordings
from service.domain.distance import Near, Vectors
from service.domain.enrolled import Cuts, Details, Variants

FOLDS = 20  # up to this many recordings are left out one by one, more in this many groups
MAX_WINDOWS = 512  # sample that directions are fitted to; the time grows with its cube
MAX_DIRECTIONS = 64  # the others have little variance; more cost memory and detect no better
_RELATIVE_CUT = 1e-6  # of the largest variance; smaller variances are rounding errors


class Covariance(NamedTuple):
    """Means of the domains, and the principal directions of their common covariance."""

    means: Mapping[Domain, NDArray[np.float32]]  # (dim,)
    directions: NDArray[np.float16]  # (r, dim), orthonormal, largest variance first
    variances: NDArray[np.float64]  # (r,)
    shrinkage: float  # intensity of Ledoit and Wolf for the windows without their variants, within 0 and 1
    dim: int

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        means = sum(mean.nbytes for mean in self.means.values())
        return means + self.directions.nbytes + self.variances.nbytes

    def parts(self, domain: Domain, windows: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Decompose windows about a domain's mean. Returns squared lengths by direction `(m, r)` and in all `(m,)`."""
        centered = windows - self.means[domain]
        along = (centered @ self.directions.astype(np.float32).T).astype(np.float64) ** 2
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
    uses_details: ClassVar[bool] = True
    _covariance: Covariance
    _kept: float  # share of the covariance after shrinkage
    _ridge: float  # variance that shrinkage adds in every direction

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        recordings: Mapping[Domain, Recordings],
        details: Mapping[Domain, Details] | None = None,
    ) -> Fit:
        """Fit means, covariance and shrinkage. Left-out measures use the shrinkage of the whole bank."""
        windows = sample_windows(banks, details)
        covariance = fit_covariance(windows)
        count = sum(len(np.unique(numbers)) for numbers in recordings.values())
        shrinkage = max(covariance.shrinkage, 1.0 / count)
        variance = float(covariance.variances.sum()) / covariance.dim
        kept, ridge = 1.0 - shrinkage, max(shrinkage * variance, TINY / covariance.dim)  # copies may have no variance
        left_out, cuts = left_out_measures(
            windows, recordings, lambda bank, held, fold: _mahalanobis(fold, kept, ridge, bank, held)
        )
        return Fit(cls(covariance, kept, ridge), left_out, cuts)

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
    """A domain's enrolled windows, the sample of them that directions are fitted to, and what belongs to them."""

    rows: Vectors  # (n, dim)
    sampled: NDArray[np.bool_]  # (n,)
    total: NDArray[np.float64]  # (dim,), sum of the rows
    variants: Variants | None
    cuts: Cuts | None

    def mean(self, held: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Average the windows that are not held out, `(dim,)`."""
        total = self.total - self.rows[held].sum(axis=0, dtype=np.float64)
        mean: NDArray[np.float64] = total / (len(held) - held.sum())
        return mean


def sample_windows(
    banks: Mapping[Domain, Vectors], details: Mapping[Domain, Details] | None = None
) -> dict[Domain, SampledWindows]:
    """Sample windows evenly over all, ordered by content, so that the order of enrollment does not matter."""
    count = sum(map(len, banks.values()))
    chosen = np.zeros(count, dtype=bool)
    order = np.lexsort(np.concatenate([rows[:, :3] for rows in banks.values()]).T)
    chosen[order[np.linspace(0, count - 1, min(count, MAX_WINDOWS)).round().astype(np.int64)]] = True
    parts = np.split(chosen, np.cumsum([len(rows) for rows in banks.values()])[:-1])
    found = {}
    for (domain, rows), sampled in zip(banks.items(), parts, strict=True):
        variants, cuts = (None, None) if details is None else (details[domain].variants, details[domain].cuts)
        found[domain] = SampledWindows(rows, sampled, rows.sum(axis=0, dtype=np.float64), variants, cuts)
    return found


class HeldOut(NamedTuple):
    """What is left out of a fit to one domain."""

    windows: NDArray[np.bool_]  # (n,)
    recordings: frozenset[int]


def fit_covariance(banks: Mapping[Domain, SampledWindows], held: Mapping[Domain, HeldOut] | None = None) -> Covariance:
    """Fit means and covariance to all windows and variants but those held out.

    Args:
        banks: sampled windows per enrolled domain.
        held: windows and recordings to leave out per domain, None to leave out nothing. A domain held out as a whole
            has no mean.
    """
    if held is None:
        held = {domain: HeldOut(np.zeros(len(bank.rows), dtype=bool), frozenset()) for domain, bank in banks.items()}
    means = {
        domain: bank.mean(held[domain].windows) for domain, bank in banks.items() if not held[domain].windows.all()
    }
    own = np.concatenate(
        [banks[domain].rows[banks[domain].sampled & ~held[domain].windows] - mean for domain, mean in means.items()]
    )  # (windows, dim)
    moved = [
        _without(banks[domain].variants, held[domain].recordings) - mean
        for domain, mean in means.items()
        if banks[domain].variants is not None
    ]
    centered = np.concatenate([own, *moved])
    count, dim = centered.shape
    if count <= dim:
        variances, vectors = np.linalg.eigh(centered @ centered.T / count)
        vectors = centered.T @ vectors  # (dim, count), of lengths root(count * variance)
    else:
        variances, vectors = np.linalg.eigh(centered.T @ centered / count)
    there = np.flatnonzero(variances > max(_RELATIVE_CUT * float(variances[-1]), (TINY / 10) ** 2))[::-1]
    there = there[:MAX_DIRECTIONS]
    directions = vectors[:, there].T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Covariance(
        {domain: mean.astype(np.float32) for domain, mean in means.items()},
        directions.astype(np.float16),
        variances[there],
        _ledoit_wolf(own),
        dim,
    )


def _without(variants: Variants | None, recordings: frozenset[int]) -> Vectors:
    """Return the variants of the recordings that are not held out."""
    assert variants is not None
    if not recordings:
        return variants.vectors
    return variants.vectors[~np.isin(variants.recordings, list(recordings))]


def _ledoit_wolf(centered: NDArray[np.float64]) -> float:
    """Compute the shrinkage intensity of Ledoit and Wolf for centered rows `(n, dim)`, within 0 and 1."""
    count, dim = centered.shape
    gram = centered @ centered.T / count if count <= dim else centered.T @ centered / count
    squared = float(np.einsum("ij,ij->", gram, gram))  # of the covariance's Frobenius norm
    norms = np.einsum("nd,nd->n", centered, centered)
    # Squared Frobenius distance from the nearest multiple of the identity.
    off = squared - (float(norms.sum()) / count) ** 2 / dim
    noise = (float(norms @ norms) / count - squared) / count
    return 1.0 if off <= TINY**4 else float(np.clip(noise / off, 0.0, 1.0))


def left_out_measures(
    banks: Mapping[Domain, SampledWindows], recordings: Mapping[Domain, Recordings], measure: Measure
) -> tuple[LeftOut, dict[Domain, Measures]]:
    """Measure enrolled windows, and cuts of them, by fits without their recordings.

    Returns:
        Measures of the windows, infinite where a bank has no others, and those of the cuts of each domain `(c,)` by its
        own bank.
    """
    found = {domain: {bank: np.full(len(own.rows), np.inf) for bank in banks} for domain, own in banks.items()}
    pieces = {d: np.full(len(own.cuts.clips), np.inf) for d, own in banks.items() if own.cuts is not None}
    folds = recording_folds({domain: own.rows for domain, own in banks.items()}, recordings)
    for number in range(1 + max(fold for own in folds.values() for fold in own.values())):
        held = {
            domain: HeldOut(
                np.array([own[recording] == number for recording in recordings[domain].tolist()]),
                frozenset(recording for recording, fold in own.items() if fold == number),
            )
            for domain, own in folds.items()
        }
        fit = fit_covariance(banks, held)
        for domain, own in banks.items():
            rows = held[domain].windows
            if rows.any():
                for bank in fit.means:
                    found[domain][bank][rows] = measure(bank, own.rows[rows], fit)
            if own.cuts is not None and domain in fit.means:
                of_fold = np.isin(own.cuts.recordings, list(held[domain].recordings))
                if of_fold.any():
                    pieces[domain][of_fold] = measure(domain, own.cuts.vectors[of_fold], fit)
    return found, pieces


def recording_folds(
    banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]
) -> dict[Domain, dict[int, int]]:
    """Return the fold in which each recording is held out, by domain and recording number.

    One recording at a time is held out, or groups of recordings if there are many. A fold never holds out all
    recordings of a domain that has two. Recordings are grouped in order of content, so that the order of enrollment
    does not matter.
    """
    folds: dict[Domain, dict[int, int]] = {}
    first = 0
    for domain in sorted(banks):
        in_order = recordings[domain][np.lexsort(banks[domain][:, :3].T)]
        ranks = list(dict.fromkeys(in_order.tolist()))
        folds[domain] = {number: (first + rank) % FOLDS for rank, number in enumerate(ranks)}
        first += len(ranks)
    return folds
