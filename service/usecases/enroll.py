"""Enroll normal clips into a machine's memory bank."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offkey.errors import ABOUT_CLIP, ErrorKind, OffkeyError
from offkey.schemas import AcousticsWarning, ClipCounts, EnrolledClip, Enrollment
from offkey.vocabulary import Domain
from service.encoder.encoder import Encoder
from service.encoder.pieces import embed_pieces
from service.store import Action, BankChangedError, Enrolled, IdempotencyKey, MachineRecord, NewClip, Transaction
from service.store.clips import check_same_domain
from service.telemetry.stages import Stage
from service.usecases.acoustics import warnings_of_new
from service.usecases.clip import Clip, embed_clip
from service.usecases.guard import Opinion, guard_bank, judge_clips
from service.usecases.service import Call

Embedded = dict[tuple[str, str], NewClip]  # by embedding space and sha256


@dataclass(frozen=True)
class EnrollOptions:
    """Options that hold for all clips of a request.

    Attributes:
        domain: domain that the clips were recorded in.
        recording: recording that all of them were cut from; None if each is its own recording.
        force: whether clips are enrolled even if they sound anomalous.
        false_alarm: whether the clips raised a false alarm.
    """

    domain: Domain
    recording: str | None = None
    force: bool = False
    false_alarm: bool = False

    @property
    def action(self) -> Action:
        """Entry of the audit log."""
        return Action.FEEDBACK if self.false_alarm else Action.FORCE_ENROLL if self.force else Action.ENROLL


@dataclass(frozen=True)
class PreparedClips:
    """Clips that are embedded and judged, ready to be committed.

    Attributes:
        machine: the machine as it was when the clips were prepared.
        embedding_space_id: space of the embeddings.
        options: options of the request.
        clips: posted clips, without the refused ones.
        known: clips that were enrolled before, by sha256.
        accepted: clips to enroll.
        opinions: opinion of the guard on each new clip, by sha256.
        warnings: warnings about each new clip, by sha256.
        missing_audio: files to store of clips that were enrolled without, by clip id.
        refused: error of each clip that cannot be used, by sha256. Empty unless errors are collected.
    """

    machine: MachineRecord
    embedding_space_id: str
    options: EnrollOptions
    clips: Sequence[Clip]
    known: Mapping[str, Enrolled]
    accepted: Sequence[NewClip]
    opinions: Mapping[str, Opinion]
    warnings: Mapping[str, list[AcousticsWarning]]
    missing_audio: Mapping[int, bytes]
    refused: Mapping[str, OffkeyError]


def enroll_clips(
    call: Call,
    machine_id: str,
    options: EnrollOptions,
    clips: Sequence[Clip],
    idempotency_key: str | None = None,
    embedded: Embedded | None = None,
) -> Enrollment:
    """Decode, embed, judge and commit clips. If one clip cannot be used, none is enrolled.

    Clips that were enrolled before are not added again. Clips that sound plainly anomalous are held back unless forced.
    A request that repeats an `idempotency_key` gets the first response, and nothing is done. `embedded` is filled with
    the clips that were embedded.

    Raises:
        OffkeyError: the machine is unknown; its bank is full or of a bundle that is not served; a clip cannot be used
            or is enrolled under the other domain; or the key was used for another request.
    """
    key = None if idempotency_key is None else _idempotency_key(idempotency_key, machine_id, options, clips)
    if key is not None and (response := call.store.find_response(key)) is not None:
        return Enrollment.model_validate_json(response)
    embedded = {} if embedded is None else embedded
    while True:
        prepared = prepare_clips(call, machine_id, options, clips, embedded)
        if key is None and not (prepared.accepted or prepared.missing_audio):
            return _answer(prepared, prepared.machine, prepared.known)
        try:
            return _commit(call, prepared, key)
        except BankChangedError:  # a known clip was deleted, or the bank moved to another bundle
            continue


def prepare_clips(
    call: Call,
    machine_id: str,
    options: EnrollOptions,
    clips: Sequence[Clip],
    embedded: Embedded,
    *,
    collect_errors: bool = False,
) -> PreparedClips:
    """Decode, embed and judge clips. Writes nothing.

    Args:
        call: the request.
        machine_id: id of the machine.
        options: options of the request.
        clips: posted clips.
        embedded: embeddings of an earlier attempt, extended by this one.
        collect_errors: whether a clip that cannot be used is put into `refused` instead of raising.

    Raises:
        OffkeyError: a clip cannot be used, or the machine cannot take clips.
        BankChangedError: the bank moved to another embedding space meanwhile.
    """
    record, known = call.store.enrolled(machine_id, [clip.sha256 for clip in clips])
    encoder = call.service.encoders.of(record.embedding_space_id)
    space = encoder.embedding_space_id
    refused = _embed_new(
        call, encoder, options, clips, known, _enrolled(record, options.domain), embedded, collect_errors
    )
    usable = [clip for clip in clips if clip.sha256 not in refused]
    new = {sha256: clip for (of, sha256), clip in embedded.items() if of == space and sha256 not in known}
    bank = None if options.force or not new else guard_bank(call, record, options.domain)
    opinions = judge_clips(call, record, options.domain, bank, new, is_piece=options.recording is not None)
    return PreparedClips(
        machine=record,
        embedding_space_id=space,
        options=options,
        clips=usable,
        known=known,
        accepted=[clip for sha256, clip in new.items() if opinions[sha256].held_back is None],
        opinions=opinions,
        warnings=warnings_of_new(call, record, options.domain, bank, new),
        missing_audio=_missing_audio(call, usable, known),
        refused=refused,
    )


def commit_clips(call: Call, tx: Transaction, prepared: PreparedClips) -> Enrollment:
    """Enroll prepared clips in a transaction, and return the answer about them.

    Raises:
        BankChangedError: a known clip was deleted, or the bank moved to another bundle. Prepare the clips again.
        OffkeyError: the bank would be too large, or a clip is enrolled under the other domain.
    """
    tx.require_space(prepared.embedding_space_id)
    tx.require_clips(prepared.known)
    tx.add_missing_audio(prepared.missing_audio)
    limits, action = call.service.bank_limits, prepared.options.action
    added = tx.add_clips(prepared.accepted, prepared.embedding_space_id, limits, action)
    enrolled = {new.sha256: one for new, one in zip(prepared.accepted, added, strict=True)}
    return _answer(prepared, tx.machine, {**prepared.known, **enrolled})


def count_enrolled(call: Call, answer: Enrollment) -> None:
    """Count the clips of a committed answer in the metrics."""
    call.service.metrics.enrolled(sum(clip.status == "enrolled" for clip in answer.clips))


def _commit(call: Call, prepared: PreparedClips, key: IdempotencyKey | None) -> Enrollment:
    with call.stages.during(Stage.STORE), call.store.begin(prepared.machine) as tx:
        if key is not None and (response := tx.find_response(key)) is not None:
            return Enrollment.model_validate_json(response)  # the same request was sent twice at once
        answer = commit_clips(call, tx, prepared)
        if key is not None:
            tx.store_response(key, answer.model_dump_json())
    count_enrolled(call, answer)
    return answer


def _enrolled(record: MachineRecord, domain: Domain) -> int:
    return record.source_clips if domain is Domain.SOURCE else record.target_clips


def _idempotency_key(key: str, machine_id: str, options: EnrollOptions, clips: Sequence[Clip]) -> IdempotencyKey:
    """Return the key with a fingerprint of everything that the answer depends on, however it was sent."""
    sent = {"domain": options.domain, "recording": options.recording, "trusted": options.force}
    request = [machine_id, sent, [[clip.name, clip.sha256] for clip in clips]]
    return IdempotencyKey(key, hashlib.sha256(json.dumps(request).encode()).hexdigest())


def _embed_new(
    call: Call,
    encoder: Encoder,
    options: EnrollOptions,
    clips: Sequence[Clip],
    known: Mapping[str, Enrolled],
    enrolled: int,
    embedded: Embedded,
    collect_errors: bool,
) -> dict[str, OffkeyError]:
    """Embed the clips that are not known into `embedded`. Returns the errors of clips that cannot be used."""
    refused: dict[str, OffkeyError] = {}
    space = encoder.embedding_space_id
    # Known clips come first: they are refused without decoding anything.
    for clip in sorted(clips, key=lambda one: one.sha256 not in known):
        try:
            if clip.sha256 in known:
                check_same_domain(known[clip.sha256], clip.name, options.domain)
            elif (space, clip.sha256) not in embedded:
                embedded[space, clip.sha256] = _embed(call, encoder, clip, options, enrolled + len(embedded))
        except OffkeyError as error:
            if not collect_errors or error.kind not in ABOUT_CLIP:
                raise
            refused[clip.sha256] = error
    return refused


def _embed(call: Call, encoder: Encoder, clip: Clip, options: EnrollOptions, enrolled: int) -> NewClip:
    embedded = embed_clip(call, encoder, clip)
    with call.stages.during(Stage.EMBED):
        pieces = embed_pieces(encoder, embedded.waveform.samples, embedded.starts, enrolled, clip.budget)
    return NewClip(
        sha256=clip.sha256,
        name=clip.name,
        recording=options.recording,
        domain=options.domain,
        seconds=embedded.seconds,
        sample_rate=embedded.waveform.source_sample_rate,
        channels=embedded.waveform.source_channels,
        vectors=embedded.vectors,
        starts=embedded.starts,
        acoustics=embedded.acoustics,
        spectrograms=embedded.spectrograms,
        slices=embedded.slices,
        pieces=pieces,
        audio=clip.data if call.service.settings.keep_audio else None,
    )


def _missing_audio(call: Call, clips: Sequence[Clip], known: Mapping[str, Enrolled]) -> dict[int, bytes]:
    """Return the files, by clip id, of clips that were enrolled while audio was not stored and are sent again."""
    if not call.service.settings.keep_audio:
        return {}
    found = {clip.sha256: clip.data for clip in clips}
    return {one.clip_id: found[sha256] for sha256, one in known.items() if not one.has_audio and sha256 in found}


def _answer(prepared: PreparedClips, machine: MachineRecord, enrolled: Mapping[str, Enrolled]) -> Enrollment:
    seen: set[str] = set()
    clips = []
    for clip in prepared.clips:
        result, opinion = enrolled.get(clip.sha256), prepared.opinions.get(clip.sha256, Opinion())
        # A clip that is sent twice in one request is enrolled once.
        duplicate = result is not None and (result.duplicate or clip.sha256 in seen)
        seen.add(clip.sha256)
        clips.append(
            EnrolledClip(
                name=clip.name,
                clip_id=None if result is None else result.clip_id,
                status="held-back" if result is None else "duplicate" if duplicate else "enrolled",
                domain=prepared.options.domain,
                note=_other_recording(result, prepared.options) if duplicate else opinion.note,
                anomaly_score=None if duplicate else opinion.score,
                warnings=[] if duplicate else prepared.warnings.get(clip.sha256, []),
            )
        )
    return Enrollment(
        machine_id=machine.machine_id,
        generation=machine.generation,
        clips=clips,
        bank=ClipCounts(source=machine.source_clips, target=machine.target_clips),
    )


def _other_recording(enrolled: Enrolled | None, options: EnrollOptions) -> str | None:
    if enrolled is None or options.recording in (None, enrolled.recording):
        return None
    was = "its own recording" if enrolled.recording is None else f"a piece of {enrolled.recording!r}"
    return (
        f"It is enrolled as {was}. Delete clip {enrolled.clip_id} first to enroll it as one of {options.recording!r}."
    )


def check_machine_key(machine: MachineRecord, machine_key: int) -> None:
    """Raise `OffkeyError` if a machine was deleted and created again since a job about it was queued."""
    if machine.machine_key != machine_key:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE, f"Machine {machine.machine_id} was deleted before its clips were enrolled."
        )
