"""The decision threshold: a false-alarm rate turned into a score.

Conformal: of n enrolled recordings and one healthy new one, exchangeable with them, each is equally likely to be
the k-th highest. A threshold at the ceil((n + 1)(1 - rate))-th lowest self-score is therefore passed by a
healthy clip with probability at most `rate`; below 1 / (n + 1) no such score exists (Vovk, Gammerman and
Shafer, Algorithmic Learning in a Random World, section 2.2). Where recordings were cut into several clips these
share their recording's rank (see `SelfScores`).

Clips of two domains are not exchangeable with each other, and which domain a new clip is from is not known.
So each domain has a threshold from the self-scores of its own recordings, and the larger of the two decides: it
keeps the promise to either. A p-value is read the same way: the larger of the two.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from offkey.vocabulary import Domain, Rule
from service.domain.gamma import gamma_quantile
from service.domain.self_scores import SelfScores

# The slack keeps a product that is a whole number on paper from being rounded up.
_SLACK = 1e-9


@dataclass(frozen=True)
class Promise:
    """What a threshold promises to the healthy clips of one domain.

    Attributes:
        recordings: n, the domain's enrolled recordings.
        false_alarm_rate: what is promised: the requested rate, or 1 / (n + 1) where that is larger; 1, which
            promises nothing, for a single recording and for rules that promise nothing.
        missing_recordings: how many more would let the requested rate be promised.
        above: how many of the enrolled clips have a leave-one-out score above the threshold.
    """

    recordings: int
    false_alarm_rate: float
    missing_recordings: int
    above: int

    @property
    def lowest_false_alarm_rate(self) -> float:
        """The lowest rate that n recordings can promise."""
        return lowest_rate(self.recordings)


@dataclass(frozen=True)
class Threshold:
    """A decision threshold and what it promises.

    Attributes:
        value: a clip whose anomaly score is above it is anomalous.
        rule: where it is from.
        requested_false_alarm_rate: what was asked for; None of a manual threshold.
        promises: per enrolled domain.
    """

    value: float
    rule: Rule
    requested_false_alarm_rate: float | None
    promises: Mapping[Domain, Promise]

    @property
    def promised_false_alarm_rate(self) -> float:
        """The rate that holds for a clip of any enrolled domain."""
        return max(promise.false_alarm_rate for promise in self.promises.values())


def conformal_threshold(self_scores: Mapping[Domain, SelfScores], false_alarm_rate: float) -> Threshold:
    """Choose the threshold for a requested false-alarm rate.

    Args:
        self_scores: per enrolled domain; n >= 2 recordings for one at least. A domain's only recording tells how far
            the domains are from each other, not how much recordings of its own differ: it promises nothing, and does
            not move the threshold.
        false_alarm_rate: in (0, 1).
    """
    value = max(_own_threshold(own, false_alarm_rate) for own in self_scores.values() if own.recordings > 1)
    enough = max(2, math.ceil(1.0 / false_alarm_rate - 1.0 - _SLACK))
    promises = {
        domain: Promise(
            own.recordings,
            max(false_alarm_rate, lowest_rate(own.recordings)),
            max(0, enough - own.recordings),
            int((own.scores > value).sum()),
        )
        for domain, own in self_scores.items()
    }
    return Threshold(value, Rule.CONFORMAL, false_alarm_rate, promises)


def gamma_threshold(self_scores: Mapping[Domain, SelfScores], false_alarm_rate: float) -> Threshold:
    """The (1 - rate) quantile of a gamma distribution fitted to all self-scores; promises nothing.

    The baselines of DCASE Task 2 decide at the 0.9 quantile, that is at a rate of 0.1.

    Args:
        self_scores: per enrolled domain.
        false_alarm_rate: in (0, 1).
    """
    value = gamma_quantile(np.concatenate([own.scores for own in self_scores.values()]), 1.0 - false_alarm_rate)
    return Threshold(value, Rule.GAMMA, false_alarm_rate, _without_promise(self_scores, value))


def manual_threshold(self_scores: Mapping[Domain, SelfScores], value: float) -> Threshold:
    """A threshold that a person set; promises nothing."""
    return Threshold(value, Rule.MANUAL, None, _without_promise(self_scores, value))


def p_value(self_scores: Mapping[Domain, SelfScores], score: float) -> float:
    """Of healthy clips exchangeable with those enrolled, at most this share scores as high, whichever the domain.

    Under the conformal rule a clip is anomalous where its p-value is at most the promised rate.

    Args:
        self_scores: per enrolled domain; n >= 2 recordings for one at least. A domain of one is not asked.
        score: of a clip.
    """
    return max((1.0 + own.at_least(score)) / (own.recordings + 1) for own in self_scores.values() if own.recordings > 1)


def guard_bound(own: SelfScores, decision_threshold: float) -> float:
    """The score above which a clip to be enrolled is held back: far above the threshold, not merely above it.

    One healthy clip in 20 is above a threshold at 5 %. A bank that lost these would know the calm ones alone, its
    threshold would fall with every clip it takes in, and the rate that comes about would double. So a clip may exceed
    the highest self-score by as much as that exceeds their median.

    Args:
        own: self-scores of the clip's domain.
        decision_threshold: in force.
    """
    highest = float(own.scores.max())
    return max(decision_threshold, 2.0 * highest - own.quantile(own.recordings / 2))


def lowest_rate(recordings: int) -> float:
    """The lowest false-alarm rate that this many recordings of a domain can promise; 1 is nothing."""
    return 1.0 / (recordings + 1) if recordings > 1 else 1.0


def _own_threshold(own: SelfScores, false_alarm_rate: float) -> float:
    return own.quantile((own.recordings + 1) * (1.0 - false_alarm_rate))


def _without_promise(self_scores: Mapping[Domain, SelfScores], value: float) -> dict[Domain, Promise]:
    return {
        domain: Promise(own.recordings, 1.0, 0, int((own.scores > value).sum())) for domain, own in self_scores.items()
    }
