"""Score clips against a machine's memory bank."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from offkey.schemas import ClipAcoustics, ClipScore, Neighbor, Scores, ThresholdChoice, WindowScore
from offkey.schemas import Threshold as ThresholdAnswer
from offkey.vocabulary import Domain
from service.audio.budget import UNLIMITED, Budget
from service.audio.decode import Waveform
from service.bank import Bank
from service.domain.envelope import closest_differences, recording_faults
from service.domain.threshold import Threshold
from service.encoder.encoder import Encoder
from service.store import MachineRecord
from service.store.scores import RecentScore
from service.telemetry.stages import Stage
from service.usecases.acoustics import MACHINE_NOT_AUDIBLE, warnings_of
from service.usecases.clip import Clip, EmbeddedClip, embed_clip, embed_waveform, spans_of
from service.usecases.decision import advice_on, condition_of, decide, length_warning
from service.usecases.localize import localization_note, localize_windows
from service.usecases.service import Call
from service.usecases.threshold import settings_of, threshold_answer


@dataclass(frozen=True)
class ScoreOptions:
    """What the answer about a clip contains.

    Attributes:
        neighbors: number of enrolled windows to name for each scored window.
        localize: whether to report which seconds and bands stand out.
    """

    neighbors: int = 1
    localize: bool = False


@dataclass(frozen=True)
class Question:
    """What clips are compared with. Equal for all clips of a request, or for a stream until its bank changes.

    Attributes:
        machine: the machine.
        bank: its bank.
        encoder: encoder that the bank was made with.
        settings: rule of the decision threshold.
        threshold: decision threshold of the bank.
        chosen: the same threshold, with the values of the domains.
        options: content of the answer.
    """

    machine: MachineRecord
    bank: Bank
    encoder: Encoder
    settings: ThresholdChoice
    threshold: ThresholdAnswer
    chosen: Threshold
    options: ScoreOptions


def score_clips(call: Call, machine_id: str, clips: Sequence[Clip], options: ScoreOptions) -> Scores:
    """Decode, embed and score clips.

    Raises:
        OffkeyError: the machine is unknown, its bank cannot score, or a clip cannot be used.
    """
    question = open_question(call, machine_id, options)
    encoder, longest = question.encoder, question.bank.detector.longest
    scores = [score_embedded(call, question, clip.name, embed_clip(call, encoder, clip, longest)) for clip in clips]
    return answer(call, question, scores)


def open_question(call: Call, machine_id: str, options: ScoreOptions) -> Question:
    """Load what clips of a machine are compared with. Raises `OffkeyError`: it is unknown, or its bank cannot score."""
    record = call.store.machine(machine_id)
    bank = call.bank(record)
    settings = settings_of(call, record)
    return Question(record, bank, call.encoder_of(bank), settings, *threshold_answer(call, bank, settings), options)


def score_waveform(
    call: Call, question: Question, name: str, waveform: Waveform, budget: Budget = UNLIMITED
) -> ClipScore:
    """Score a decoded waveform at the encoder's sample rate: the entry point of streams, MQTT and bulk jobs.

    Raises:
        OffkeyError: the waveform is too short, or the service is stopping.
    """
    longest = question.bank.detector.longest
    return score_embedded(call, question, name, embed_waveform(call, question.encoder, waveform, budget, longest))


def score_embedded(call: Call, question: Question, name: str, clip: EmbeddedClip) -> ClipScore:
    """Score an embedded clip, count it, and buffer its score for drift."""
    bank, options = question.bank, question.options
    with call.stages.during(Stage.SEARCH):
        scores, neighbors = bank.score(
            clip.vectors, options.neighbors, clip.slices, clip.compared_seconds, as_pieces=clip.in_pieces
        )
    spans = spans_of(clip)
    different = closest_differences(list(bank.envelopes.values()), clip.acoustics, clip.seconds)
    warnings = warnings_of([*recording_faults(clip.acoustics), *different])
    if (too_short := length_warning(bank, scores, clip.seconds)) is not None:
        warnings.append(too_short)
    if bank.is_background(clip.vectors, neighbors):
        warnings.append(MACHINE_NOT_AUDIBLE)
    decision = decide(bank, question.settings, question.chosen, scores, clip, spans, warnings)
    condition = condition_of(bank, warnings)
    metrics = call.service.metrics
    metrics.scored(decision.is_anomalous)
    metrics.acoustics_warned(one.kind.value for one in warnings)
    call.service.score_buffer.add(_recent(question, decision.domain, scores.score))
    with call.stages.during(Stage.LOCALIZE):
        places = localize_windows(bank, question.encoder, clip.spectrograms, spans, wanted=options.localize)
    return ClipScore(
        name=name,
        seconds=clip.seconds,
        anomaly_score=scores.score,
        decision_threshold=decision.decision_threshold,
        is_anomalous=decision.is_anomalous,
        domain=decision.domain,
        decided_by=decision.decided_by,
        p_value=decision.p_value,
        promised_false_alarm_rate=decision.promised_false_alarm_rate,
        promise_note=decision.promise_note,
        condition=condition,
        advice=advice_on(condition, warnings),
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
            for (start, end), value, nearest, place in zip(spans, scores.windows, neighbors, places, strict=True)
        ],
    )


def answer(call: Call, question: Question, clips: list[ClipScore]) -> Scores:
    """Build the answer about scored clips."""
    bank, encoder = question.bank, question.encoder
    not_requested = "Not requested. Add localize=true."
    return Scores(
        machine_id=question.machine.machine_id,
        bundle=encoder.name,
        backend=bank.detector.backend,
        generation=bank.generation,
        threshold=question.threshold,
        clips=clips,
        localization_note=localization_note(encoder, bank) if question.options.localize else not_requested,
        timing_ms=call.stages.timing_ms(),
    )


def _recent(question: Question, domain: Domain, score: float) -> RecentScore:
    """Return what is stored of a clip for drift."""
    return RecentScore(
        machine_key=question.machine.machine_key,
        scored_at=datetime.now(UTC),
        generation=question.bank.generation,
        backend=question.bank.detector.backend,
        domain=domain,
        anomaly_score=score,
    )
