"""DCASE Task 2 metrics, of the clips as they are or of many weightings of them at once.

Weights `(replicates, clips)` say how often a clip counts: one row of ones is the metric itself, rows of
multiplicities are bootstrap replicates. Every metric gives `(replicates,)`.
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
    """Area under the ROC curve: share of pairs of a normal and an anomalous clip in the right order, ties half.

    NaN where there is no clip of one of the two.
    """
    low, high = scores[normal], scores[anomalous]
    order = (high > low[:, None]) + 0.5 * (high == low[:, None])  # (normal, anomalous)
    own, other = weights[:, normal], weights[:, anomalous]
    pairs = own.sum(axis=1) * other.sum(axis=1)
    return _ratio(np.einsum("ra,ra->r", own @ order, other), pairs)


def pauc(
    scores: NDArray[np.float64], anomalous: Flags, weights: NDArray[np.float64], max_fpr: float = MAX_FPR
) -> Values:
    """Area under the ROC curve up to a false-positive rate, scaled so that chance is 0.5 (McClish, 1989).

    As scikit-learn's `roc_auc_score(..., max_fpr=max_fpr)`, which the official evaluator calls.
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
    width = np.clip(max_fpr - begin, 0.0, end - begin)  # how much of each piece lies below max_fpr
    slope = np.divide(np.diff(true, axis=1), end - begin, out=np.zeros_like(width), where=end > begin)
    area = (width * (true[:, :-1] + 0.5 * width * slope)).sum(axis=1)
    chance = 0.5 * max_fpr**2
    standardized: Values = 0.5 * (1 + (area - chance) / (max_fpr - chance))
    return standardized


def domain_metrics(
    scores: NDArray[np.float64], anomalous: Flags, target: Flags, weights: NDArray[np.float64]
) -> dict[str, Values]:
    """AUC over all clips, AUC of each domain, pAUC, as the official evaluator has them since 2022.

    The AUC of a domain holds its normal clips against the anomalous clips of both domains; pAUC is over all clips.
    """
    return {
        "auc": auc(scores, ~anomalous, anomalous, weights),
        "auc_source": auc(scores, ~anomalous & ~target, anomalous, weights),
        "auc_target": auc(scores, ~anomalous & target, anomalous, weights),
        "pauc": pauc(scores, anomalous, weights),
    }


def harmonic_mean(values: Sequence[Values]) -> Values:
    """Harmonic mean over the sequence, of values that are at least the machine epsilon, as the official evaluator's."""
    clamped = np.maximum(np.stack(values), sys.float_info.epsilon)
    mean: Values = len(clamped) / (1.0 / clamped).sum(axis=0)
    return mean


def official(machines: Sequence[dict[str, Values]]) -> Values:
    """The official score: harmonic mean of AUC source, AUC target and pAUC over all machines.

    A machine without clips of a domain has no AUC there, and none is made up.
    """
    parts = [machine[name] for machine in machines for name in ("auc_source", "auc_target", "pauc")]
    return harmonic_mean([part for part in parts if not np.isnan(part).all()])


def _ratio(part: Values, whole: Values) -> Values:
    ratio: Values = np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
    return ratio
