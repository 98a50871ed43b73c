"""Read, check and write the rows of clips."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, RowMapping, bindparam, func, insert, select

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.domain.distance import Vectors
from service.store.acoustics import acoustics_in, add_acoustics
from service.store.audio import add_audio
from service.store.cells import write_cells
from service.store.embeddings import DTYPE, checksum
from service.store.errors import translate_row_errors
from service.store.pieces import write_pieces
from service.store.records import BankLimits, ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.schema import audio, clip, embedding, slices, spectrogram

# Built once: SQLAlchemy takes longer to build a statement than SQLite to execute it.
_BY_CONTENT = (
    select(clip.c.sha256, clip.c.clip_id, clip.c.domain, clip.c.recording, audio.c.clip_id.label("audio_id"))
    .join(audio, audio.c.clip_id == clip.c.clip_id, isouter=True)
    .where(clip.c.machine_key == bindparam("machine_key"), clip.c.sha256.in_(bindparam("sha256s", expanding=True)))
)
_COUNT_WINDOWS = select(func.count()).join_from(embedding, clip).where(clip.c.machine_key == bindparam("machine_key"))
_ADD_CLIP = insert(clip).returning(clip.c.clip_id)
_ADD_WINDOWS = insert(embedding)


def check_same_domain(known: Enrolled, name: str, domain: Domain) -> Enrolled:
    """Return `known`. Raises `OffkeyError` if the clip is enrolled under another domain."""
    if known.domain is not domain:
        raise OffkeyError(
            ErrorKind.DOMAIN_CONFLICT,
            f"{name} is enrolled as clip {known.clip_id} of the {known.domain} domain already. Delete that clip "
            f"first to enroll it as {domain}.",
            clip=name,
        )
    return known


def clip_record(row: RowMapping) -> ClipRecord:
    """Convert a row with the columns of a clip, the number of its `windows`, and its acoustics if there are any."""
    return ClipRecord(
        clip_id=row["clip_id"],
        name=row["name"],
        recording=row["recording"],
        domain=Domain(row["domain"]),
        sha256=row["sha256"],
        seconds=row["seconds"],
        sample_rate=row["sample_rate"],
        channels=row["channels"],
        windows=row["windows"],
        enrolled_at=row["enrolled_at"],
        acoustics=None if row["level_dbfs"] is None else acoustics_in(row),
    )


@translate_row_errors()
def clips_by_content(connection: Connection, machine_key: int, sha256s: Sequence[str]) -> dict[str, Enrolled]:
    """Return which of these contents are enrolled for a machine, by sha256."""
    rows = connection.execute(_BY_CONTENT, {"machine_key": machine_key, "sha256s": sha256s})
    return {
        row.sha256: Enrolled(
            row.clip_id, Domain(row.domain), row.recording, duplicate=True, has_audio=row.audio_id is not None
        )
        for row in rows
    }


def check_recording(connection: Connection, machine_key: int, recording: str, domain: Domain) -> None:
    """Raise `OffkeyError` if a piece of the recording is enrolled under the other domain."""
    other = connection.execute(
        select(clip.c.clip_id).where(
            clip.c.machine_key == machine_key, clip.c.recording == recording, clip.c.domain != domain.value
        )
    ).first()
    if other is not None:
        raise OffkeyError(
            ErrorKind.DOMAIN_CONFLICT,
            f"Clip {other.clip_id} of the recording {recording!r} is enrolled under the other domain. One recording is "
            f"of one domain: name it otherwise, or delete its clips first to enroll it as {domain}.",
            recording=recording,
        )


def check_size(connection: Connection, grown: MachineRecord, limits: BankLimits) -> None:
    """Raise `OffkeyError` if a bank is larger than its limits."""
    windows = connection.execute(_COUNT_WINDOWS, {"machine_key": grown.machine_key}).scalar_one()
    for count, limit, unit in ((grown.clips, limits.clips, "clips"), (windows, limits.windows, "windows")):
        if count > limit:
            raise OffkeyError(
                ErrorKind.BANK_FULL,
                f"Machine {grown.machine_id} would have {count} {unit}; the limit is {limit}. Nothing was enrolled. "
                "Delete clips that are no longer typical, or raise the limit (docs/reference/scoring.md, Large banks).",
                **{unit: count, f"max_{unit}_per_machine": limit},
            )


def add_clip(connection: Connection, machine_key: int, new: NewClip) -> Enrolled:
    """Enroll one clip, unless its content is already enrolled."""
    known = clips_by_content(connection, machine_key, [new.sha256]).get(new.sha256)
    if known is not None:
        return check_same_domain(known, new.name, new.domain)
    clip_id = connection.execute(
        _ADD_CLIP,
        {
            "machine_key": machine_key,
            "sha256": new.sha256,
            "name": new.name,
            "recording": new.recording,
            "domain": new.domain.value,
            "seconds": new.seconds,
            "sample_rate": new.sample_rate,
            "channels": new.channels,
            "enrolled_at": datetime.now(UTC),
        },
    ).scalar_one()
    write_windows(connection, machine_key, clip_id, new.domain, new.vectors, new.starts)
    add_audio(connection, clip_id, new.audio)
    add_acoustics(connection, clip_id, new.acoustics)
    write_cells(connection, spectrogram, clip_id, new.spectrograms)
    write_cells(connection, slices, clip_id, new.slices)
    write_pieces(connection, clip_id, new.pieces)
    return Enrolled(clip_id, new.domain, new.recording, duplicate=False, has_audio=new.audio is not None)


def write_windows(
    connection: Connection,
    machine_key: int,
    clip_id: int,
    domain: Domain,
    vectors: Vectors,
    starts: NDArray[np.float64],
) -> None:
    """Write the embeddings `(windows, dim)` of a clip and the starts of its windows, in seconds."""
    rows, windows = [], len(vectors)
    for window, (start_s, values) in enumerate(zip(starts.tolist(), vectors, strict=True)):
        vector = values.astype(DTYPE).tobytes()
        written = checksum(machine_key, domain, clip_id, window, windows, start_s, vector)
        rows.append({"clip_id": clip_id, "window": window, "start_s": start_s, "vector": vector, "checksum": written})
    connection.execute(_ADD_WINDOWS, rows)
