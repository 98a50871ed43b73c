"""The files that were enrolled, kept as they were posted: what a new bundle needs to hear them again."""

import hashlib
from collections.abc import Mapping

from sqlalchemy import Connection, insert, select

from service.store.schema import audio, clip, noise, noise_audio

_KEEP = insert(audio)


def keep_audio(connection: Connection, clip_id: int, file: bytes | None) -> None:
    """Keep the file of a clip, in the transaction that enrolls it; None: it is not to be kept."""
    if file is not None:
        connection.execute(_KEEP, {"clip_id": clip_id, "file": file})


def keep_missing_audio(connection: Connection, files: Mapping[int, bytes]) -> None:
    """Keep the files of clips, by id, that were enrolled without. Who kept one meanwhile kept the same."""
    if not files:
        return
    there = set(connection.execute(select(audio.c.clip_id).where(audio.c.clip_id.in_(files))).scalars())
    for clip_id in files.keys() - there:
        keep_audio(connection, clip_id, files[clip_id])


def read_audio(connection: Connection, clip_id: int) -> bytes | None:
    """The file of a clip; None: it was not kept. Raises ValueError if it is not what was posted."""
    row = connection.execute(
        select(clip.c.sha256, audio.c.file)
        .join(audio, audio.c.clip_id == clip.c.clip_id)
        .where(clip.c.clip_id == clip_id)
    ).one_or_none()
    return None if row is None else checked(row.file, row.sha256, f"clip {clip_id}")


def keep_noise_audio(connection: Connection, noise_id: int, file: bytes | None) -> None:
    """As `keep_audio`, of a clip of the background; one that is there already stays."""
    there = connection.execute(select(noise_audio.c.noise_id).where(noise_audio.c.noise_id == noise_id)).first()
    if file is not None and there is None:
        connection.execute(insert(noise_audio).values(noise_id=noise_id, file=file))


def read_noise_audio(connection: Connection, noise_id: int) -> bytes | None:
    """As `read_audio`, of a clip of the background."""
    row = connection.execute(
        select(noise.c.sha256, noise_audio.c.file)
        .join(noise_audio, noise_audio.c.noise_id == noise.c.noise_id)
        .where(noise.c.noise_id == noise_id)
    ).one_or_none()
    return None if row is None else checked(row.file, row.sha256, f"clip {noise_id} of the noise")


def checked(file: bytes, sha256: str, whose: str) -> bytes:
    """Return `file`. Raises ValueError if it is not what was posted."""
    if hashlib.sha256(file).hexdigest() != sha256:
        raise ValueError(f"the audio of {whose} does not fit its sha256")
    return file
