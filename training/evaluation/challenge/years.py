"""Figures and means of each year of DCASE Task 2, as the official evaluators compute them.

- 2020: AUC and pAUC of each machine id; arithmetic means.
- 2021: AUC, pAUC, precision, recall and F1 of each section and domain, by the clips of that domain alone; arithmetic
  and harmonic means; the official score is the harmonic mean of all AUC and pAUC.
- 2022 and later: the AUC of a domain compares its normal clips with the anomalous clips of both; pAUC is over the whole
  section; precision, recall and F1 are those of a domain's clips. The official score is the harmonic mean of AUC
  source, AUC target and pAUC over all machines and sections.

Means are over sections and domains at once, not over means of machines. The harmonic mean clamps values to the machine
epsilon. A plain tree has neither domains nor an official score.
"""

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import mean_over
from training.evaluation.tree import Form
from training.metrics import Flags, Values, auc, domain_metrics, harmonic_mean, pauc

DOMAINS = ("source", "target")
ALARMS = ("precision", "recall", "f1")
MEANS = ("arithmetic", "harmonic")
Figures = Mapping[str, Values]

_ONE_DOMAIN = {name: (name,) for name in ("auc", "pauc", *ALARMS)}
_BY_DOMAIN = {name: tuple(f"{name}_{domain}" for domain in DOMAINS) for name in ("auc", *ALARMS)}
_OF_DOMAIN = {f"{name}_{domain}": (f"{name}_{domain}",) for name in ("auc", *ALARMS) for domain in DOMAINS}
_PAUC_2021 = ("pauc_source", "pauc_target")

COLUMNS: Mapping[Form, Mapping[str, tuple[str, ...]]] = {
    "2020": _ONE_DOMAIN,
    "2021": _BY_DOMAIN
    | _OF_DOMAIN
    | {"pauc": _PAUC_2021, "pauc_source": _PAUC_2021[:1], "pauc_target": _PAUC_2021[1:]}
    | {"official": (*_BY_DOMAIN["auc"], *_PAUC_2021)},
    "2022": _BY_DOMAIN | _OF_DOMAIN | {"pauc": ("pauc",), "official": (*_BY_DOMAIN["auc"], "pauc")},
    "plain": _ONE_DOMAIN,
}
"""Averaged figures by form: the mean `pauc` of 2021, for example, is over `pauc_source` and `pauc_target`."""


def section_figures(
    form: Form,
    scores: NDArray[np.float64],
    alarms: Flags,
    anomalous: Flags,
    target: Flags,
    weights: NDArray[np.float64],
) -> dict[str, Values]:
    """Compute the figures of one section.

    Args:
        form: layout, which stands for the year.
        scores: anomaly scores of the test clips, `(clips,)`.
        alarms: flags of scores above the decision threshold, `(clips,)`.
        anomalous: flags of anomalous clips, `(clips,)`.
        target: flags of clips of the target domain, `(clips,)`.
        weights: weights of the clips, `(replicates, clips)`.

    Returns:
        Figures `(replicates,)` by name; NaN without clips. In addition to the figures of the year: `auc`, `pauc` and
        the alarms over both domains, with the realized `false_alarm_rate` of each.
    """
    everything = np.ones(len(scores), dtype=bool)
    if form in ("2020", "plain"):
        found = {"auc": auc(scores, ~anomalous, anomalous, weights), "pauc": pauc(scores, anomalous, weights)}
        return found | alarm_figures(alarms, anomalous, everything, weights)
    found = domain_metrics(scores, anomalous, target, weights)
    found |= alarm_figures(alarms, anomalous, everything, weights)
    for domain, own in zip(DOMAINS, (~target, target), strict=True):
        if form == "2021":
            found[f"auc_{domain}"] = auc(scores, ~anomalous & own, anomalous & own, weights)
            found[f"pauc_{domain}"] = _pauc_of(scores[own], anomalous[own], weights[:, own])
        of_domain = alarm_figures(alarms, anomalous, own, weights)
        found |= {f"{name}_{domain}": values for name, values in of_domain.items()}
    return found


def alarm_figures(alarms: Flags, anomalous: Flags, own: Flags, weights: NDArray[np.float64]) -> dict[str, Values]:
    """Compute precision, recall, F1 and false-alarm rate of the clips in `own`.

    Without an alarm the precision is 0, as in the official evaluator. Without an anomalous clip precision, recall and
    F1 are undefined; without a normal clip the false-alarm rate is.
    """

    def count(kept: Flags) -> Values:
        counted: Values = weights[:, kept & own].sum(axis=1)
        return counted

    hit, false = count(alarms & anomalous), count(alarms & ~anomalous)
    faulty, healthy = count(anomalous), count(~anomalous)
    epsilon = sys.float_info.epsilon
    precision, recall = hit / np.maximum(hit + false, epsilon), hit / np.maximum(faulty, epsilon)
    f1 = 2 * precision * recall / np.maximum(precision + recall, epsilon)
    found = {
        name: np.where(faulty > 0, part, np.nan) for name, part in zip(ALARMS, (precision, recall, f1), strict=True)
    }
    return found | {"false_alarm_rate": np.where(healthy > 0, false / np.maximum(healthy, epsilon), np.nan)}


def mean(how: str, sections: Sequence[Figures], parts: Sequence[str]) -> Values:
    """Compute the `arithmetic` or `harmonic` mean of figures over sections; undefined figures are left out."""
    values = [section[part] for section in sections for part in parts]
    if how == "arithmetic":
        return mean_over(values)
    defined = [value for value in values if not np.isnan(value).all()]
    return harmonic_mean(defined) if defined else np.full_like(values[0], np.nan)


def official_mean(form: Form) -> str:
    """Return the mean of the official score of a year."""
    return "arithmetic" if form in ("2020", "plain") else "harmonic"


def _pauc_of(scores: NDArray[np.float64], anomalous: Flags, weights: NDArray[np.float64]) -> Values:
    if len(scores) == 0:
        return np.full(len(weights), np.nan)
    return pauc(scores, anomalous, weights)
