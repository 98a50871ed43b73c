"""Store the posted files of enrolled clips. A new bundle embeds them again."""

import hashlib
from collections.abc import Mapping

from sqlalchemy import Connection, insert, select

from service.store.schema import audio, clip, noise, noise_audio

_ADD = insert(audio)


def add_audio(connection: Connection, clip_id: int, file: bytes | None) -> None:
    """Store the file of a clip in the transaction that enrolls it. None stores nothing."""
    if file is not None:
        connection.execute(_ADD, {"clip_id": clip_id, "file": file})


def add_missing_audio(connection: Connection, files: Mapping[int, bytes]) -> None:
    """Store the files of clips, by clip id, that were enrolled without."""
    if not files:
        return
    there = set(connection.execute(select(audio.c.clip_id).where(audio.c.clip_id.in_(files))).scalars())
    for clip_id in files.keys() - there:
        add_audio(connection, clip_id, files[clip_id])


def read_audio(connection: Connection, clip_id: int) -> bytes | None:
    """Return the file of a clip. None if it was not stored. Raises ValueError if it is not what was posted."""
    row = connection.execute(
        select(clip.c.sha256, audio.c.file)
        .join(audio, audio.c.clip_id == clip.c.clip_id)
        .where(clip.c.clip_id == clip_id)
    ).one_or_none()
    return None if row is None else checked(row.file, row.sha256, f"clip {clip_id}")


def add_noise_audio(connection: Connection, noise_id: int, file: bytes | None) -> None:
    """Store the file of a noise clip. A stored file is not replaced."""
    there = connection.execute(select(noise_audio.c.noise_id).where(noise_audio.c.noise_id == noise_id)).first()
    if file is not None and there is None:
        connection.execute(insert(noise_audio).values(noise_id=noise_id, file=file))


def read_noise_audio(connection: Connection, noise_id: int) -> bytes | None:
    """Return the file of a noise clip, as `read_audio` does."""
    row = connection.execute(
        select(noise.c.sha256, noise_audio.c.file)
        .join(noise_audio, noise_audio.c.noise_id == noise.c.noise_id)
        .where(noise.c.noise_id == noise_id)
    ).one_or_none()
    return None if row is None else checked(row.file, row.sha256, f"clip {noise_id} of the noise")


def checked(file: bytes, sha256: str, name: str) -> bytes:
    """Return `file`. Raises ValueError if it is not what was posted."""
    if hashlib.sha256(file).hexdigest() != sha256:
        raise ValueError(f"the audio of {name} does not match its sha256")
    return file
