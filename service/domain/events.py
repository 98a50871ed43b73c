"""The event view: how far the most anomalous half second of a window is from the enrolled half seconds.

A brief event hardly changes an embedding, which averages a whole window. Slices are compared instead. A bank has so
many of them that their covariance is well conditioned. Variants of the enrolled clips are added to the covariance, so
that directions which noise moves count less.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.backends.base import LeftOut, Measures, Recordings
from service.domain.enrolled import Details
from service.domain.slices import Slices

SIGMA_FLOOR = 0.05
VARIANT_WEIGHT = 0.2  # weight of the covariance of the variants, that of the enrolled slices being 1
_SHRINKAGE = 0.05  # lowest share of the identity in the covariance


class _Moments(NamedTuple):
    """Count, sum and sum of products of slices about a common origin."""

    slices: float
    total: NDArray[np.float64]  # (width,)
    products: NDArray[np.float64]  # (width, width)

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> Self:
        return cls(len(rows), rows.sum(axis=0, dtype=np.float64), (rows.T @ rows).astype(np.float64))

    def less(self, other: Self) -> Self:
        return type(self)(self.slices - other.slices, self.total - other.total, self.products - other.products)

    def mean(self) -> NDArray[np.float64]:
        return self.total / self.slices

    def about(self, center: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of squares about `center`, `(width, width)`."""
        across = np.outer(self.total, center)
        return self.products - across - across.T + self.slices * np.outer(center, center)


def _sum(moments: Iterable[_Moments]) -> _Moments:
    found = list(moments)
    return _Moments(
        sum(one.slices for one in found),
        np.sum([one.total for one in found], axis=0),
        np.sum([one.products for one in found], axis=0),
    )


@dataclass(frozen=True)
class EventView:
    """Mahalanobis distance of slices to the mean slice of each domain, divided by the root of their width.

    Attributes:
        origin: mean of all enrolled slices, `(width,)`.
        means: mean slice per domain about the origin, `(width,)`.
        scaling: matrix that whitens slices, `(width, width)`.
    """

    origin: NDArray[np.float32]
    means: Mapping[Domain, NDArray[np.float32]]
    scaling: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        details: Mapping[Domain, Details],
        recordings: Mapping[Domain, Recordings],
        groups: Mapping[Domain, Mapping[int, int]],
    ) -> tuple[Self, LeftOut, dict[Domain, Measures]]:
        """Fit to the slices of all enrolled windows, which come from at least two recordings.

        Args:
            details: details per enrolled domain; every window has slices.
            recordings: recording numbers of the windows, `(n,)` per domain.
            groups: fold in which each recording is held out, as of `recording_folds`.

        Returns:
            The view; the measures of the windows without their recording, as of a `Backend`; and those of the cuts
            `(c,)`, each against its own domain.
        """
        origin = np.mean([np.mean(np.concatenate(own.slices), axis=0) for own in details.values()], axis=0)
        origin = origin.astype(np.float32)
        folds = _Folds.of(details, recordings, groups, origin)
        view = cls._fit(folds, None, origin)
        left_out = {
            domain: {bank: np.full(len(own.slices), np.inf) for bank in details} for domain, own in details.items()
        }
        cuts = {d: np.full(len(own.cuts.clips), np.inf) for d, own in details.items() if own.cuts is not None}
        for fold in sorted({fold for own in groups.values() for fold in own.values()}):
            held = cls._fit(folds, fold, origin)
            for domain, own in details.items():
                rows = [row for row, number in enumerate(recordings[domain].tolist()) if groups[domain][number] == fold]
                for bank, found in held.measure_each([own.slices[row] for row in rows]).items():
                    left_out[domain][bank][rows] = found
                if own.cuts is not None:
                    pieces = [
                        n for n, number in enumerate(own.cuts.recordings.tolist()) if groups[domain][number] == fold
                    ]
                    of_cuts = held.measure_each([own.cuts.slices[n] for n in pieces])
                    if domain in of_cuts:
                        cuts[domain][pieces] = of_cuts[domain]
        return view, left_out, cuts

    @classmethod
    def _fit(cls, folds: "_Folds", held: int | None, origin: NDArray[np.float32]) -> Self:
        """Fit to all folds but `held`."""
        width = len(origin)
        means = {}
        scatter, around = np.zeros((width, width)), np.zeros((width, width))
        count, variants = 0.0, 0.0
        for domain in folds.enrolled:
            own = folds.without(folds.enrolled, domain, held)
            if own.slices < 1:
                continue
            means[domain] = own.mean()
            scatter, count = scatter + own.about(means[domain]), count + own.slices
            if domain in folds.variants:
                moved = folds.without(folds.variants, domain, held)
                around, variants = around + moved.about(means[domain]), variants + moved.slices
        covariance = scatter / count
        if variants:
            covariance = covariance + VARIANT_WEIGHT * around / variants
        level = max(float(np.trace(covariance)) / width, 1e-12)
        share = max(_SHRINKAGE, 1.0 / folds.recordings)
        covariance = (1.0 - share) * covariance + share * level * np.eye(width)
        scaling = np.linalg.inv(np.linalg.cholesky(covariance)).T / np.sqrt(width)
        return cls(
            origin, {domain: mean.astype(np.float32) for domain, mean in means.items()}, scaling.astype(np.float32)
        )

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        return self.origin.nbytes + self.scaling.nbytes + sum(mean.nbytes for mean in self.means.values())

    def measure(self, slices: Slices) -> dict[Domain, Measures]:
        """Measure slices `(steps, width)` against each domain. Returns `(steps,)` per domain."""
        scaled = (slices - self.origin) @ self.scaling  # (steps, width)
        found = {}
        for domain, mean in self.means.items():
            off = scaled - mean @ self.scaling
            found[domain] = np.sqrt(np.einsum("sw,sw->s", off, off)).astype(np.float64)
        return found

    def measure_each(self, windows: Sequence[Slices]) -> dict[Domain, Measures]:
        """Measure the most anomalous slice of each window. Returns `(windows,)` per domain."""
        if not windows:
            return {}
        starts = np.cumsum([0, *(len(one) for one in windows[:-1])])
        return {
            domain: np.maximum.reduceat(found, starts)
            for domain, found in self.measure(np.concatenate(windows)).items()
        }


