"""Enroll clips that raised a false alarm, and report what that changes."""

from collections.abc import Sequence

from offkey.schemas import Feedback, FeedbackOnClip, Judgment, ThresholdChoice
from service.bank import Bank
from service.domain.detector import ClipScores
from service.domain.lengths import window_seconds
from service.usecases.clip import Clip, embed_clip
from service.usecases.enroll import Embedded, EnrollOptions, enroll_clips
from service.usecases.service import Call
from service.usecases.threshold import deciding_threshold, settings_of, threshold_answer


def enroll_false_alarms(call: Call, machine_id: str, options: EnrollOptions, clips: Sequence[Clip]) -> Feedback:
    """Enroll clips whose alarm was false, and judge them before and after.

    Raises:
        OffkeyError: the machine is unknown, its bank cannot score or is full, or a clip cannot be used.
    """
    record = call.store.machine(machine_id)
    bank, settings = call.bank(record), settings_of(call, record)
    threshold_answer(call, bank, settings)  # raises an error before anything is enrolled
    embedded: Embedded = {}
    enrollment = enroll_clips(call, machine_id, options, clips, embedded=embedded)
    record = call.store.machine(machine_id)
    grown, new_settings = call.bank(record), settings_of(call, record)
    judged = []
    for clip, enrolled in zip(clips, enrollment.clips, strict=True):
        if enrolled.clip_id is None or enrolled.status == "held-back":  # never happens to forced clips
            continue
        before = _judge(call, bank, settings, _score(call, bank, clip, embedded))
        if grown.compares_with(enrolled.clip_id):
            threshold, chosen = threshold_answer(call, grown, new_settings)
            score, own = grown.self_score(enrolled.clip_id), chosen.values[options.domain]
            after = Judgment(
                anomaly_score=score,
                decision_threshold=own,
                calibration_version=threshold.calibration_version,
                is_anomalous=score > own,
            )
        else:  # the coreset leaves it out
            after = _judge(call, grown, new_settings, _score(call, grown, clip, embedded))
        judged.append(
            FeedbackOnClip(
                name=enrolled.name, clip_id=enrolled.clip_id, status=enrolled.status, before=before, after=after
            )
        )
    return Feedback(machine_id=machine_id, generation=grown.generation, clips=judged)


def _score(call: Call, bank: Bank, clip: Clip, embedded: Embedded) -> ClipScores:
    """Score a clip. It is embedded again if it was known before, or if the bank needs windows of another length."""
    encoder, longest = call.encoder_of(bank), bank.detector.longest
    new = embedded.get((bank.embedding_space_id, clip.sha256))
    if new is not None and not window_seconds(new.seconds, longest, encoder.manifest.window.seconds):
        return bank.score(new.vectors, 1, new.slices, new.seconds)[0]
    found = embed_clip(call, encoder, clip, longest)
    return bank.score(found.vectors, 1, found.slices, found.compared_seconds, as_pieces=found.in_pieces)[0]


def _judge(call: Call, bank: Bank, settings: ThresholdChoice, scores: ClipScores) -> Judgment:
    """Decide about a scored clip as `POST /score` does."""
    threshold, chosen = threshold_answer(call, bank, settings)
    value = deciding_threshold(bank, settings, chosen, scores).of_clip(scores.domains)
    return Judgment(
        anomaly_score=scores.score,
        decision_threshold=value,
        calibration_version=threshold.calibration_version,
        is_anomalous=scores.score > value,
    )
