"""Distances that are scaled by the covariance of healthy windows.

Each domain has a mean of its own. All domains share one covariance about these means, because ten windows of a target
domain are enough for its mean but not for its covariance in a thousand dimensions.

Variants of the enrolled windows (other noise, another recording chain) are added to the covariance. What they change is
not the machine, so a difference in their directions counts less.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

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
        products = Products.of(windows, recordings)
        covariance = fit_covariance(windows, products)
        count = sum(len(np.unique(numbers)) for numbers in recordings.values())
        shrinkage = max(covariance.shrinkage, 1.0 / count)
        variance = float(covariance.variances.sum()) / covariance.dim
        kept, ridge = 1.0 - shrinkage, max(shrinkage * variance, TINY / covariance.dim)  # copies may have no variance
        left_out, cuts = left_out_measures(
            windows, products, recordings, lambda bank, held, fold: _mahalanobis(fold, kept, ridge, bank, held)
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


class Products(NamedTuple):
    """Sampled windows and variants of all domains, and their products, which every fit without recordings uses."""

    rows: Vectors  # (rows, dim), about the mean of their domain
    products: NDArray[np.float64]  # (rows, rows); empty if the rows are more than their dimensions
    domains: NDArray[np.int64]  # (rows,), number of the domain
    recordings: NDArray[np.int64]  # (rows,)
    is_variant: NDArray[np.bool_]  # (rows,)
    centers: Mapping[Domain, NDArray[np.float64]]  # (dim,)

    @classmethod
    def of(cls, banks: Mapping[Domain, SampledWindows], recordings: Mapping[Domain, Recordings]) -> Self:
        """Collect the rows of all domains."""
        parts, domains, numbers, flags = [], [], [], []
        centers = {domain: bank.total / len(bank.rows) for domain, bank in banks.items()}
        for number, (domain, bank) in enumerate(banks.items()):
            found = [(bank.rows[bank.sampled], recordings[domain][bank.sampled], False)]
            if bank.variants is not None:
                found.append((bank.variants.vectors, bank.variants.recordings, True))
            for rows, own, is_variant in found:
                parts.append((rows - centers[domain]).astype(np.float32))
                domains.append(np.full(len(rows), number))
                numbers.append(own)
                flags.append(np.full(len(rows), is_variant))
        rows = np.concatenate(parts)
        products = (rows @ rows.T).astype(np.float64) if len(rows) <= rows.shape[1] else np.empty((0, 0))
        return cls(rows, products, np.concatenate(domains), np.concatenate(numbers), np.concatenate(flags), centers)


def fit_covariance(
    banks: Mapping[Domain, SampledWindows], products: Products, held: Mapping[Domain, HeldOut] | None = None
) -> Covariance:
    """Fit means and covariance to all windows and variants but those held out.

    Args:
        banks: sampled windows per enrolled domain.
        products: products of the same windows.
        held: windows and recordings to leave out per domain, None to leave out nothing. A domain held out as a whole
            has no mean.
    """
    if held is None:
        held = {domain: HeldOut(np.zeros(len(bank.rows), dtype=bool), frozenset()) for domain, bank in banks.items()}
    means = {
        domain: bank.mean(held[domain].windows) for domain, bank in banks.items() if not held[domain].windows.all()
    }
    kept = np.zeros(len(products.rows), dtype=bool)
    shifts = np.zeros((len(banks), products.rows.shape[1]))  # of the means from the centers
    for number, domain in enumerate(banks):
        if domain in means:
            out = np.isin(products.recordings, list(held[domain].recordings))
            kept |= (products.domains == number) & ~out
            shifts[number] = means[domain] - products.centers[domain]
    rows, domains = products.rows[kept], products.domains[kept]
    count, dim = rows.shape
    own = ~products.is_variant[kept]
    centered = rows - shifts[domains].astype(np.float32)
    if len(products.products):
        across = (rows @ shifts.astype(np.float32).T).astype(np.float64)  # (rows, domains)
        gram = products.products[np.ix_(kept, kept)] - across[:, domains] - across[:, domains].T
        gram += (shifts @ shifts.T)[np.ix_(domains, domains)]
        variances, vectors = np.linalg.eigh(gram / count)
        shrinkage = _ledoit_wolf(gram[np.ix_(own, own)], np.diag(gram)[own], dim)
    else:
        variances, vectors = np.linalg.eigh((centered.T @ centered).astype(np.float64) / count)
        exact = centered[own].astype(np.float64)
        shrinkage = _ledoit_wolf(exact.T @ exact, np.einsum("nd,nd->n", exact, exact), dim)
    there = np.flatnonzero(variances > max(_RELATIVE_CUT * float(variances[-1]), (TINY / 10) ** 2))[::-1]
    there = there[:MAX_DIRECTIONS]
    directions = vectors[:, there].T
    if len(products.products):
        directions = directions.astype(np.float32) @ centered  # (r, dim), of lengths root(count * variance)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return Covariance(
        {domain: mean.astype(np.float32) for domain, mean in means.items()},
        directions.astype(np.float16),
        variances[there],
        shrinkage,
        dim,
    )


def _ledoit_wolf(products: NDArray[np.float64], norms: NDArray[np.float64], dim: int) -> float:
    """Compute the shrinkage intensity of Ledoit and Wolf, within 0 and 1.

    Args:
        products: sums of products of centered rows, `(n, n)` between rows or `(dim, dim)` between dimensions.
        norms: squared lengths of the rows, `(n,)`.
        dim: number of dimensions.
    """
    count = len(norms)
    squared = float(np.einsum("ij,ij->", products, products)) / count**2  # of the covariance's Frobenius norm
    # Squared Frobenius distance from the nearest multiple of the identity.
    off = squared - (float(norms.sum()) / count) ** 2 / dim
    noise = (float(norms @ norms) / count - squared) / count
    return 1.0 if off <= TINY**4 else float(np.clip(noise / off, 0.0, 1.0))


def left_out_measures(
    banks: Mapping[Domain, SampledWindows],
    products: Products,
    recordings: Mapping[Domain, Recordings],
    measure: Measure,
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
        fit = fit_covariance(banks, products, held)
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
