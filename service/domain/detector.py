"""Anomaly scores from embeddings: leave-one-out normalization of source and target banks.

A backend measures how far a window is from each domain's bank. Each measure is standardized by the mean and deviation
of the measures that the domain's own windows have with their recording left out. The score of a window is the smallest
of its standardized measures: a window is normal if it is as close to either domain as that domain's recordings are to
each other. No statistic is computed over clips that are scored.

A clip is a recording of its own unless enrollment names the recording that it was cut from. Pieces of one recording are
closer to each other than a new recording is to any of them, so they are left out together.
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

MIN_SCALE_RECORDINGS = 5  # fewer recordings can agree by chance, so their deviation is no measure of what is normal
RELATIVE_SIGMA_FLOOR = 0.05  # share of the mean measure


@dataclass(frozen=True)
class Scale:
    """Mean and deviation of a domain's leave-one-out measures."""

    mu: float
    sigma: float

    @classmethod
    def fit(cls, measures: NDArray[np.floating], floor: float) -> Self:
        """Fit to `(n,)` finite measures. Sigma is at least `floor` and at least a share of mu."""
        mu = float(np.mean(measures, dtype=np.float64))
        sigma = float(np.std(measures, dtype=np.float64))
        return cls(mu, max(sigma, RELATIVE_SIGMA_FLOOR * mu, floor))

    def pool(self, own: Self | None, floor: float) -> Self:
        """Return the scale of a domain with few recordings: its own mean if it has one, this relative deviation."""
        if own is None:
            return self
        relative = self.sigma / max(self.mu, self.sigma)  # at most 1, also where identical clips have mean 0
        return replace(own, sigma=max(relative * own.mu, floor))

    def standardize(self, measures: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (measure - mu) / sigma."""
        return (measures.astype(np.float64) - self.mu) / self.sigma


@dataclass(frozen=True)
class Detector:
    """Scores windows against the banks of one machine.

    Attributes:
        backend: backend name.
        scales: mean and deviation of the leave-one-out measures, per enrolled domain.
        pooled: domains with too few recordings for a deviation of their own.
        self_scores: leave-one-out scores per enrolled domain. The only recording of a domain is compared with the
            other domain alone.
        mean_distance: mean cosine distance of a window to the nearest window of another recording, per enrolled
            domain. The other domain's mean stands in where a domain has one recording.
    """

    backend: str
    scales: Mapping[Domain, Scale]
    pooled: frozenset[Domain]
    self_scores: Mapping[Domain, SelfScores]
    mean_distance: Mapping[Domain, float]
    _fitted: Backend

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
            banks: unit embeddings `(n, dim)` per enrolled domain, n >= 1.
            clips: clip number of each window `(n,)`, per enrolled domain.
            recordings: recording number of each window `(n,)`, per enrolled domain. None if each clip is a recording of
                its own.
            backend: name in `BACKENDS`.

        Raises:
            OffkeyError: no domain has two recordings, so the difference between healthy recordings is unknown.
        """
        recordings = clips if recordings is None else recordings
        counts = {domain: len(np.unique(recordings[domain])) for domain in banks}
        _check(counts)
        kind = BACKENDS[backend]
        fitted, left_out = kind.fit(banks, recordings)
        scales, pooled = _fit_scales(kind, left_out, counts)
        nearest = scales if kind is Nearest else _fit_scales(Nearest, Nearest.fit(banks, recordings)[1], counts)[0]
        self_scores = {
            domain: _clip_scores(_smallest(scales, left_out[domain]), clips[domain], recordings[domain])
            for domain in banks
        }
        return cls(backend, scales, pooled, self_scores, {domain: own.mu for domain, own in nearest.items()}, fitted)

    @property
    def neighbors(self) -> int:
        """Number of nearest windows of each domain that `window_scores` needs."""
        return self._fitted.neighbors

    @property
    def nbytes(self) -> int:
        """Memory of the fitted backend, in bytes."""
        return self._fitted.nbytes

    def window_scores(self, windows: Vectors, near: Mapping[Domain, Near]) -> NDArray[np.float64]:
        """Score windows. Returns `(m,)`.

        Args:
            windows: unit embeddings `(m, dim)`.
            near: the `neighbors` nearest enrolled windows per domain, or all of them if the domain has fewer.
        """
        return _smallest(self.scales, self._fitted.measure(windows, near))


def clip_score(window_scores: NDArray[np.float64]) -> float:
    """Return the score of a clip's most anomalous window, because one bad window is a reason to look."""
    return float(window_scores.max())


def _check(counts: Mapping[Domain, int]) -> None:
    if max(counts.values(), default=0) < 2:
        raise OffkeyError(
            ErrorKind.BANK_TOO_SMALL,
            "One enrolled recording per domain is not enough to measure how much healthy recordings differ. "
            "Enroll at least 2 recordings of one domain; 20 or more make a useful threshold.",
        )


def _fit_scales(
    kind: type[Backend], left_out: LeftOut, counts: Mapping[Domain, int]
) -> tuple[dict[Domain, Scale], frozenset[Domain]]:
    """Fit a scale per domain. Returns the scales, and the domains that use the deviation of the largest domain."""
    scales = {
        domain: Scale.fit(left_out[domain][domain], kind.sigma_floor) for domain, count in counts.items() if count > 1
    }
    largest = max(scales, key=lambda domain: counts[domain])
    pooled = frozenset(d for d, count in counts.items() if count < min(MIN_SCALE_RECORDINGS, counts[largest]))
    return scales | {d: scales[largest].pool(scales.get(d), kind.sigma_floor) for d in pooled}, pooled


def _smallest(scales: Mapping[Domain, Scale], measures: Mapping[Domain, Measures]) -> NDArray[np.float64]:
    """Standardize the measures against each bank. Returns the smallest of each window, `(m,)`."""
    scores: NDArray[np.float64] = np.min([scales[bank].standardize(own) for bank, own in measures.items()], axis=0)
    return scores


def _clip_scores(window_scores: Measures, clips: NDArray[np.int64], recordings: NDArray[np.int64]) -> SelfScores:
    """Reduce the self-scores of windows to those of clips, each that of its most anomalous window."""
    _, first, position = np.unique(clips, return_index=True, return_inverse=True)
    scores = np.full(len(first), -np.inf)
    np.maximum.at(scores, position, window_scores)
    return SelfScores.of(scores, recordings[first])
