"""A false alarm becomes knowledge: the clip is enrolled, and the answer says what that changes."""

from collections.abc import Sequence

from service.bank import MemoryBank
from service.domain.detector import clip_score
from service.schemas import Feedback, FeedbackOnClip, Judgment
from service.usecases.clip import Upload, embed_clip
from service.usecases.context import Context
from service.usecases.enroll import Condition, enroll_clips
from service.usecases.threshold import threshold_of


def learn_false_alarms(context: Context, machine_id: str, condition: Condition, uploads: Sequence[Upload]) -> Feedback:
    """Enroll clips whose alarm was false, and judge them before and after.

    Raises:
        OffkeyError: the machine is unknown, its bank cannot score or is full, or a clip is not usable.
    """
    record = context.store.machine(machine_id)
    bank = context.bank(record)
    threshold = threshold_of(context, record, bank).decision_threshold
    before = [_judgment(_score(context, bank, upload), threshold) for upload in uploads]
    enrollment = enroll_clips(context, machine_id, condition, uploads)
    record = context.store.machine(machine_id)
    bank = context.bank(record)
    threshold = threshold_of(context, record, bank).decision_threshold
    return Feedback(
        machine_id=machine_id,
        generation=bank.generation,
        clips=[
            FeedbackOnClip(
                name=clip.name,
                clip_id=clip.clip_id,
                status=clip.status,
                before=was,
                after=_judgment(bank.self_score(clip.clip_id), threshold),
            )
            for clip, was in zip(enrollment.clips, before, strict=True)
            if clip.clip_id is not None and clip.status != "held-back"  # never of trusted clips
        ],
    )


def _score(context: Context, bank: MemoryBank, upload: Upload) -> float:
    scores, _ = bank.score(embed_clip(context, upload).vectors, 1)
    return clip_score(scores)


def _judgment(score: float, threshold: float) -> Judgment:
    return Judgment(anomaly_score=score, decision_threshold=threshold, is_anomalous=score > threshold)
