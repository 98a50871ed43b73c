"""Score clips against a machine's memory bank."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from offkey.schemas import ClipAcoustics, ClipScore, Localization, Neighbor, Scores, WindowScore
from service.bank import Bank
from service.bank import Neighbor as Near
from service.domain.detector import clip_score
from service.domain.envelope import closest_differences
from service.domain.threshold import p_value
from service.encoder.encoder import Encoder
from service.store.scores import RecentScore
from service.telemetry.stages import Stage
from service.usecases import localize as localization
from service.usecases.acoustics import MACHINE_NOT_AUDIBLE, warnings_of
from service.usecases.clip import Clip, EmbeddedClip, embed_clip
from service.usecases.service import Context
from service.usecases.threshold import threshold_of


@dataclass(frozen=True)
class _Question:
    """What the clips of a request are held against, and what is to be told of them."""

    machine_key: int
    bank: Bank
    encoder: Encoder  # of the bank
    decision_threshold: float
    neighbors: int
    localize: bool


def score_clips(context: Context, machine_id: str, uploads: Sequence[Clip], neighbors: int, localize: bool) -> Scores:
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
    encoder = context.encoder_of(bank)
    question = _Question(record.machine_key, bank, encoder, threshold.decision_threshold, neighbors, localize)
    clips = [_score(context, question, one) for one in uploads]
    return Scores(
        machine_id=machine_id,
        bundle=encoder.name,
        backend=bank.detector.backend,
        generation=bank.generation,
        threshold=threshold,
        clips=clips,
        localization_note=localization.note(encoder, bank) if localize else "Not asked for: add localize=true.",
        timing_ms=context.stages.timing_ms(),
    )


def _score(context: Context, question: _Question, upload: Clip) -> ClipScore:
    bank = question.bank
    clip = embed_clip(context, question.encoder, upload)
    with context.stages.during(Stage.SEARCH):
        scores, named = bank.score(clip.vectors, question.neighbors)
    score = clip_score(scores)
    is_anomalous = score > question.decision_threshold
    context.metrics.scored(is_anomalous)
    context.score_buffer.add(_recent(question.machine_key, bank, scores, named))
    seconds = clip.waveform.seconds
    warnings = warnings_of(closest_differences(list(bank.envelopes.values()), clip.acoustics, seconds))
    if bank.is_background(clip.vectors, named):
        warnings.append(MACHINE_NOT_AUDIBLE)
    context.metrics.acoustics_warned(one.kind.value for one in warnings)
    window = question.encoder.manifest.window.seconds
    spans = [(float(start), min(float(start) + window, seconds)) for start in clip.starts]
    places = _localize(context, question, clip, spans) if question.localize else [None] * len(spans)
    return ClipScore(
        name=upload.name,
        seconds=seconds,
        anomaly_score=score,
        is_anomalous=is_anomalous,
        p_value=p_value(bank.detector.self_scores, score),
        acoustics=ClipAcoustics.model_validate(clip.acoustics),
        warnings=warnings,
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


def _recent(machine_key: int, bank: Bank, scores: NDArray[np.float64], named: Sequence[Sequence[Near]]) -> RecentScore:
    """What is kept of a clip: its score, and the domain that its most anomalous window is nearest to."""
    return RecentScore(
        machine_key=machine_key,
        scored_at=datetime.now(UTC),
        generation=bank.generation,
        backend=bank.detector.backend,
        domain=named[int(scores.argmax())][0].domain,
        anomaly_score=clip_score(scores),
    )


def _localize(
    context: Context, question: _Question, clip: EmbeddedClip, spans: Sequence[tuple[float, float]]
) -> list[Localization | None]:
    bank, edges_hz = question.bank, question.encoder.band_edges_hz
    if edges_hz is None or not bank.reference.domains:
        return [None] * len(spans)
    with context.stages.during(Stage.LOCALIZE):
        return [
            localization.localize(bank, edges_hz, picture, *span)
            for picture, span in zip(clip.spectrograms, spans, strict=True)
        ]
