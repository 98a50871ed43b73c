"""Decide about a scored clip, and report what the decision promises."""

from collections.abc import Sequence
from dataclasses import dataclass

from offkey.schemas import AcousticsWarning, DecidedBy, ThresholdChoice
from offkey.vocabulary import Condition, Domain, Measure, Rule, View
from service.bank import Bank
from service.domain.detector import ClipScores
from service.domain.slices import STEP_SECONDS
from service.domain.threshold import Threshold, p_value
from service.usecases.clip import EmbeddedClip
from service.usecases.threshold import deciding_threshold

# Warnings that do not make a clip unlike the enrolled ones.
_RECORDER = frozenset({Measure.LEVEL, Measure.BANDWIDTH, Measure.CLIPPING, Measure.SAMPLE_RATE, Measure.CODEC})
_HARMLESS = frozenset({Measure.CHANNELS, Measure.OUT_OF_BAND})


@dataclass(frozen=True)
class Decision:
    """Decision about a clip.

    Attributes:
        domain: domain that the clip is nearest to.
        decision_threshold: threshold that decides about it.
        is_anomalous: whether its score is above the threshold.
        p_value: largest share of healthy clips with such a score; None if no enrolled clips are comparable.
        promised_false_alarm_rate: promised rate for clips like this one; None if nothing is promised.
        promise_note: reason why nothing is promised, and what to do; None if something is.
        decided_by: view and time that the score is about.
    """

    domain: Domain
    decision_threshold: float
    is_anomalous: bool
    p_value: float | None
    promised_false_alarm_rate: float | None
    promise_note: str | None
    decided_by: DecidedBy


def decide(
    bank: Bank,
    settings: ThresholdChoice,
    threshold: Threshold,
    scores: ClipScores,
    clip: EmbeddedClip,
    spans: Sequence[tuple[float, float]],
    warnings: Sequence[AcousticsWarning],
) -> Decision:
    """Decide about a scored clip.

    Args:
        bank: bank of the machine.
        settings: rule of the threshold.
        threshold: threshold for clips as long as the enrolled ones.
        scores: scores of the clip.
        clip: the clip.
        spans: start and end of each window, in seconds.
        warnings: differences from the enrolled clips.
    """
    reference = scores.reference
    threshold = deciding_threshold(bank, settings, threshold, scores)
    value = threshold.of_clip(scores.domains)
    note = _promise_note(threshold, scores, clip.seconds, warnings)
    return Decision(
        min(scores.domains, key=lambda domain: scores.domains[domain]),
        value,
        scores.score > value,
        p_value(reference.self_scores, scores.domains) if reference.comparable else None,
        threshold.promised_false_alarm_rate if note is None else None,
        note,
        _decided_by(scores, spans),
    )


def condition_of(bank: Bank, warnings: Sequence[AcousticsWarning]) -> Condition:
    """Return whether a clip was recorded like the enrolled clips."""
    if not bank.envelopes:
        return Condition.UNKNOWN
    if all(one.kind in _HARMLESS for one in warnings):
        return Condition.LIKE_ENROLLED
    return Condition.UNLIKE_ENROLLED


def advice_on(condition: Condition, warnings: Sequence[AcousticsWarning]) -> str | None:
    """Return what to do about a clip that was recorded unlike the enrolled clips, or None."""
    if condition is not Condition.UNLIKE_ENROLLED:
        return None
    kinds = {one.kind for one in warnings}
    if Measure.MACHINE in kinds:
        return "Check that the machine runs and that the microphone is on and in its place."
    if kinds & _RECORDER:
        return (
            "Record as the enrolled clips were recorded. If this is how clips are recorded from now on, enroll 5 "
            "healthy ones with domain=target."
        )
    if Measure.LENGTH in kinds:
        return "Send clips as long as the enrolled ones, or enroll 5 healthy clips of this length with domain=target."
    return (
        "Listen to the clip. If the machine is healthy and its surroundings have changed, enroll 5 clips in this noise "
        "with domain=target."
    )


def length_warning(bank: Bank, scores: ClipScores, seconds: float) -> AcousticsWarning | None:
    """Return a warning about a clip that is shorter than anything it can be compared with, or None."""
    if scores.reference.comparable:
        return None
    return AcousticsWarning(
        kind=Measure.LENGTH,
        detail=f"The clip lasts {seconds:.1f} s, and no enrolled clip or stored piece of one is as short; enrolled "
        f"clips last up to {bank.detector.longest:.1f} s. Short clips score higher. Send clips as long as the enrolled "
        "ones, or enroll clips of this length. The score is not reliable.",
    )


def _promise_note(
    threshold: Threshold, scores: ClipScores, seconds: float, warnings: Sequence[AcousticsWarning]
) -> str | None:
    """Return why nothing is promised, or None."""
    if threshold.rule is not Rule.CONFORMAL:
        return f"A {threshold.rule} threshold promises no false-alarm rate; only the conformal rule does."
    if not scores.reference.comparable:
        return f"No enrolled clip or stored piece of one is as short as this clip of {seconds:.1f} s."
    kinds = sorted({one.kind.value for one in warnings if one.kind not in _HARMLESS})
    if kinds:
        return f"The clip was recorded unlike the enrolled clips ({', '.join(kinds)}): see `warnings`."
    if threshold.promised_false_alarm_rate >= 1.0:
        single = next(domain for domain, own in threshold.promises.items() if own.false_alarm_rate >= 1.0)
        return f"The {single} domain has one recording, which shows no differences between healthy recordings."
    return None


def _decided_by(scores: ClipScores, spans: Sequence[tuple[float, float]]) -> DecidedBy:
    start_s, end_s = spans[scores.window]
    if scores.view is View.EVENT and scores.slice is not None:
        steps = max(1, round((end_s - start_s) / STEP_SECONDS))
        step = (end_s - start_s) / steps
        start_s, end_s = start_s + scores.slice * step, start_s + (scores.slice + 1) * step
    return DecidedBy(view=scores.view, start_s=round(start_s, 3), end_s=round(end_s, 3))
