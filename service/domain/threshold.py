"""The decision threshold: a false-alarm rate turned into a score.

Conformal: of n enrolled clips and one healthy new one, exchangeable with them, each is equally likely to be
the k-th highest. A threshold at the ceil((n + 1)(1 - rate))-th lowest self-score is therefore passed by a
healthy clip with probability at most `rate`; below 1 / (n + 1) no such score exists (Vovk, Gammerman and
Shafer, Algorithmic Learning in a Random World, section 2.2).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Threshold:
    """A decision threshold and what it promises.

    Attributes:
        value: a clip whose anomaly score is above it is anomalous.
        requested_false_alarm_rate: what was asked for.
        promised_false_alarm_rate: the rate that n clips can promise: the requested one, or 1 / (n + 1)
            when that is larger.
        clips: n, the number of self-scores behind it.
    """

    value: float
    requested_false_alarm_rate: float
    promised_false_alarm_rate: float
    clips: int


def conformal_threshold(self_scores: NDArray[np.float64], false_alarm_rate: float) -> Threshold:
    """Choose the threshold for a requested false-alarm rate.

    Args:
        self_scores: `(n,)`, n >= 1, leave-one-out scores of the enrolled clips, in any order.
        false_alarm_rate: in (0, 1).
    """
    count = len(self_scores)
    # The small slack keeps (n + 1)(1 - rate) that is a whole number on paper from being rounded up.
    rank = math.ceil((count + 1) * (1.0 - false_alarm_rate) - 1e-9)
    value = float(np.sort(self_scores)[min(max(rank, 1), count) - 1])
    return Threshold(value, false_alarm_rate, max(false_alarm_rate, 1.0 / (count + 1)), count)
