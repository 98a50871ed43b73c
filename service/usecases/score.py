"""Score clips against a machine's memory bank."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from service.bank import MemoryBank
from service.bank import Neighbor as Near
from service.domain.detector import clip_score
from service.domain.envelope import unlike_all
from service.domain.threshold import p_value
from service.schemas import ClipConditions, ClipScore, Neighbor, Scores, WindowScore
from service.store.shift import RecentScore
from service.usecases.clip import Upload, embed_clip
from service.usecases.conditions import NOT_HEARD, warnings_of
from service.usecases.context import Context
from service.usecases.threshold import threshold_of


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
    threshold = threshold_of(context, record, bank)
    manifest = context.encoder.manifest
    return Scores(
        machine_id=machine_id,
        bundle=f"{manifest.name}/{manifest.version}",
        backend=bank.detector.backend,
        generation=bank.generation,
        threshold=threshold,
        clips=[
            _score(context, record.machine_key, bank, threshold.decision_threshold, upload, neighbors)
            for upload in uploads
        ],
    )


def _score(
    context: Context, machine_key: int, bank: MemoryBank, decision_threshold: float, upload: Upload, neighbors: int
) -> ClipScore:
    clip = embed_clip(context, upload)
    with context.metrics.stage("search"):
        scores, named = bank.score(clip.vectors, neighbors)
    score = clip_score(scores)
    context.metrics.scored(score > decision_threshold)
    context.pending_scores.add(_recent(machine_key, bank, scores, named))
    seconds = clip.waveform.seconds
    warnings = warnings_of(unlike_all(list(bank.envelopes.values()), clip.conditions, seconds))
    if bank.is_background(clip.vectors, named):
        warnings.append(NOT_HEARD)
    context.metrics.unlike_enrolled(one.kind.value for one in warnings)
    window = context.encoder.manifest.window.seconds
    return ClipScore(
        name=upload.name,
        seconds=seconds,
        anomaly_score=score,
        is_anomalous=score > decision_threshold,
        p_value=p_value(bank.detector.self_scores, score),
        conditions=ClipConditions.model_validate(clip.conditions),
        warnings=warnings,
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


def _recent(
    machine_key: int, bank: MemoryBank, scores: NDArray[np.float64], named: Sequence[Sequence[Near]]
) -> RecentScore:
    """What is kept of a clip: its score, and the domain that its most anomalous window is nearest to."""
    return RecentScore(
        machine_key=machine_key,
        scored_at=datetime.now(UTC),
        generation=bank.generation,
        backend=bank.detector.backend,
        domain=named[int(scores.argmax())][0].domain,
        anomaly_score=clip_score(scores),
    )
