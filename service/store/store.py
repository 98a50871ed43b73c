"""Open the store of a data folder, read from it, and begin units of work.

Every method raises `OffkeyError` where the database is locked, full, read-only, damaged or unreachable, and where the
key of the caller does not cover the machine.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError

from offkey.errors import ErrorKind, OffkeyError
from service.bank.rows import BankChangedError, BankRows, CalibrationRows
from service.domain.access import COMMAND_LINE, Caller
from service.store.acoustics import COLUMNS
from service.store.audit import AuditRecord, audit_page
from service.store.bank_rows import bank_rows, calibration_rows
from service.store.clip_counts import ClipCounts
from service.store.clips import clip_record, clips_by_content
from service.store.database.base import Database, VersionedCache
from service.store.database.lock import FolderLock
from service.store.database.sqlite import SqliteDatabase
from service.store.errors import RETRY_AFTER_SECONDS, isolate_machine
from service.store.idempotency import IdempotencyKey, find_response
from service.store.jobs import Jobs
from service.store.keys import Keys
from service.store.machines import machine_of_id, machine_record, machines
from service.store.noise import Noise
from service.store.records import ClipRecord, Enrolled, MachineRecord
from service.store.reembedding import Reembedding
from service.store.schema import acoustics, clip, embedding, machine
from service.store.scores import RecentScores
from service.store.snapshot.restore import finish_restore
from service.store.snapshot.write import write_snapshot_of_service
from service.store.transaction import Transaction

logger = logging.getLogger(__name__)

_OF_BANK = select(machine.c.machine_id, machine.c.generation, machine.c.embedding_space_id).where(
    machine.c.machine_key == bindparam("machine_key")
)


class Store:
    """Machines and banks, stored durably. Safe to use from many threads."""

    def __init__(self, database: Database, data_dir: Path, lock: FolderLock) -> None:
        self._database = database
        self._data_dir = data_dir
        self._cache = VersionedCache(database)
        self._lock = lock
        self._counts = ClipCounts()
        self._caller = COMMAND_LINE

    @classmethod
    def open(cls, data_dir: Path) -> Self:
        """Open the store of a data folder. Creates and migrates it as needed.

        Raises:
            OSError: the folder cannot be created or written.
            OffkeyError: another process uses the folder, or as `SqliteDatabase` does.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context(FolderLock(data_dir))
            finish_restore(data_dir)
            database = SqliteDatabase(data_dir)
            undo.pop_all()
        return cls(database, data_dir, lock)

    def by(self, caller: Caller) -> Self:
        """Return the same store for a caller: restricted to what the key allows, and audited in its name."""
        theirs = object.__new__(type(self))
        theirs.__dict__.update(self.__dict__, _caller=caller)
        return theirs

    @contextmanager
    def begin(self, machine: MachineRecord | str | None = None) -> Iterator[Transaction]:
        """Begin a unit of work. It is committed when the block ends, and rolled back if the block raises.

        Args:
            machine: machine whose row is locked until the end, by id or as an earlier read returned it. None for work
                about no machine.

        Raises:
            OffkeyError: there is no such machine, or it was deleted since the record was read.
        """
        with self._database.write() as connection:
            tx = Transaction(connection, self._caller)
            if machine is not None:
                tx.lock(machine)
            yield tx

    @property
    def keys(self) -> Keys:
        """API keys."""
        return Keys(self._database, self._cache)

    @property
    def scores(self) -> RecentScores:
        """Recent scores, and the acoustics of enrolled clips."""
        return RecentScores(self._database)

    @property
    def noise(self) -> Noise:
        """Noise clips of machines."""
        return Noise(self._database)

    @property
    def reembedding(self) -> Reembedding:
        """What moving banks to another bundle reads."""
        return Reembedding(self._database)

    @property
    def jobs(self) -> Jobs:
        """Jobs that the caller may see."""
        return Jobs(self._database, self._caller)

    def write_snapshot(self, target: Path) -> None:
        """Write a snapshot of the store to a file. Raises `OffkeyError`: the store is damaged, or the disk is full."""
        write_snapshot_of_service(self._data_dir, target)

    def close(self) -> None:
        """Close every connection, and release the folder."""
        self._database.close()
        self._lock.close()

    def ping(self) -> None:
        """Read one row. Raises `OffkeyError` (not ready) where that is not possible, for whatever reason."""
        try:
            self._database.ping()
        except (SQLAlchemyError, OffkeyError, ValueError) as error:  # ValueError: a damaged name
            logger.exception("the store cannot be read")
            raise OffkeyError(
                ErrorKind.NOT_READY,
                "The store cannot be read; see the log. Check the data folder.",
                retry_after=RETRY_AFTER_SECONDS,
            ) from error

    def audit(self, *, before: int, limit: int) -> list[AuditRecord]:
        """Return up to `limit` changes whose id is less than `before`, newest first."""
        with self._database.read() as connection:
            return audit_page(connection, before, limit)

    def find_response(self, key: IdempotencyKey) -> str | None:
        """Return the stored response to a request with this key. Raises `OffkeyError`: it was another request."""
        with self._database.read() as connection:
            return find_response(connection, key)

    def machine(self, machine_id: str) -> MachineRecord:
        """Return a machine. Raises `OffkeyError` (unknown machine)."""
        self._caller.check_machine(machine_id)
        key = ("machine", machine_id)
        cached: MachineRecord | None = self._cache.get(key)
        return cached or self._cache.read(key, lambda connection: machine_of_id(connection, machine_id))

    def machines(self, *, after: str, limit: int) -> list[MachineRecord]:
        """Return up to `limit` machines of the caller whose id sorts after `after`, by id."""
        prefix = self._caller.machine_prefix or ""
        theirs = func.substr(machine.c.machine_id, 1, len(prefix)) == prefix  # LIKE would ignore the case
        with self._database.read() as connection:
            rows = connection.execute(
                machines().where(machine.c.machine_id > after, theirs).order_by(machine.c.machine_id).limit(limit)
            ).mappings()
            return [machine_record(row) for row in rows]

    def clips(self, machine_id: str, *, after: int, limit: int) -> list[ClipRecord]:
        """Return up to `limit` clips of a machine whose id is greater than `after`, by id."""
        self._caller.check_machine(machine_id)
        windows = select(func.count()).where(embedding.c.clip_id == clip.c.clip_id).scalar_subquery().label("windows")
        with self._database.read() as connection:
            key = machine_of_id(connection, machine_id).machine_key
            rows = connection.execute(
                select(clip, windows, *COLUMNS)
                .join(acoustics, acoustics.c.clip_id == clip.c.clip_id, isouter=True)
                .where(clip.c.machine_key == key, clip.c.clip_id > after)
                .order_by(clip.c.clip_id)
                .limit(limit)
            ).mappings()
            return [clip_record(row) for row in rows]

    def enrolled(self, machine_id: str, sha256s: Sequence[str]) -> tuple[MachineRecord, dict[str, Enrolled]]:
        """Return a machine and which of these contents are enrolled, by sha256, as of one moment.

        Raises:
            OffkeyError: unknown machine.
        """
        self._caller.check_machine(machine_id)
        with self._database.read() as connection:
            found = machine_of_id(connection, machine_id)
            return found, clips_by_content(connection, found.machine_key, sha256s)

    def bank_rows(self, machine_key: int) -> BankRows:
        """Return all enrolled windows of a machine, as of one generation.

        Raises:
            OffkeyError: the machine was deleted, or its rows are damaged.
        """
        with self._reading_bank(machine_key) as (connection, generation, embedding_space_id):
            return bank_rows(connection, self._counts, machine_key, generation, embedding_space_id)

    def calibration_rows(self, machine_key: int, generation: int) -> CalibrationRows:
        """Return the acoustics and spectrograms of a machine's windows.

        Raises:
            BankChangedError: the bank is at another generation.
            OffkeyError: the machine was deleted, or its rows are damaged.
        """
        with self._reading_bank(machine_key) as (connection, found, _):
            if found != generation:
                raise BankChangedError
            return calibration_rows(connection, machine_key)

    def all_rows(self, machine_key: int) -> tuple[BankRows, CalibrationRows]:
        """Return what `bank_rows` and `calibration_rows` return, as of one moment. Raises as `bank_rows` does."""
        with self._reading_bank(machine_key) as (connection, generation, embedding_space_id):
            rows = bank_rows(connection, self._counts, machine_key, generation, embedding_space_id)
            return rows, calibration_rows(connection, machine_key)

    @contextmanager
    def _reading_bank(self, machine_key: int) -> Iterator[tuple[Connection, int, str | None]]:
        """Read about one bank: yields the connection, the generation and the embedding space."""
        with self._database.read() as connection:
            found = connection.execute(_OF_BANK, {"machine_key": machine_key}).one_or_none()
            if found is None:
                raise OffkeyError(ErrorKind.UNKNOWN_MACHINE, "The machine was deleted while it was scored.")
            with isolate_machine(found.machine_id):
                yield connection, found.generation, found.embedding_space_id
