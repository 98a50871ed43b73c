"""From distances to anomaly scores: leave-one-out normalization of source and target banks.

Each domain's nearest-neighbor distances are standardized by the mean and deviation that the domain's own
recordings have among each other (leave one recording out), and a window's score is the smaller of the two: it
is normal if it is as close to either domain as that domain's recordings are to each other. No statistic is
ever taken over clips that are scored. A clip is a recording of its own unless enrollment said which one it was
cut from: pieces of one recording are closer to each other than a new recording is to any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.domain.distance import Distances, Vectors, nearest_in, nearest_to_others
from service.domain.errors import ErrorKind, OffkeyError
from service.domain.machine import Domain
from service.domain.self_scores import SelfScores

# A handful of recordings can agree by chance: their deviation is then no measure of what is normal.
MIN_SCALE_RECORDINGS = 5
RELATIVE_SIGMA_FLOOR = 0.05  # of the mean distance
ABSOLUTE_SIGMA_FLOOR = 1e-4  # cosine distance; identical clips have mean and deviation 0


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a domain's leave-one-out distances."""

    mu: float
    sigma: float

    @classmethod
    def fit(cls, distances: Distances) -> Self:
        """Fit to `(n,)` finite distances; sigma never falls below its floor."""
        mu = float(np.mean(distances, dtype=np.float64))
        sigma = float(np.std(distances, dtype=np.float64))
        return cls(mu, max(sigma, RELATIVE_SIGMA_FLOOR * mu, ABSOLUTE_SIGMA_FLOOR))

    def lend(self, own: Self | None) -> Self:
        """The scale of a domain with few recordings: its own mean if it has one, and this one's relative deviation."""
        if own is None:
            return self
        relative = self.sigma / max(self.mu, self.sigma)  # at most 1, also where identical clips have mean 0
        return replace(own, sigma=max(relative * own.mu, ABSOLUTE_SIGMA_FLOOR))

    def standardize(self, distances: Distances) -> NDArray[np.float64]:
        """(d - mu) / sigma."""
        return (distances.astype(np.float64) - self.mu) / self.sigma


@dataclass(frozen=True)
class Detector:
    """What a bank knows of itself.

    Attributes:
        scales: per enrolled domain.
        borrowed: the domains with too few recordings for a scale of their own.
        self_scores: per enrolled domain. Those of a domain's only recording compare it with the other domain alone.
    """

    scales: Mapping[Domain, Scale]
    borrowed: frozenset[Domain]
    self_scores: Mapping[Domain, SelfScores]

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        clips: Mapping[Domain, NDArray[np.int64]],
        recordings: Mapping[Domain, NDArray[np.int64]] | None = None,
    ) -> Self:
        """Fit to a machine's enrolled windows.

        Args:
            banks: per enrolled domain `(n, dim)` unit embeddings, n >= 1.
            clips: per enrolled domain `(n,)`, the clip each window belongs to.
            recordings: per enrolled domain `(n,)`, the recording that each window's clip was cut from; None: each clip
                is one of its own.

        Raises:
            OffkeyError: no domain has two recordings, so that nothing is known of how much healthy ones differ.
        """
        recordings = clips if recordings is None else recordings
        own = {domain: nearest_to_others(banks[domain], recordings[domain]) for domain in banks}
        counts = {domain: len(np.unique(recordings[domain])) for domain in banks}
        scales, borrowed = _fit_scales(own, counts)
        self_scores: dict[Domain, SelfScores] = {}
        for domain in banks:
            window_scores = _combine(
                scales,
                {other: own[domain] if other is domain else nearest_in(banks[domain], banks[other]) for other in banks},
            )
            _, first, position = np.unique(clips[domain], return_index=True, return_inverse=True)
            of_clip = np.full(len(first), -np.inf)
            np.maximum.at(of_clip, position, window_scores)
            self_scores[domain] = SelfScores.of(of_clip, recordings[domain][first])
        return cls(scales, borrowed, self_scores)

    def window_scores(self, nearest: Mapping[Domain, Distances]) -> NDArray[np.float64]:
        """Score windows by their distance `(m,)` to the nearest embedding of each enrolled domain: `(m,)`."""
        return _combine(self.scales, nearest)


def clip_score(window_scores: NDArray[np.float64]) -> float:
    """The anomaly score of a clip: its most anomalous window, as one bad window is reason to look."""
    return float(window_scores.max())


def _fit_scales(
    own: Mapping[Domain, Distances], counts: Mapping[Domain, int]
) -> tuple[dict[Domain, Scale], frozenset[Domain]]:
    """A scale per domain, and the domains that borrowed theirs."""
    scales = {domain: Scale.fit(own[domain]) for domain, count in counts.items() if count > 1}
    if not scales:
        raise OffkeyError(
            ErrorKind.BANK_TOO_SMALL,
            "One enrolled recording per domain says nothing of how much healthy ones differ. "
            "Enroll at least 2 recordings of one domain; 20 or more make a useful threshold.",
        )
    lender = max(scales, key=lambda domain: counts[domain])
    borrowed = frozenset(d for d, count in counts.items() if count < min(MIN_SCALE_RECORDINGS, counts[lender]))
    return scales | {d: scales[lender].lend(scales.get(d)) for d in borrowed}, borrowed


def _combine(scales: Mapping[Domain, Scale], nearest: Mapping[Domain, Distances]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = np.min(
        [scales[domain].standardize(distances) for domain, distances in nearest.items()], axis=0
    )
    return scores
