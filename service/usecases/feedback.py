"""Enroll clips that raised a false alarm, and report what that changes."""

from collections.abc import Sequence

from offkey.schemas import Feedback, FeedbackOnClip, Judgment, Threshold
from service.bank import Bank
from service.domain.detector import clip_score
from service.domain.distance import Vectors
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
        if grown.compares_with(enrolled.clip_id) and grown.embedding_space_id == bank.embedding_space_id:
            before, after = _score(bank, grown.vectors_of(enrolled.clip_id)), grown.self_score(enrolled.clip_id)
        else:  # the coreset leaves it out, or the bank moved to another bundle: it is embedded again
            before, after = (_score(one, embed_clip(call, call.encoder_of(one), clip).vectors) for one in (bank, grown))
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


def _score(bank: Bank, vectors: Vectors) -> float:
    scores, _ = bank.score(vectors, 1)
    return clip_score(scores)


def _judgment(score: float, threshold: Threshold) -> Judgment:
    return Judgment(
        anomaly_score=score,
        decision_threshold=threshold.decision_threshold,
        calibration_version=threshold.calibration_version,
        is_anomalous=score > threshold.decision_threshold,
    )