@dataclass(frozen=True)
class _Folds:
    """Moments of the slices of each domain in all, and of each fold."""

    enrolled: Mapping[Domain, Mapping[int | None, _Moments]]  # the key None has all folds
    variants: Mapping[Domain, Mapping[int | None, _Moments]]
    recordings: int

    @classmethod
    def of(
        cls,
        details: Mapping[Domain, Details],
        recordings: Mapping[Domain, Recordings],
        groups: Mapping[Domain, Mapping[int, int]],
        origin: NDArray[np.float32],
    ) -> Self:
        enrolled, variants = {}, {}
        for domain, own in details.items():
            enrolled[domain] = _totals(own.slices, recordings[domain], groups[domain], origin)
            moved = own.variants
            if moved is not None and moved.slices:
                variants[domain] = _totals(moved.slices, moved.slice_recordings, groups[domain], origin)
        return cls(enrolled, variants, sum(len(own) for own in groups.values()))

    @staticmethod
    def without(moments: Mapping[Domain, Mapping[int | None, _Moments]], domain: Domain, held: int | None) -> _Moments:
        own = moments[domain]
        return own[None] if held is None or held not in own else own[None].less(own[held])


def _totals(
    windows: Sequence[Slices], recordings: Recordings, groups: Mapping[int, int], origin: NDArray[np.float32]
) -> dict[int | None, _Moments]:
    """Compute moments of the slices of windows by the fold of their recordings, under the key None over all folds."""
    of_fold: dict[int, list[Slices]] = {}
    for slices, number in zip(windows, recordings.tolist(), strict=True):
        of_fold.setdefault(groups[number], []).append(slices)
    moments: dict[int | None, _Moments] = {
        fold: _Moments.of(np.concatenate(rows) - origin) for fold, rows in of_fold.items()
    }
    moments[None] = _sum(moments.values())
    return moments
