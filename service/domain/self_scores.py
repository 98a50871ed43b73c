"""Leave-one-out scores of a domain's enrolled clips, the input of every calibration."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SelfScores:
    """Leave-one-recording-out scores of the enrolled clips of one domain.

    Clips cut from one recording share one vote: each has the weight 1 / (clips of its recording). Conformal prediction
    for a clip of a new recording then holds as for independent clips (hierarchical conformal prediction: Lee, Barber
    and Willett, arXiv 2306.06342).

    Attributes:
        scores: scores in order of clip id, `(clips,)`.
        weights: weights that sum to the number of recordings, `(clips,)`.
    """

    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, scores: NDArray[np.float64], recordings: NDArray[np.int64] | None = None) -> Self:
        """Weight scores `(clips,)` by recording. Recordings are None if each clip is a recording of its own."""
        if recordings is None:
            return cls(scores, np.ones(len(scores)))
        _, position, clips = np.unique(recordings, return_inverse=True, return_counts=True)
        return cls(scores, 1.0 / clips[position])

    @property
    def recordings(self) -> int:
        """Number n of recordings."""
        return round(float(self.weights.sum()))

    def at_least(self, score: float) -> float:
        """Count the recordings that score at least as high, where each counts with the share of its clips that do."""
        return float(self.weights[self.scores >= score].sum())

    def quantile(self, recordings: float) -> float:
        """Return the lowest score that this many recordings do not exceed, or the highest score if there are fewer."""
        order = np.argsort(self.scores)
        below = np.cumsum(self.weights[order])
        # The slack keeps a sum that is a whole number on paper from falling short of it.
        position = int(np.searchsorted(below, recordings - 1e-9))
        return float(self.scores[order[min(position, len(order) - 1)]])
