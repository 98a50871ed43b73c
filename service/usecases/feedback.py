"""A false alarm becomes knowledge: the clip is enrolled, and the answer says what that changes."""

from collections.abc import Sequence

from offkey.schemas import Feedback, FeedbackOnClip, Judgment, Threshold
from service.bank import Bank
from service.domain.detector import clip_score
from service.domain.distance import Vectors
from service.usecases.clip import Clip, embed_clip
from service.usecases.enroll import EnrollOptions, enroll_clips
from service.usecases.service import Context
from service.usecases.threshold import threshold_of


def learn_false_alarms(
    context: Context, machine_id: str, condition: EnrollOptions, uploads: Sequence[Clip]
) -> Feedback:
    """Enroll clips whose alarm was false, and judge them before and after.

    Raises:
        OffkeyError: the machine is unknown, its bank cannot score or is full, or a clip is not usable.
    """
    record = context.store.machine(machine_id)
    bank = context.bank(record)
    threshold = threshold_of(context, record, bank)
    enrollment = enroll_clips(context, machine_id, condition, uploads)
    record = context.store.machine(machine_id)
    grown = context.bank(record)
    new_threshold = threshold_of(context, record, grown)
    clips = []
    for upload, clip in zip(uploads, enrollment.clips, strict=True):
        if clip.clip_id is None or clip.status == "held-back":  # never of trusted clips
            continue
        if grown.compares_with(clip.clip_id) and grown.embedding_space_id == bank.embedding_space_id:
            before, after = _score(bank, grown.vectors_of(clip.clip_id)), grown.self_score(clip.clip_id)
        else:  # the coreset leaves it out, or the bank moved to another bundle: it is heard again, as any clip
            before, after = (
                _score(one, embed_clip(context, context.encoder_of(one), upload).vectors) for one in (bank, grown)
            )
        clips.append(
            FeedbackOnClip(
                name=clip.name,
                clip_id=clip.clip_id,
                status=clip.status,
                before=_judgment(before, threshold),
                after=_judgment(after, new_threshold),
            )
        )
    return Feedback(machine_id=machine_id, generation=grown.generation, clips=clips)


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
