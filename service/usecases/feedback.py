"""Enroll clips that raised a false alarm, and report what that changes."""

from collections.abc import Sequence

from offkey.schemas import Feedback, FeedbackOnClip, Judgment, Threshold
from service.bank import Bank
from service.usecases.clip import Clip, embed_clip
from service.usecases.enroll import EnrollOptions, enroll_clips
from service.usecases.service import Call
from service.usecases.threshold import threshold_of


def enroll_false_alarms(call: Call, machine_id: str, options: EnrollOptions, clips: Sequence[Clip]) -> Feedback:
    """Enroll clips whose alarm was false, and judge them before and after.

    Raises:
        OffkeyError: the machine is unknown, its bank cannot score or is full, or a clip cannot be used.
    """
    record = call.store.machine(machine_id)
    bank = call.bank(record)
    threshold = threshold_of(call, record, bank)
    enrollment = enroll_clips(call, machine_id, options, clips)
    record = call.store.machine(machine_id)
    grown = call.bank(record)
    new_threshold = threshold_of(call, record, grown)
    judged = []
    for clip, enrolled in zip(clips, enrollment.clips, strict=True):
        if enrolled.clip_id is None or enrolled.status == "held-back":  # never happens to forced clips
            continue
        before = _score(call, bank, clip)
        compared = grown.compares_with(enrolled.clip_id)  # a coreset may leave it out
        after = grown.self_score(enrolled.clip_id) if compared else _score(call, grown, clip)
        judged.append(
            FeedbackOnClip(
                name=enrolled.name,
                clip_id=enrolled.clip_id,
                status=enrolled.status,
                before=_judgment(before, threshold),
                after=_judgment(after, new_threshold),
            )
        )
    return Feedback(machine_id=machine_id, generation=grown.generation, clips=judged)


def _score(call: Call, bank: Bank, clip: Clip) -> float:
    embedded = embed_clip(call, call.encoder_of(bank), clip, bank.detector.longest)
    scores, _ = bank.score(
        embedded.vectors, 1, embedded.slices, embedded.compared_seconds, as_pieces=embedded.in_pieces
    )
    return scores.score


def _judgment(score: float, threshold: Threshold) -> Judgment:
    return Judgment(
        anomaly_score=score,
        decision_threshold=threshold.decision_threshold,
        calibration_version=threshold.calibration_version,
        is_anomalous=score > threshold.decision_threshold,
    )
