"""Score clips against a machine's memory bank."""

from collections.abc import Sequence

from service.bank import MemoryBank
from service.domain.detector import clip_score
from service.domain.threshold import p_value
from service.schemas import ClipScore, Localization, Neighbor, Scores, WindowScore
from service.usecases import localize as localization
from service.usecases.clip import EmbeddedClip, Upload, embed_clip
from service.usecases.context import Context
from service.usecases.threshold import threshold_of


def score_clips(context: Context, machine_id: str, uploads: Sequence[Upload], neighbors: int, localize: bool) -> Scores:
    """Decode, embed, search, score, and say what stands out.

    Args:
        context: the adapters.
        machine_id: whose bank to compare with.
        uploads: the clips.
        neighbors: how many enrolled windows to name for each scored one.
        localize: whether to say what stands out.

    Raises:
        OffkeyError: the machine is unknown, its bank cannot score, or a clip is not usable.
    """
    record = context.store.machine(machine_id)
    bank = context.bank(record)
    threshold = threshold_of(context, record, bank)
    manifest = context.encoder.manifest
    return Scores(
        machine_id=machine_id,
        bundle=f"{manifest.name}/{manifest.version}",
        backend=bank.detector.backend,
        generation=bank.generation,
        threshold=threshold,
        clips=[_score(context, bank, threshold.decision_threshold, one, neighbors, localize) for one in uploads],
        localization_note=localization.note(context, bank) if localize else "Not asked for: add localize=true.",
    )


def _score(
    context: Context, bank: MemoryBank, decision_threshold: float, upload: Upload, neighbors: int, localize: bool
) -> ClipScore:
    clip = embed_clip(context, upload)
    with context.metrics.stage("search"):
        scores, named = bank.score(clip.vectors, neighbors)
    score = clip_score(scores)
    context.metrics.scored(score > decision_threshold)
    seconds = clip.waveform.seconds
    window = context.encoder.manifest.window.seconds
    spans = [(float(start), min(float(start) + window, seconds)) for start in clip.starts]
    places = _localize(context, bank, clip, spans) if localize else [None] * len(spans)
    return ClipScore(
        name=upload.name,
        seconds=seconds,
        anomaly_score=score,
        is_anomalous=score > decision_threshold,
        p_value=p_value(bank.detector.self_scores, score),
        windows=[
            WindowScore(
                start_s=start,
                end_s=end,
                anomaly_score=float(value),
                neighbors=[Neighbor.model_validate(near) for near in nearest],
                localization=place,
            )
            for (start, end), value, nearest, place in zip(spans, scores, named, places, strict=True)
        ],
    )


def _localize(
    context: Context, bank: MemoryBank, clip: EmbeddedClip, spans: Sequence[tuple[float, float]]
) -> list[Localization | None]:
    edges_hz = context.encoder.band_edges_hz
    if edges_hz is None or not bank.reference.domains:
        return [None] * len(spans)
    with context.metrics.stage("localize"):
        return [
            localization.localize(bank, edges_hz, picture, *span)
            for picture, span in zip(clip.spectrograms, spans, strict=True)
        ]
