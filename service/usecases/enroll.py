"""Enroll normal clips into a machine's memory bank."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress

from service.domain.machine import Domain
from service.schemas import ClipCounts, EnrolledClip, Enrollment
from service.store import AnsweredError, BankChangedError, Enrolled, MachineRecord, NewClip, Once
from service.store.store import check_same_domain, check_space
from service.usecases.clip import Upload, embed_clip
from service.usecases.context import Context


def enroll_clips(
    context: Context, machine_id: str, domain: Domain, uploads: Sequence[Upload], idempotency_key: str | None = None
) -> Enrollment:
    """Decode, embed, commit. All clips are enrolled, or none; clips enrolled before are not added again.

    A request with the `idempotency_key` of an earlier one is given the earlier answer, and nothing is done.

    Raises:
        OffkeyError: the machine is unknown, its bank is full or of another embedding space, or a clip is
            not usable or is enrolled under the other domain; or the key came with another request.
    """
    if idempotency_key is None:
        return _enroll(context, machine_id, domain, uploads, None)
    fingerprint = _fingerprint(machine_id, domain, uploads)
    answer = context.store.earlier_answer(idempotency_key, fingerprint)
    if answer is None:
        try:
            return _enroll(context, machine_id, domain, uploads, (idempotency_key, fingerprint))
        except AnsweredError as error:  # the same request, sent twice at once
            answer = error.answer
    return Enrollment.model_validate_json(answer)


def _fingerprint(machine_id: str, domain: Domain, uploads: Sequence[Upload]) -> str:
    """Of all that an answer depends on, however it was sent."""
    request = [machine_id, domain.value, [[upload.name, upload.sha256] for upload in uploads]]
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()


def _enroll(
    context: Context, machine_id: str, domain: Domain, uploads: Sequence[Upload], key: tuple[str, str] | None
) -> Enrollment:
    embedded: dict[str, NewClip] = {}
    while True:  # again only if a clip that was found enrolled is deleted by another request at that moment
        with suppress(BankChangedError):
            return _attempt(context, machine_id, domain, uploads, embedded, key)


def _attempt(
    context: Context,
    machine_id: str,
    domain: Domain,
    uploads: Sequence[Upload],
    embedded: dict[str, NewClip],
    key: tuple[str, str] | None,
) -> Enrollment:
    record, known = context.store.enrolled(machine_id, [upload.sha256 for upload in uploads])
    check_space(record, context.embedding_space_id)
    for upload in uploads:
        if upload.sha256 in known:
            check_same_domain(known[upload.sha256], upload.name, domain)
    for upload in uploads:
        if upload.sha256 not in known and upload.sha256 not in embedded:
            embedded[upload.sha256] = _embed(context, upload, domain)
    new = [clip for sha256, clip in embedded.items() if sha256 not in known]

    def answer(added: Sequence[Enrolled], record: MachineRecord) -> Enrollment:
        return _answer(record, uploads, known | {clip.sha256: one for clip, one in zip(new, added, strict=True)})

    if not new and key is None:
        return answer([], record)
    once = None if key is None else Once(*key, lambda *found: answer(*found).model_dump_json())
    with context.metrics.stage("store"):
        added, record = context.store.add_clips(
            record, context.embedding_space_id, new, known=known, limits=context.bank_limits, once=once
        )
    context.metrics.enrolled(sum(not one.duplicate for one in added))
    return answer(added, record)


def _embed(context: Context, upload: Upload, domain: Domain) -> NewClip:
    clip = embed_clip(context, upload)
    return NewClip(
        sha256=upload.sha256,
        name=upload.name,
        domain=domain,
        seconds=clip.waveform.seconds,
        sample_rate=clip.waveform.source_sample_rate,
        channels=clip.waveform.source_channels,
        vectors=clip.vectors,
        starts=clip.starts,
    )


def _answer(record: MachineRecord, uploads: Sequence[Upload], results: dict[str, Enrolled]) -> Enrollment:
    seen: set[str] = set()
    clips = []
    for upload in uploads:
        result = results[upload.sha256]
        duplicate = result.duplicate or upload.sha256 in seen  # twice in one request is once enrolled
        seen.add(upload.sha256)
        clips.append(
            EnrolledClip(
                name=upload.name,
                clip_id=result.clip_id,
                status="duplicate" if duplicate else "enrolled",
                domain=result.domain,
            )
        )
    return Enrollment(
        machine_id=record.machine_id,
        generation=record.generation,
        clips=clips,
        bank=ClipCounts(source=record.source_clips, target=record.target_clips),
    )
