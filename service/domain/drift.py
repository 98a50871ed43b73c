"""Whether what is scored lately still scores as the enrolled clips do.

Of a machine that is as it was, scores and leave-one-out self-scores are exchangeable: the share of self-scores above a
score, its conformal p-value, is uniform. Drift is when these p-values lie on one side. Their mean is the rank-sum
statistic of Mann, Whitney and Wilcoxon, whose deviation knows that the enrolled recordings are few themselves.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Verdict
from service.domain.self_scores import SelfScores

MIN_SCORES = 20  # fewer are not judged
MIN_RECORDINGS = 10  # nor by fewer, which hardly any score could contradict
SIGNIFICANT = 0.0005  # p-value: one of a thousand healthy clips must hardly ever be the first to look like drift
MIN_SHIFT = 0.5  # sigma; less concerns nobody, however certain it is
_MAD = 1.4826  # median absolute deviations of a normal distribution in its deviation
_SIGMA_FLOOR = 0.1  # scores are in units of how much recordings differ


@dataclass(frozen=True)
class Drift:
    """Scores held against the self-scores of a bank.

    Attributes:
        scores: how many.
        median_shift: of the scores' median from the self-scores', in robust deviations of the self-scores.
        p_value: two-sided, of the rank-sum test.
        verdict: of both.
    """

    scores: int
    median_shift: float
    p_value: float
    verdict: Verdict

    @classmethod
    def of(cls, own: SelfScores, scores: NDArray[np.float64]) -> Self:
        """Compare `(m,)` scores, m >= 1, of clips that are like those enrolled or all higher or lower."""
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
    """Two-sided p-value, by the normal distribution; ties count half."""
    order = np.argsort(own.scores)
    below = np.concatenate([[0.0], np.cumsum(own.weights[order])])
    sides = [below[np.searchsorted(own.scores[order], scores, side)] for side in ("left", "right")]
    rank = float(np.mean(sides)) / below[-1]  # mean share of the self-scores that is below
    n, m = own.recordings, len(scores)
    deviation = math.sqrt((n + m + 1) / (12 * n * m))
    return math.erfc(abs(rank - 0.5) / deviation / math.sqrt(2))
