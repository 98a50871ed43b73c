"""DCASE Task 2 metrics of weighted clips, for many weightings at once.

Weights `(replicates, clips)` are multiplicities of the clips: a row of ones gives the metric itself, other rows give
bootstrap replicates. Every metric returns `(replicates,)`.
"""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # (replicates,)
Flags = NDArray[np.bool_]  # (clips,)

MAX_FPR = 0.1
METRICS = ("auc", "auc_source", "auc_target", "pauc", "official")


def auc(scores: NDArray[np.float64], normal: Flags, anomalous: Flags, weights: NDArray[np.float64]) -> Values:
    """Compute the area under the ROC curve: the share of correctly ordered pairs of a normal and an anomalous clip.

    A tie counts half. The result is NaN if there is no normal or no anomalous clip.
    """
    low, high = scores[normal], scores[anomalous]
    order = (high > low[:, None]) + 0.5 * (high == low[:, None])  # (normal, anomalous)
    own, other = weights[:, normal], weights[:, anomalous]
    pairs = own.sum(axis=1) * other.sum(axis=1)
    return _ratio(np.einsum("ra,ra->r", own @ order, other), pairs)


def pauc(
    scores: NDArray[np.float64], anomalous: Flags, weights: NDArray[np.float64], max_fpr: float = MAX_FPR
) -> Values:
    """Compute the area under the ROC curve up to a false-positive rate, scaled so that chance is 0.5 (McClish, 1989).

    It equals scikit-learn's `roc_auc_score(..., max_fpr=max_fpr)`, which the official evaluator calls.
    """
    down = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[down])), len(scores) - 1)
    rates = []
    for kind in (~anomalous, anomalous):
        counted = np.cumsum(np.where(kind, weights, 0.0)[:, down], axis=1)  # (replicates, clips)
        rate = _ratio(counted[:, last_of_tie], counted[:, -1:])
        rates.append(np.pad(rate, ((0, 0), (1, 0))))
    false, true = rates  # (replicates, points), from (0, 0) to (1, 1)
    begin, end = false[:, :-1], false[:, 1:]
    width = np.clip(max_fpr - begin, 0.0, end - begin)  # part of each segment below max_fpr
    slope = np.divide(np.diff(true, axis=1), end - begin, out=np.zeros_like(width), where=end > begin)
    area = (width * (true[:, :-1] + 0.5 * width * slope)).sum(axis=1)
    chance = 0.5 * max_fpr**2
    standardized: Values = 0.5 * (1 + (area - chance) / (max_fpr - chance))
    return standardized


def domain_metrics(
    scores: NDArray[np.float64], anomalous: Flags, target: Flags, weights: NDArray[np.float64]
) -> dict[str, Values]:
    """Compute AUC, AUC of each domain and pAUC as the official evaluator does since 2022.

    The AUC of a domain compares its normal clips with the anomalous clips of both domains. AUC and pAUC are over all
    clips.
    """
    return {
        "auc": auc(scores, ~anomalous, anomalous, weights),
        "auc_source": auc(scores, ~anomalous & ~target, anomalous, weights),
        "auc_target": auc(scores, ~anomalous & target, anomalous, weights),
        "pauc": pauc(scores, anomalous, weights),
    }


def harmonic_mean(values: Sequence[Values]) -> Values:
    """Compute the harmonic mean over the sequence; as officially, values are clamped to the machine epsilon."""
    clamped = np.maximum(np.stack(values), sys.float_info.epsilon)
    mean: Values = len(clamped) / (1.0 / clamped).sum(axis=0)
    return mean


def official(machines: Sequence[dict[str, Values]]) -> Values:
    """Compute the official score: the harmonic mean of AUC source, AUC target and pAUC over all machines.

    The AUC of a domain is left out for machines without clips of that domain.
    """
    parts = [machine[name] for machine in machines for name in ("auc_source", "auc_target", "pauc")]
    return harmonic_mean([part for part in parts if not np.isnan(part).all()])


def _ratio(part: Values, whole: Values) -> Values:
    ratio: Values = np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
    return ratio
