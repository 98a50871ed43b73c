"""Decision thresholds for a requested false-alarm rate.

The conformal rule: among n enrolled recordings and one healthy new one, exchangeable with them, each is equally likely
to have the k-th highest score. A healthy clip therefore exceeds the ceil((n + 1)(1 - rate))-th lowest self-score with
probability at most `rate`. Below a rate of 1 / (n + 1) there is no such score (Vovk, Gammerman and Shafer, Algorithmic
Learning in a Random World, section 2.2). Clips cut from one recording share its rank (see `SelfScores`).

Clips of two domains are not exchangeable with each other, and the domain of a new clip is unknown. Each domain
therefore has a threshold from the self-scores of its own recordings, which decides about the clip's score against that
domain. A clip is anomalous if it is above the threshold of every domain: then it fits none. A healthy clip is above the
threshold of its own domain with at most the promised probability, so the promise holds for either domain, and ten clips
of one domain do not raise the threshold of the other. P-values are computed in the same way, and the largest counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from offkey.vocabulary import Domain, Rule
from service.domain.gamma import gamma_quantile
from service.domain.self_scores import SelfScores

# Slack against rounding errors: without it, a product that should be a whole number could be rounded up.
_SLACK = 1e-9


@dataclass(frozen=True)
class Promise:
    """Promise of a threshold for the healthy clips of one domain.

    Attributes:
        recordings: number n of the domain's enrolled recordings.
        false_alarm_rate: promised rate, which is the requested rate or 1 / (n + 1) if that is larger. It is 1, no
            promise, for a single recording and for rules without a promise.
        missing_recordings: number of additional recordings that the requested rate needs.
        above: number of enrolled clips with a leave-one-out score above the threshold.
    """

    recordings: int
    false_alarm_rate: float
    missing_recordings: int
    above: int

    @property
    def lowest_false_alarm_rate(self) -> float:
        """Lowest rate that n recordings can promise."""
        return lowest_rate(self.recordings)


@dataclass(frozen=True)
class Threshold:
    """Decision thresholds and their promises.

    Attributes:
        values: largest score of clips that fit a domain, per enrolled domain.
        rule: rule that chose the values.
        requested_false_alarm_rate: requested rate, None if the threshold is manual.
        promises: promise per enrolled domain.
    """

    values: Mapping[Domain, float]
    rule: Rule
    requested_false_alarm_rate: float | None
    promises: Mapping[Domain, Promise]

    @property
    def value(self) -> float:
        """Largest threshold: a clip with a higher anomaly score is anomalous, whichever domain it is near."""
        return max(self.values.values())

    @property
    def promised_false_alarm_rate(self) -> float:
        """Promised rate for clips of any enrolled domain; 1 if nothing is promised."""
        return max(promise.false_alarm_rate for promise in self.promises.values())

    def of_clip(self, scores: Mapping[Domain, float]) -> float:
        """Return the threshold that decides about a clip: it is anomalous if its smallest score is above this.

        Args:
            scores: score of the clip against each domain.

        Returns:
            The threshold of the domain that the clip fits, or else that of the nearest domain.
        """
        nearest = sorted(scores, key=lambda domain: scores[domain])
        fitting = [domain for domain in nearest if scores[domain] <= self.values[domain]]
        return self.values[(fitting or nearest)[0]]


def conformal_threshold(self_scores: Mapping[Domain, SelfScores], false_alarm_rate: float) -> Threshold:
    """Choose the threshold for a requested false-alarm rate.

    Args:
        self_scores: self-scores per enrolled domain, with n >= 2 recordings for at least one. The score of a domain's
            only recording measures the distance between the domains, not the difference between recordings. Such a
            domain uses the threshold of the other one and has no promise.
        false_alarm_rate: requested rate in (0, 1).
    """
    several = [_own_threshold(own, false_alarm_rate) for own in self_scores.values() if own.recordings > 1]
    values = {
        domain: _own_threshold(own, false_alarm_rate) if own.recordings > 1 else max(several)
        for domain, own in self_scores.items()
    }
    enough = max(2, math.ceil(1.0 / false_alarm_rate - 1.0 - _SLACK))
    promises = {
        domain: Promise(
            own.recordings,
            max(false_alarm_rate, lowest_rate(own.recordings)),
            max(0, enough - own.recordings),
            int((own.scores > values[domain]).sum()),
        )
        for domain, own in self_scores.items()
    }
    return Threshold(values, Rule.CONFORMAL, false_alarm_rate, promises)


def gamma_threshold(self_scores: Mapping[Domain, SelfScores], false_alarm_rate: float) -> Threshold:
    """Compute the (1 - rate) quantile of a gamma distribution fitted to all self-scores, which has no promise.

    The baselines of DCASE Task 2 use the 0.9 quantile, which is a rate of 0.1.

    Args:
        self_scores: self-scores per enrolled domain.
        false_alarm_rate: requested rate in (0, 1).
    """
    value = gamma_quantile(np.concatenate([own.scores for own in self_scores.values()]), 1.0 - false_alarm_rate)
    return Threshold(
        dict.fromkeys(self_scores, value), Rule.GAMMA, false_alarm_rate, _without_promise(self_scores, value)
    )


def manual_threshold(self_scores: Mapping[Domain, SelfScores], value: float) -> Threshold:
    """Return the threshold that a person chose, which has no promise."""
    return Threshold(dict.fromkeys(self_scores, value), Rule.MANUAL, None, _without_promise(self_scores, value))


def p_value(self_scores: Mapping[Domain, SelfScores], scores: Mapping[Domain, float]) -> float:
    """Compute the largest share of healthy clips that score as high, over the enrolled domains.

    The share is that of healthy clips which are exchangeable with the enrolled ones. Under the conformal rule a clip is
    anomalous if its p-value is at most the promised rate.

    Args:
        self_scores: self-scores per enrolled domain, with n >= 2 recordings for at least one. A domain with one
            recording is ignored.
        scores: score of the clip against each domain.
    """
    return max(
        (1.0 + own.at_least(scores[domain])) / (own.recordings + 1)
        for domain, own in self_scores.items()
        if own.recordings > 1
    )


def guard_bound(own: SelfScores, decision_threshold: float) -> float:
    """Compute the score above which a clip is not enrolled without confirmation. It is far above the threshold.

    At a rate of 5 %, one healthy clip in 20 is above the threshold. A bank without these would hold the quiet clips
    alone, its threshold would fall with every enrolled clip, and the realized rate would double. A clip may therefore
    exceed the highest self-score by as much as that exceeds their median.

    Args:
        own: self-scores of the clip's domain.
        decision_threshold: current threshold of the machine.
    """
    highest = float(own.scores.max())
    return max(decision_threshold, 2.0 * highest - own.quantile(own.recordings / 2))


def lowest_rate(recordings: int) -> float:
    """Return the lowest false-alarm rate that this many recordings of a domain can promise, 1 if none."""
    return 1.0 / (recordings + 1) if recordings > 1 else 1.0


def _own_threshold(own: SelfScores, false_alarm_rate: float) -> float:
    return own.quantile((own.recordings + 1) * (1.0 - false_alarm_rate))


def _without_promise(self_scores: Mapping[Domain, SelfScores], value: float) -> dict[Domain, Promise]:
    return {
        domain: Promise(own.recordings, 1.0, 0, int((own.scores > value).sum())) for domain, own in self_scores.items()
    }
