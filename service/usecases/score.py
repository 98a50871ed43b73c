"""Score clips against a machine's memory bank."""

from collections.abc import Iterator, Sequence

from service.bank import MemoryBank
from service.domain.detector import MIN_SCALE_RECORDINGS, clip_score
from service.domain.machine import Domain
from service.domain.threshold import Promise, conformal_threshold
from service.schemas import ClipScore, DomainPromise, Neighbor, Scores, Threshold, WindowScore
from service.usecases.clip import Upload, embed_clip
from service.usecases.context import Context


def score_clips(context: Context, machine_id: str, uploads: Sequence[Upload], neighbors: int) -> Scores:
    """Decode, embed, search, score.

    Args:
        context: the adapters.
        machine_id: whose bank to compare with.
        uploads: the clips.
        neighbors: how many enrolled windows to name for each scored one.

    Raises:
        OffkeyError: the machine is unknown, its bank cannot score, or a clip is not usable.
    """
    record = context.store.machine(machine_id)
    bank = context.bank(record)
    threshold = threshold_of(bank, context.false_alarm_rate(record))
    manifest = context.encoder.manifest
    return Scores(
        machine_id=machine_id,
        bundle=f"{manifest.name}/{manifest.version}",
        backend=bank.detector.backend,
        generation=bank.generation,
        threshold=threshold,
        clips=[_score(context, bank, threshold.decision_threshold, upload, neighbors) for upload in uploads],
    )


def threshold_of(bank: MemoryBank, false_alarm_rate: float) -> Threshold:
    """The decision threshold of a bank at a requested false-alarm rate."""
    detector = bank.detector
    found = conformal_threshold(detector.self_scores, false_alarm_rate)
    return Threshold(
        decision_threshold=found.value,
        requested_false_alarm_rate=found.requested_false_alarm_rate,
        promised_false_alarm_rate=found.promised_false_alarm_rate,
        domains=[
            DomainPromise(
                domain=domain,
                clips=promise.clips,
                promised_false_alarm_rate=promise.false_alarm_rate,
                borrowed_scale=domain in detector.borrowed,
            )
            for domain, promise in found.promises.items()
        ],
        warnings=[
            warning
            for domain, promise in found.promises.items()
            for warning in _warnings(domain, promise, false_alarm_rate, domain in detector.borrowed)
        ],
    )


def _warnings(domain: Domain, promise: Promise, requested: float, borrowed: bool) -> Iterator[str]:
    clips = f"{promise.clips} {domain} clip{'s' if promise.clips > 1 else ''}"
    if promise.missing_clips:
        instead = (
            f"promise a false-alarm rate of {promise.false_alarm_rate:.3g} there, not the requested {requested:.3g}"
            if promise.false_alarm_rate < 1.0
            else "promises no false-alarm rate there"
        )
        yield f"{clips} {instead}. Enroll {promise.missing_clips} more of the {domain} domain."
    if borrowed:
        yield (
            f"{clips}: too few to tell how much healthy clips of the {domain} domain differ, so the other domain's "
            f"deviation is used. Enroll {MIN_SCALE_RECORDINGS - promise.clips} more."
        )


def _score(context: Context, bank: MemoryBank, decision_threshold: float, upload: Upload, neighbors: int) -> ClipScore:
    clip = embed_clip(context, upload)
    with context.metrics.stage("search"):
        scores, named = bank.score(clip.vectors, neighbors)
    score = clip_score(scores)
    context.metrics.scored(score > decision_threshold)
    seconds = clip.waveform.seconds
    window = context.encoder.manifest.window.seconds
    return ClipScore(
        name=upload.name,
        seconds=seconds,
        anomaly_score=score,
        is_anomalous=score > decision_threshold,
        windows=[
            WindowScore(
                start_s=float(start),
                end_s=min(float(start) + window, seconds),
                anomaly_score=float(value),
                neighbors=[Neighbor.model_validate(near) for near in nearest],
            )
            for start, value, nearest in zip(clip.starts, scores, named, strict=True)
        ],
    )
