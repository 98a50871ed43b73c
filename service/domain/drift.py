"""Drift: a test of whether recent scores are still distributed as those of the enrolled clips.

While a machine has not changed, its scores and the leave-one-out self-scores are exchangeable: the share of self-scores
above a score, its conformal p-value, is uniform. With drift these p-values lie on one side. Their mean is the rank-sum
statistic of Mann, Whitney and Wilcoxon, with a deviation that accounts for the number of enrolled recordings.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Verdict
from service.domain.self_scores import SelfScores

MIN_SCORES = 20  # minimum for a verdict
MIN_RECORDINGS = 10  # minimum for a verdict; fewer are compatible with almost any scores
SIGNIFICANT = 0.0005  # p-value; the test is repeated with every clip, so false alarms must be rare
MIN_SHIFT = 0.5  # robust deviations; smaller shifts are irrelevant in practice, however significant
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_SIGMA_FLOOR = 0.1  # in units of scores, which are standardized


@dataclass(frozen=True)
class Drift:
    """Comparison of scores with the self-scores of a bank.

    Attributes:
        scores: number of scores.
        median_shift: difference of the medians of scores and self-scores, in robust deviations of the self-scores.
        p_value: two-sided p-value of the rank-sum test.
        verdict: result by both the shift and the p-value.
    """

    scores: int
    median_shift: float
    p_value: float
    verdict: Verdict

    @classmethod
    def of(cls, own: SelfScores, scores: NDArray[np.float64]) -> Self:
        """Compare `(m,)` scores, m >= 1, with self-scores."""
        shift = (float(np.median(scores)) - _median(own)) / _sigma(own)
        p_value = _rank_sum(own, scores)
        if len(scores) < MIN_SCORES or own.recordings < MIN_RECORDINGS:
            verdict = Verdict.UNKNOWN
        elif p_value > SIGNIFICANT or abs(shift) < MIN_SHIFT:
            verdict = Verdict.STEADY
        else:
            verdict = Verdict.HIGHER if shift > 0 else Verdict.LOWER
        return cls(len(scores), shift, p_value, verdict)


def _median(own: SelfScores) -> float:
    return own.quantile(own.recordings / 2)


def _sigma(own: SelfScores) -> float:
    around = SelfScores(np.abs(own.scores - _median(own)), own.weights)
    return max(_MAD * _median(around), _SIGMA_FLOOR)


def _rank_sum(own: SelfScores, scores: NDArray[np.float64]) -> float:
    """Compute the two-sided p-value with the normal approximation. Ties count half."""
    order = np.argsort(own.scores)
    below = np.concatenate([[0.0], np.cumsum(own.weights[order])])
    sides = [below[np.searchsorted(own.scores[order], scores, side)] for side in ("left", "right")]
    rank = float(np.mean(sides)) / below[-1]  # mean share of self-scores below a score
    n, m = own.recordings, len(scores)
    deviation = math.sqrt((n + m + 1) / (12 * n * m))
    return math.erfc(abs(rank - 0.5) / deviation / math.sqrt(2))
