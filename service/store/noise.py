"""Store noise clips: the background without the machine. A clip that resembles them may not contain the machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from offkey.errors import ErrorKind, OffkeyError
from service.domain.distance import Vectors
from service.store.audio import add_noise_audio
from service.store.database.base import Database
from service.store.embeddings import DTYPE, noise_checksum, stacked
from service.store.errors import translate_row_errors
from service.store.schema import machine, noise

MAX_NOISE_WINDOWS = 1_000  # per machine

_RECORD = (
    noise.c.noise_id,
    noise.c.name,
    noise.c.sha256,
    noise.c.seconds,
    noise.c.windows,
    noise.c.enrolled_at,
)

_OF_BANK = (
    select(noise.c.noise_id, noise.c.embedding_space_id, noise.c.windows, noise.c.vectors, noise.c.checksum)
    .join(machine, machine.c.machine_key == noise.c.machine_key)
    .where(noise.c.machine_key == bindparam("machine_key"), noise.c.embedding_space_id == machine.c.embedding_space_id)
    .order_by(noise.c.noise_id)
)


@dataclass(frozen=True)
class NewNoise:
    """An embedded noise clip."""

    sha256: str
    name: str
    seconds: float
    vectors: Vectors  # (windows, dim)
    audio: bytes | None = field(default=None, repr=False)  # posted file; None if it is not to be stored


@dataclass(frozen=True)
class NoiseRecord:
    """A stored noise clip."""

    noise_id: int
    name: str
    sha256: str
    seconds: float
    windows: int
    enrolled_at: datetime


class Noise:
    """Reads the noise clips of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, machine_key: int) -> list[NoiseRecord]:
        """Return the noise clips of a machine, by id."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_RECORD).where(noise.c.machine_key == machine_key).order_by(noise.c.noise_id)
            ).mappings()
            return [NoiseRecord(**row) for row in rows]


def delete_noise(connection: Connection, machine_key: int, noise_id: int) -> None:
    """Delete a noise clip. Raises `OffkeyError` (unknown clip)."""
    gone = connection.execute(
        delete(noise).where(noise.c.machine_key == machine_key, noise.c.noise_id == noise_id)
    ).rowcount
    if not gone:
        raise OffkeyError(
            ErrorKind.UNKNOWN_CLIP,
            f"The machine has no noise clip {noise_id}. GET /machines/{{machine_id}}/noise lists them.",
        )


def noise_vectors(connection: Connection, machine_key: int, width: int) -> Vectors:
    """Return the embeddings `(windows, width)` of a machine's noise clips that are in the space of its bank.

    Raises:
        ValueError: they are not what was written.
    """
    rows = connection.execute(_OF_BANK, {"machine_key": machine_key}).all()
    check_noise(machine_key, [StoredNoise(*row) for row in rows])
    found = stacked([row.vectors[at : at + 4 * width] for row in rows for at in range(0, len(row.vectors), 4 * width)])
    if len(found) != sum(row.windows for row in rows):
        raise ValueError(f"{len(found)} windows of noise of {width} values are not what was written")
    return found.reshape(len(found), width)


class StoredNoise(NamedTuple):
    """Columns of a row of `noise` that scores depend on."""

    noise_id: int
    embedding_space_id: str
    windows: int
    vectors: bytes
    checksum: int


def replace_noise(
    connection: Connection, machine_key: int, noise_id: int, embedding_space_id: str, vectors: Vectors
) -> None:
    """Replace the embeddings of a noise clip by those of another bundle, `(windows, dim)`."""
    same = select(noise.c.sha256).where(noise.c.noise_id == noise_id).scalar_subquery()
    connection.execute(  # it may have been posted while the machine was in that space
        delete(noise).where(
            noise.c.machine_key == machine_key,
            noise.c.embedding_space_id == embedding_space_id,
            noise.c.sha256 == same,
        )
    )
    packed = vectors.astype(DTYPE).tobytes()
    connection.execute(
        update(noise)
        .where(noise.c.noise_id == noise_id)
        .values(
            embedding_space_id=embedding_space_id,
            windows=len(vectors),
            vectors=packed,
            checksum=noise_checksum(machine_key, embedding_space_id, len(vectors), packed),
        )
    )


def check_noise(machine_key: int, rows: Sequence[StoredNoise]) -> None:
    """Raise ValueError if a row of a machine's noise is not what was written."""
    for row in rows:
        if noise_checksum(machine_key, row.embedding_space_id, row.windows, row.vectors) != row.checksum:
            raise ValueError(f"clip {row.noise_id} of the noise does not match its checksum")


def add_noise(
    connection: Connection, machine_key: int, embedding_space_id: str, new: NewNoise
) -> tuple[NoiseRecord, bool]:
    """Store a noise clip. Returns it and whether it was already there."""
    known = _noise_of_content(connection, machine_key, embedding_space_id, new.sha256)
    if known is None:
        _insert_noise(connection, machine_key, embedding_space_id, new)
    stored = known or _noise_of_content(connection, machine_key, embedding_space_id, new.sha256)
    assert stored is not None
    add_noise_audio(connection, stored.noise_id, new.audio)
    return stored, known is not None


@translate_row_errors()
def _noise_of_content(
    connection: Connection, machine_key: int, embedding_space_id: str, sha256: str
) -> NoiseRecord | None:
    row = (
        connection.execute(
            select(*_RECORD).where(
                noise.c.machine_key == machine_key,
                noise.c.sha256 == sha256,
                noise.c.embedding_space_id == embedding_space_id,
            )
        )
        .mappings()
        .one_or_none()
    )
    return None if row is None else NoiseRecord(**row)


def _insert_noise(connection: Connection, machine_key: int, embedding_space_id: str, new: NewNoise) -> None:
    vectors = new.vectors.astype(DTYPE).tobytes()
    connection.execute(
        insert(noise).values(
            machine_key=machine_key,
            embedding_space_id=embedding_space_id,
            sha256=new.sha256,
            name=new.name,
            seconds=new.seconds,
            windows=len(new.vectors),
            vectors=vectors,
            checksum=noise_checksum(machine_key, embedding_space_id, len(new.vectors), vectors),
            enrolled_at=datetime.now(UTC),
        )
    )


def check_noise_size(connection: Connection, machine_key: int) -> None:
    """Raise `OffkeyError` if a machine has too many windows of noise."""
    windows = connection.execute(
        select(func.sum(noise.c.windows)).where(noise.c.machine_key == machine_key)
    ).scalar_one()
    if windows > MAX_NOISE_WINDOWS:
        raise OffkeyError(
            ErrorKind.BANK_FULL,
            f"The machine would have {windows} windows of noise; the limit is {MAX_NOISE_WINDOWS}. Nothing was stored. "
            "A few clips of each background are enough.",
            windows=windows,
            max_noise_windows=MAX_NOISE_WINDOWS,
        )
