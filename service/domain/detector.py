"""From embeddings to anomaly scores: leave-one-out normalization of source and target banks.

A backend measures how far a window is from each domain's bank. Each measure is standardized by the mean and
deviation that the domain's own recordings have among each other (leave one recording out), and a window's score is
the smallest of them: it is normal if it is as close to either domain as that domain's recordings are to each other.
No statistic is ever taken over clips that are scored. A clip is a recording of its own unless enrollment said which
one it was cut from: pieces of one recording are closer to each other than a new recording is to any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.domain.backends import BACKENDS, DEFAULT_BACKEND
from service.domain.backends.base import Backend, LeftOut, Measures
from service.domain.backends.neighbors import Nearest
from service.domain.distance import Near, Vectors
from service.domain.self_scores import SelfScores

# A handful of recordings can agree by chance: their deviation is then no measure of what is normal.
MIN_SCALE_RECORDINGS = 5
RELATIVE_SIGMA_FLOOR = 0.05  # of the mean measure


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a domain's leave-one-out measures."""

    mu: float
    sigma: float

    @classmethod
    def fit(cls, measures: NDArray[np.floating], floor: float) -> Self:
        """Fit to `(n,)` finite measures; sigma never falls below `floor`, nor below a share of mu."""
        mu = float(np.mean(measures, dtype=np.float64))
        sigma = float(np.std(measures, dtype=np.float64))
        return cls(mu, max(sigma, RELATIVE_SIGMA_FLOOR * mu, floor))

    def lend(self, own: Self | None, floor: float) -> Self:
        """The scale of a domain with few recordings: its own mean if it has one, and this one's relative deviation."""
        if own is None:
            return self
        relative = self.sigma / max(self.mu, self.sigma)  # at most 1, also where identical clips have mean 0
        return replace(own, sigma=max(relative * own.mu, floor))

    def standardize(self, measures: NDArray[np.floating]) -> NDArray[np.float64]:
        """(measure - mu) / sigma."""
        return (measures.astype(np.float64) - self.mu) / self.sigma


@dataclass(frozen=True)
class Detector:
    """What a bank knows of itself.

    Attributes:
        backend: its name.
        borrowed: the domains with too few recordings for a scale of their own.
        self_scores: per enrolled domain. Those of a domain's only recording compare it with the other domain alone.
        usual_distance: per enrolled domain the mean cosine distance of a window to the nearest one of another
            recording; of a domain's only recording the other domain's.
    """

    backend: str
    pooled: frozenset[Domain]
    self_scores: Mapping[Domain, SelfScores]
    mean_distance: Mapping[Domain, float]
    _fitted: tuple[tuple[Backend, Mapping[Domain, Scale]], ...]

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        clips: Mapping[Domain, NDArray[np.int64]],
        recordings: Mapping[Domain, NDArray[np.int64]] | None = None,
        backend: str = DEFAULT_BACKEND,
    ) -> Self:
        """Fit to a machine's enrolled windows.

        Args:
            banks: per enrolled domain `(n, dim)` unit embeddings, n >= 1.
            clips: per enrolled domain `(n,)`, the clip each window belongs to.
            recordings: per enrolled domain `(n,)`, the recording that each window's clip was cut from; None: each clip
                is one of its own.
            backend: one of `BACKENDS`.

        Raises:
            OffkeyError: no domain has two recordings, so that nothing is known of how much healthy ones differ.
        """
        recordings = clips if recordings is None else recordings
        counts = {domain: len(np.unique(recordings[domain])) for domain in banks}
        _check(counts)
        fitted, usual = [], None
        window_scores: dict[Domain, list[Measures]] = {domain: [] for domain in banks}
        for kind in BACKENDS[backend]:
            one, left_out = kind.fit(banks, recordings)
            scales, pooled = _fit_scales(kind, left_out, counts)
            fitted.append((one, scales))
            usual = scales if kind is Nearest else usual
            for domain in banks:
                window_scores[domain] += _standardized(scales, left_out[domain])
        if usual is None:
            _, left_out = Nearest.fit(banks, recordings)
            usual, _ = _fit_scales(Nearest, left_out, counts)
        self_scores = {
            domain: _of_clips(np.min(scores, axis=0), clips[domain], recordings[domain])
            for domain, scores in window_scores.items()
        }
        return cls(backend, pooled, self_scores, {domain: scale.mu for domain, scale in usual.items()}, tuple(fitted))

    @property
    def neighbors(self) -> int:
        """How many nearest windows of each domain `window_scores` looks at."""
        return max(one.neighbors for one, _ in self._fitted)

    @property
    def values(self) -> int:
        """Memory it takes, in values of 4 bytes."""
        return sum(one.values for one, _ in self._fitted)

    @property
    def scales(self) -> tuple[Mapping[Domain, Scale], ...]:
        """Of each backend that is fused, per enrolled domain."""
        return tuple(scales for _, scales in self._fitted)

    def window_scores(self, windows: Vectors, near: Mapping[Domain, Near]) -> NDArray[np.float64]:
        """Score windows: `(m,)`.

        Args:
            windows: `(m, dim)`, unit norm.
            near: per enrolled domain the `neighbors` nearest of its windows, or all of them if it has fewer.
        """
        scores: NDArray[np.float64] = np.min(
            [score for one, scales in self._fitted for score in _standardized(scales, one.measure(windows, near))],
            axis=0,
        )
        return scores


def clip_score(window_scores: NDArray[np.float64]) -> float:
    """The anomaly score of a clip: its most anomalous window, as one bad window is reason to look."""
    return float(window_scores.max())


def _check(counts: Mapping[Domain, int]) -> None:
    if max(counts.values(), default=0) < 2:
        raise OffkeyError(
            ErrorKind.BANK_TOO_SMALL,
            "One enrolled recording per domain says nothing of how much healthy ones differ. "
            "Enroll at least 2 recordings of one domain; 20 or more make a useful threshold.",
        )


def _fit_scales(
    kind: type[Backend], left_out: LeftOut, counts: Mapping[Domain, int]
) -> tuple[dict[Domain, Scale], frozenset[Domain]]:
    """A scale per domain, and the domains that borrowed theirs."""
    scales = {
        domain: Scale.fit(left_out[domain][domain], kind.sigma_floor) for domain, count in counts.items() if count > 1
    }
    lender = max(scales, key=lambda domain: counts[domain])
    pooled = frozenset(d for d, count in counts.items() if count < min(MIN_SCALE_RECORDINGS, counts[lender]))
    return scales | {d: scales[lender].lend(scales.get(d), kind.sigma_floor) for d in pooled}, pooled


def _standardized(scales: Mapping[Domain, Scale], measures: Mapping[Domain, Measures]) -> list[Measures]:
    return [scales[bank].standardize(found) for bank, found in measures.items()]


def _of_clips(window_scores: Measures, clips: NDArray[np.int64], recordings: NDArray[np.int64]) -> SelfScores:
    """Of each clip its largest window's."""
    _, first, position = np.unique(clips, return_index=True, return_inverse=True)
    of_clip = np.full(len(first), -np.inf)
    np.maximum.at(of_clip, position, window_scores)
    return SelfScores.of(of_clip, recordings[first])
