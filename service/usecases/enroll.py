"""Enroll normal clips into a machine's memory bank."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from offkey.errors import ABOUT_CLIP, ErrorKind, OffkeyError
from offkey.schemas import AcousticsWarning, ClipCounts, EnrolledClip, Enrollment
from offkey.vocabulary import Domain
from service.bank import Bank
from service.encoder.encoder import Encoder
from service.store import Action, AnsweredError, BankChangedError, Enrolled, MachineRecord, NewClip, Once
from service.store.clips import check_same_domain
from service.store.jobs import Step
from service.telemetry.stages import Stage
from service.usecases.acoustics import warnings_of_new
from service.usecases.clip import Clip, embed_clip
from service.usecases.guard import Opinion, bank_to_ask, guard
from service.usecases.service import Context


@dataclass(frozen=True)
class EnrollOptions:
    """What is said of the clips of a request.

    Attributes:
        domain: that they were recorded under.
        recording: the one that all of them were cut from; None: each is a recording of its own.
        trusted: they are enrolled even where they sound anomalous.
        false_alarm: an alarm of theirs was false.
    """

    domain: Domain
    recording: str | None = None
    trusted: bool = False
    false_alarm: bool = False

    @property
    def action(self) -> Action:
        """As it goes to the audit log."""
        return Action.FEEDBACK if self.false_alarm else Action.FORCE_ENROLL if self.trusted else Action.ENROLL


def enroll_clips(
    context: Context,
    machine_id: str,
    condition: EnrollOptions,
    uploads: Sequence[Clip],
    idempotency_key: str | None = None,
) -> Enrollment:
    """Decode, embed, guard, commit. If one clip cannot be used, none is enrolled.

    Clips enrolled before are not added again; clips that sound plainly anomalous are not added unless they are trusted.
    A request with the `idempotency_key` of an earlier one is given the earlier answer, and nothing is done.

    Raises:
        OffkeyError: the machine is unknown, its bank is full or of a bundle that is not at hand, or a clip is
            not usable or is enrolled under the other domain; or the key came with another request.
    """
    if idempotency_key is None:
        return _enroll(context, machine_id, condition, uploads, None)
    fingerprint = _fingerprint(machine_id, condition, uploads)
    answer = context.store.earlier_answer(idempotency_key, fingerprint)
    if answer is None:
        try:
            return _enroll(context, machine_id, condition, uploads, (idempotency_key, fingerprint))
        except AnsweredError as error:  # the same request, sent twice at once
            answer = error.answer
    return Enrollment.model_validate_json(answer)


def enroll_entries(
    context: Context,
    machine_id: str,
    machine_key: int,
    condition: EnrollOptions,
    uploads: Sequence[Clip],
    report: Callable[[Sequence[EnrolledClip | OffkeyError]], Step],
) -> None:
    """As `enroll_clips`, but that a clip which cannot be used leaves the others.

    Args:
        context: the adapters.
        machine_id: whose bank.
        machine_key: of that machine; one that was deleted and made again is another.
        condition: of the clips.
        uploads: the clips.
        report: makes of what became of each of them a step of a job, which is written with the clips or not at all.

    Raises:
        JobOverError: the job is over; none is enrolled.
        OffkeyError: what is wrong is not about a clip; none is enrolled.
    """
    refused: dict[str, OffkeyError] = {}

    def step(clips: Sequence[EnrolledClip]) -> Step:
        rest = iter(clips)
        return report([refused.get(upload.sha256) or next(rest) for upload in uploads])

    _enroll(context, machine_id, condition, uploads, None, _Entries(machine_key, refused, step))


def _fingerprint(machine_id: str, condition: EnrollOptions, uploads: Sequence[Clip]) -> str:
    """Of all that an answer depends on, however it was sent."""
    said = {"domain": condition.domain, "recording": condition.recording, "trusted": condition.trusted}
    request = [machine_id, said, [[upload.name, upload.sha256] for upload in uploads]]
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()


@dataclass(frozen=True)
class _Entries:
    """That the clips are entries of an archive: which cannot be used, and how to tell what became of the others."""

    machine_key: int
    refused: dict[str, OffkeyError]  # by content
    step: Callable[[Sequence[EnrolledClip]], Step]


def _enroll(
    context: Context,
    machine_id: str,
    condition: EnrollOptions,
    uploads: Sequence[Clip],
    key: tuple[str, str] | None,
    entries: _Entries | None = None,
) -> Enrollment:
    embedded: dict[tuple[str, str], NewClip] = {}
    # Again only if at that moment a clip that was found enrolled is deleted, or the bank moves to another bundle.
    while True:
        with suppress(BankChangedError):
            return _attempt(context, machine_id, condition, uploads, embedded, key, entries)


def _attempt(
    context: Context,
    machine_id: str,
    condition: EnrollOptions,
    uploads: Sequence[Clip],
    embedded: dict[tuple[str, str], NewClip],  # by embedding space and content
    key: tuple[str, str] | None,
    entries: _Entries | None,
) -> Enrollment:
    record, known = context.store.enrolled(machine_id, [upload.sha256 for upload in uploads])
    if entries is not None and record.machine_key != entries.machine_key:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE, f"Machine {machine_id} was deleted while its clips were on the way."
        )
    encoder = context.encoders.of(record.embedding_space_id)
    space = encoder.embedding_space_id
    for upload in uploads:
        with _refused(entries, upload):
            if upload.sha256 in known:
                check_same_domain(known[upload.sha256], upload.name, condition.domain)
    for upload in uploads:
        with _refused(entries, upload):
            if upload.sha256 not in known and (space, upload.sha256) not in embedded:
                embedded[space, upload.sha256] = _embed(context, encoder, upload, condition)
    if entries:
        uploads = [upload for upload in uploads if upload.sha256 not in entries.refused]
    new = {sha256: clip for (of, sha256), clip in embedded.items() if of == space and sha256 not in known}
    bank = None if condition.trusted or not new else bank_to_ask(context, record, condition.domain)
    opinions = _opinions(context, record, condition, bank, new)
    warnings = warnings_of_new(context, record, condition.domain, bank, new)
    welcome = [clip for sha256, clip in new.items() if opinions[sha256].held_back is None]

    def answer(added: Sequence[Enrolled], record: MachineRecord) -> Enrollment:
        results = known | {clip.sha256: one for clip, one in zip(welcome, added, strict=True)}
        return _answer(record, uploads, results, opinions, warnings, condition)

    missing_audio = _missing_audio(context, uploads, known)
    if not (welcome or missing_audio or entries) and key is None:
        return answer([], record)
    once = None if key is None else Once(*key, lambda *found: answer(*found).model_dump_json())
    with context.stages.during(Stage.STORE):
        added, record = context.store.add_clips(
            record,
            space,
            welcome,
            known=known,
            missing_audio=missing_audio,
            limits=context.bank_limits,
            action=condition.action,
            once=once,
            step=None if entries is None else lambda added: entries.step(answer(added, record).clips),
        )
    if condition.trusted:  # the guard shall not go on comparing with a bank that knows nothing of it
        context.banks.forget(record.machine_key)
    context.metrics.enrolled(sum(not one.duplicate for one in added))
    return answer(added, record)


@contextmanager
def _refused(entries: _Entries | None, upload: Clip) -> Iterator[None]:
    """Note an error that is about the clip; where the clips are no entries, it is one of the request."""
    try:
        yield
    except OffkeyError as error:
        if entries is None or error.kind not in ABOUT_CLIP:
            raise
        entries.refused[upload.sha256] = error


def _embed(context: Context, encoder: Encoder, upload: Clip, condition: EnrollOptions) -> NewClip:
    clip = embed_clip(context, encoder, upload)
    return NewClip(
        sha256=upload.sha256,
        name=upload.name,
        recording=condition.recording,
        domain=condition.domain,
        seconds=clip.waveform.seconds,
        sample_rate=clip.waveform.source_sample_rate,
        channels=clip.waveform.source_channels,
        vectors=clip.vectors,
        starts=clip.starts,
        acoustics=clip.acoustics,
        spectrograms=clip.spectrograms,
        audio=upload.data if context.settings.keep_audio else None,
    )


def _missing_audio(context: Context, uploads: Sequence[Clip], known: Mapping[str, Enrolled]) -> dict[int, bytes]:
    """The files of clips, by id, that were enrolled while audio was not kept: they come again, and are kept now."""
    if not context.settings.keep_audio:
        return {}
    found = {upload.sha256: upload.data for upload in uploads}
    return {one.clip_id: found[sha256] for sha256, one in known.items() if not one.has_audio}


def _opinions(
    context: Context, record: MachineRecord, condition: EnrollOptions, bank: Bank | None, new: Mapping[str, NewClip]
) -> dict[str, Opinion]:
    judge = guard(context, record, condition.domain, bank, piece=condition.recording is not None)
    return {sha256: judge(clip.vectors) for sha256, clip in new.items()}


def _other_recording(enrolled: Enrolled | None, condition: EnrollOptions) -> str | None:
    if enrolled is None or condition.recording in (None, enrolled.recording):
        return None
    was = "a recording of its own" if enrolled.recording is None else f"a piece of {enrolled.recording!r}"
    return f"It is enrolled as {was}. Delete clip {enrolled.clip_id} first to make it one of {condition.recording!r}."


def _answer(
    record: MachineRecord,
    uploads: Sequence[Clip],
    results: Mapping[str, Enrolled],
    opinions: Mapping[str, Opinion],
    warnings: Mapping[str, list[AcousticsWarning]],
    condition: EnrollOptions,
) -> Enrollment:
    seen: set[str] = set()
    clips = []
    for upload in uploads:
        result, opinion = results.get(upload.sha256), opinions.get(upload.sha256, Opinion())
        # Twice in one request is once enrolled.
        duplicate = result is not None and (result.duplicate or upload.sha256 in seen)
        seen.add(upload.sha256)
        note = _other_recording(result, condition) if duplicate else opinion.note
        clips.append(
            EnrolledClip(
                name=upload.name,
                clip_id=None if result is None else result.clip_id,
                status="held-back" if result is None else "duplicate" if duplicate else "enrolled",
                domain=condition.domain,
                note=note,
                anomaly_score=None if duplicate else opinion.score,
                warnings=[] if duplicate else warnings.get(upload.sha256, []),
            )
        )
    return Enrollment(
        machine_id=record.machine_id,
        generation=record.generation,
        clips=clips,
        bank=ClipCounts(source=record.source_clips, target=record.target_clips),
    )
