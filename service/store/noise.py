"""Clips of the background without the machine, by which it is told that a clip does not hold the machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from offkey.errors import ErrorKind, OffkeyError
from service.domain.access import Caller
from service.domain.distance import Vectors
from service.store.audio import keep_noise_audio
from service.store.audit import Action, record
from service.store.database.base import Transactions
from service.store.embeddings import DTYPE, noise_checksum, stacked
from service.store.schema import machine, noise

MAX_NOISE_WINDOWS = 1_000  # of a machine

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
    """A clip of the background, embedded."""

    sha256: str
    name: str
    seconds: float
    vectors: Vectors  # (windows, dim)
    audio: bytes | None = field(default=None, repr=False)  # the file; None: it is not to be kept


@dataclass(frozen=True)
class NoiseRecord:
    """A stored clip of the background."""

    noise_id: int
    name: str
    sha256: str
    seconds: float
    windows: int
    enrolled_at: datetime


class Noise:
    """The part of the store that knows the background, for one caller. Every change moves the generation on."""

    def __init__(self, transactions: Transactions, caller: Caller) -> None:
        self._read, self._write = transactions.read, transactions.write
        self._caller = caller

    def add(
        self, machine_key: int, embedding_space_id: str, clips: Sequence[NewNoise]
    ) -> list[tuple[NoiseRecord, bool]]:
        """Keep clips, all or none. Returns each and whether it was there already.

        Raises:
            OffkeyError: the machine was deleted meanwhile, or it would have too many windows.
        """
        with self._write() as connection:
            machine_id = self._machine_id(connection, machine_key)
            added = [_add(connection, machine_key, embedding_space_id, new) for new in clips]
            if new := sum(not known for _, known in added):
                _move_on(connection, machine_key)
                _check_size(connection, machine_key)
                record(connection, self._caller, Action.ADD_NOISE, machine_id, f"{new} clips")
            return added

    def list(self, machine_key: int) -> list[NoiseRecord]:
        """What is kept for a machine, by id."""
        with self._read() as connection:
            rows = connection.execute(
                select(*_RECORD).where(noise.c.machine_key == machine_key).order_by(noise.c.noise_id)
            ).mappings()
            return [_noise_record(row) for row in rows]

    def delete(self, machine_key: int, noise_id: int) -> None:
        """Forget one. Raises `OffkeyError` (unknown clip)."""
        with self._write() as connection:
            machine_id = self._machine_id(connection, machine_key)
            gone = connection.execute(
                delete(noise).where(noise.c.machine_key == machine_key, noise.c.noise_id == noise_id)
            ).rowcount
            if not gone:
                raise OffkeyError(
                    ErrorKind.UNKNOWN_CLIP,
                    f"The machine has no noise clip {noise_id}. GET /machines/{{machine_id}}/noise lists them.",
                )
            _move_on(connection, machine_key)
            record(connection, self._caller, Action.DELETE_NOISE, machine_id, f"noise {noise_id}")

    def _machine_id(self, connection: Connection, machine_key: int) -> str:
        found = connection.execute(select(machine.c.machine_id).where(machine.c.machine_key == machine_key)).scalar()
        if found is None:
            raise OffkeyError(ErrorKind.UNKNOWN_MACHINE, "The machine was deleted while its noise was on the way.")
        self._caller.check_machine(found)
        return str(found)


def noise_vectors(connection: Connection, machine_key: int, width: int) -> Vectors:
    """Embeddings `(windows, width)` of a machine's background, of those in the space that its bank is in.

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
    """What a score may depend on of a row of `noise`."""

    noise_id: int
    embedding_space_id: str
    windows: int
    vectors: bytes
    checksum: int


def move_noise(
    connection: Connection, machine_key: int, noise_id: int, embedding_space_id: str, vectors: Vectors
) -> None:
    """Replace what a clip sounds like by what another bundle makes of it, `(windows, dim)`."""
    same = select(noise.c.sha256).where(noise.c.noise_id == noise_id).scalar_subquery()
    connection.execute(  # it may have been posted while the machine was in that space before
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
    """Raise ValueError if a row of a machine's background is not what was written."""
    for row in rows:
        if noise_checksum(machine_key, row.embedding_space_id, row.windows, row.vectors) != row.checksum:
            raise ValueError(f"clip {row.noise_id} of the noise does not fit its checksum")


def _add(connection: Connection, machine_key: int, embedding_space_id: str, new: NewNoise) -> tuple[NoiseRecord, bool]:
    same = select(*_RECORD).where(
        noise.c.machine_key == machine_key,
        noise.c.sha256 == new.sha256,
        noise.c.embedding_space_id == embedding_space_id,
    )
    known = connection.execute(same).mappings().one_or_none()
    if known is None:
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
    kept = _noise_record(connection.execute(same).mappings().one())
    keep_noise_audio(connection, kept.noise_id, new.audio)
    return kept, known is not None


def _check_size(connection: Connection, machine_key: int) -> None:
    windows = connection.execute(
        select(func.sum(noise.c.windows)).where(noise.c.machine_key == machine_key)
    ).scalar_one()
    if windows > MAX_NOISE_WINDOWS:
        raise OffkeyError(
            ErrorKind.BANK_FULL,
            f"The machine would have {windows} windows of noise; the limit is {MAX_NOISE_WINDOWS}. Nothing was kept. "
            "A few clips of each background are enough.",
            windows=windows,
            max_noise_windows=MAX_NOISE_WINDOWS,
        )


def _move_on(connection: Connection, machine_key: int) -> None:
    connection.execute(
        update(machine).where(machine.c.machine_key == machine_key).values(generation=machine.c.generation + 1)
    )


def _noise_record(row: RowMapping) -> NoiseRecord:
    return NoiseRecord(**{**row, "enrolled_at": row["enrolled_at"].replace(tzinfo=UTC)})
