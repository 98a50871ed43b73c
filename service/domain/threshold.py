"""The decision threshold: a false-alarm rate turned into a score.

Conformal: of n enrolled clips and one healthy new one, exchangeable with them, each is equally likely to be
the k-th highest. A threshold at the ceil((n + 1)(1 - rate))-th lowest self-score is therefore passed by a
healthy clip with probability at most `rate`; below 1 / (n + 1) no such score exists (Vovk, Gammerman and
Shafer, Algorithmic Learning in a Random World, section 2.2).

Clips of two domains are not exchangeable with each other, and which domain a new clip is from is not known.
So each domain has a threshold from the self-scores of its own clips, and the larger of the two decides: it
keeps the promise to either.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.machine import Domain

# The slack keeps a product that is a whole number on paper from being rounded up.
_SLACK = 1e-9


@dataclass(frozen=True)
class Promise:
    """What a threshold promises to the healthy clips of one domain.

    Attributes:
        clips: n, the domain's enrolled clips.
        false_alarm_rate: the requested rate, or 1 / (n + 1) where that is larger; 1, which promises nothing,
            for a single clip.
        missing_clips: how many more would let the requested rate be promised.
    """

    clips: int
    false_alarm_rate: float
    missing_clips: int


@dataclass(frozen=True)
class Threshold:
    """A decision threshold and what it promises.

    Attributes:
        value: a clip whose anomaly score is above it is anomalous.
        requested_false_alarm_rate: what was asked for.
        promises: per enrolled domain.
    """

    value: float
    requested_false_alarm_rate: float
    promises: Mapping[Domain, Promise]

    @property
    def promised_false_alarm_rate(self) -> float:
        """The rate that holds for a clip of any enrolled domain."""
        return max(promise.false_alarm_rate for promise in self.promises.values())


def conformal_threshold(self_scores: Mapping[Domain, NDArray[np.float64]], false_alarm_rate: float) -> Threshold:
    """Choose the threshold for a requested false-alarm rate.

    Args:
        self_scores: per enrolled domain `(n,)` leave-one-out scores of its clips, in any order; n >= 2 for one
            domain at least. A domain's only clip tells how far the domains are from each other, not how much
            clips of its own differ: it promises nothing, and does not move the threshold.
        false_alarm_rate: in (0, 1).
    """
    value = max(_own_threshold(scores, false_alarm_rate) for scores in self_scores.values() if len(scores) > 1)
    promises = {domain: _promise(len(scores), false_alarm_rate) for domain, scores in self_scores.items()}
    return Threshold(value, false_alarm_rate, promises)


def _own_threshold(scores: NDArray[np.float64], false_alarm_rate: float) -> float:
    count = len(scores)
    rank = math.ceil((count + 1) * (1.0 - false_alarm_rate) - _SLACK)
    return float(np.sort(scores)[min(max(rank, 1), count) - 1])


def _promise(count: int, false_alarm_rate: float) -> Promise:
    lowest = 1.0 / (count + 1) if count > 1 else 1.0
    enough = max(2, math.ceil(1.0 / false_alarm_rate - 1.0 - _SLACK))
    return Promise(count, max(false_alarm_rate, lowest), max(0, enough - count))
