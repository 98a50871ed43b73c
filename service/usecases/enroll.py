"""Enroll normal clips into a machine's memory bank."""

from collections.abc import Sequence

from service.domain.machine import Domain
from service.schemas import ClipCounts, EnrolledClip, Enrollment
from service.store import Enrolled, MachineRecord, NewClip
from service.store.store import check_same_domain, check_space
from service.usecases.clip import Upload, embed_clip
from service.usecases.context import Context


def enroll_clips(context: Context, machine_id: str, domain: Domain, uploads: Sequence[Upload]) -> Enrollment:
    """Decode, embed, commit. All clips are enrolled, or none; clips enrolled before are not added again.

    Raises:
        OffkeyError: the machine is unknown, its bank is full or of another embedding space, or a clip is
            not usable or is enrolled under the other domain.
    """
    record = context.store.machine(machine_id)
    check_space(record, context.embedding_space_id)
    known = context.store.enrolled(record.machine_key, [upload.sha256 for upload in uploads])
    results = {
        upload.sha256: check_same_domain(known[upload.sha256], upload.name, domain)
        for upload in uploads
        if upload.sha256 in known
    }
    unknown = {upload.sha256: upload for upload in uploads if upload.sha256 not in results}
    if unknown:
        new = [_embed(context, upload, domain) for upload in unknown.values()]
        with context.metrics.stage("store"):
            added, record = context.store.add_clips(
                machine_id,
                context.embedding_space_id,
                new,
                max_clips=context.settings.max_clips_per_machine,
            )
        results |= dict(zip(unknown, added, strict=True))
        context.metrics.enrolled(sum(not one.duplicate for one in added))
    return _answer(record, uploads, results)


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
