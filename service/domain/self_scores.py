"""What a domain's enrolled clips score against the others: all that calibration knows."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SelfScores:
    """Leave-one-recording-out scores of the enrolled clips of one domain.

    Clips cut from one recording share one vote: each weighs 1 / (clips of its recording). With a new clip of a new
    recording they are then as good as independent clips (hierarchical conformal prediction: Lee, Barber and Willett,
    arXiv 2306.06342).

    Attributes:
        scores: `(clips,)`, in order of clip id.
        weights: `(clips,)`, which sum to the number of recordings.
    """

    scores: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, scores: NDArray[np.float64], recordings: NDArray[np.int64] | None = None) -> Self:
        """Scores `(clips,)` and the recording that each clip was cut from; None: each is one of its own."""
        if recordings is None:
            return cls(scores, np.ones(len(scores)))
        _, position, clips = np.unique(recordings, return_inverse=True, return_counts=True)
        return cls(scores, 1.0 / clips[position])

    @property
    def recordings(self) -> int:
        """n, the recordings that the clips were cut from."""
        return round(float(self.weights.sum()))

    def at_least(self, score: float) -> float:
        """How many recordings score as high: of each the share of its clips that do."""
        return float(self.weights[self.scores >= score].sum())

    def quantile(self, recordings: float) -> float:
        """The lowest score up to which lie this many recordings, or the highest score where there are fewer."""
        order = np.argsort(self.scores)
        below = np.cumsum(self.weights[order])
        # The slack keeps a sum that is a whole number on paper from falling short of it.
        position = int(np.searchsorted(below, recordings - 1e-9))
        return float(self.scores[order[min(position, len(order) - 1)]])
