"""The only truth: machines, their clips and embeddings, in one database.

Every method is one transaction; a method that changes something has committed when it returns, and has written to the
audit log who did it. Every method raises `OffkeyError` where the database is locked, full, read-only, damaged or out of
reach, and where the caller's key is not for the machine.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, bindparam, delete, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Rule
from service.bank import BankRows, Known
from service.domain.access import COMMAND_LINE, Caller
from service.store.acoustics import COLUMNS
from service.store.audio import keep_missing_audio
from service.store.audit import Action, AuditRecord, audit_page, record
from service.store.bank_rows import bank_rows
from service.store.clip_counts import ClipCounts
from service.store.clips import add_clip, check_recording, check_size, clip_record, clips_by_content
from service.store.database.base import Transactions
from service.store.database.lock import FolderLock
from service.store.database.sqlite import DATABASE_FILE, open_engine
from service.store.errors import RETRY_AFTER_SECONDS, isolate_machine
from service.store.idempotency import AnsweredError, Once, earlier_answer, keep_answer
from service.store.jobs import Jobs, Step, take_step
from service.store.keys import Keys
from service.store.machines import machine_of_id, machine_of_key, machine_record, machines
from service.store.noise import Noise
from service.store.records import BankChangedError, BankLimits, ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.reembedding import Reembedding
from service.store.schema import acoustics, clip, deleted_machine, embedding, machine
from service.store.scores import Shift
from service.store.snapshot.restore import finish_restore

logger = logging.getLogger(__name__)

_MACHINE = "machine"  # in the memory of `Transactions`
_OF_BANK = select(machine.c.machine_id, machine.c.generation, machine.c.embedding_space_id).where(
    machine.c.machine_key == bindparam("machine_key")
)


class Store:
    """Machines and banks, kept durably. Safe to use from many threads."""

    def __init__(self, engine: Engine, database: Path, lock: FolderLock) -> None:
        self._engine = engine
        self._transactions = Transactions(engine, database)
        self._read, self._write = self._transactions.read, self._transactions.write
        self._lock = lock
        self._counts = ClipCounts()
        self._caller = COMMAND_LINE

    @classmethod
    def open(cls, data_dir: Path) -> Self:
        """Open the store of a data folder, creating and migrating it as needed.

        Raises:
            OSError: the folder cannot be made or written.
            OffkeyError: another process uses the folder, or as `open_engine` does.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context(FolderLock(data_dir))
            finish_restore(data_dir)
            engine = open_engine(data_dir)
            undo.pop_all()
        return cls(engine, data_dir / DATABASE_FILE, lock)

    def by(self, caller: Caller) -> Self:
        """The same store, for a caller: it does what the caller's key allows, and writes down who did it."""
        theirs = copy.copy(self)
        theirs._caller = caller
        return theirs

    @property
    def caller(self) -> Caller:
        """On whose behalf it works."""
        return self._caller

    @property
    def keys(self) -> Keys:
        """The API keys."""
        return Keys(self._transactions, self._caller)

    @property
    def shift(self) -> Shift:
        """What tells of shift."""
        return Shift(self._transactions)

    @property
    def noise(self) -> Noise:
        """The background of machines."""
        return Noise(self._transactions, self._caller)

    @property
    def reembedding(self) -> Reembedding:
        """What moves banks to another bundle."""
        return Reembedding(self._transactions, self._caller)

    @property
    def jobs(self) -> Jobs:
        """Work that outlasts a request."""
        return Jobs(self._transactions, self._caller)

    def audit(self, *, before: int, limit: int) -> list[AuditRecord]:
        """Return up to `limit` changes whose id is less than `before`, the newest first."""
        return audit_page(self._transactions, before, limit)

    def close(self) -> None:
        """Close every connection, and let another process have the folder."""
        self._engine.dispose()
        self._lock.close()

    def ping(self) -> None:
        """Read one row. Raises `OffkeyError` (not ready) where that is not possible, for whatever reason."""
        try:
            with self._engine.connect() as connection:
                self._transactions.check_in_place(connection)
                connection.execute(text("SELECT 1 FROM machine LIMIT 1"))
        except (SQLAlchemyError, OffkeyError, ValueError) as error:  # ValueError: a damaged name
            logger.exception("the store cannot be read")
            raise OffkeyError(
                ErrorKind.NOT_READY,
                "The store cannot be read; the log says why. Check the data folder.",
                retry_after=RETRY_AFTER_SECONDS,
            ) from error

    # -- machines

    def put_machine(self, machine_id: str, *, description: str) -> tuple[MachineRecord, bool]:
        """Create a machine or describe it anew; its bank is untouched. Returns it and whether it is new.

        The generation of one that is created is behind every one that a machine of this id ever had.
        """
        self._caller.check_machine(machine_id)
        with self._write() as connection:
            changed = connection.execute(
                update(machine).where(machine.c.machine_id == machine_id).values(description=description)
            ).rowcount
            if not changed:
                last = connection.execute(
                    select(deleted_machine.c.generation).where(deleted_machine.c.machine_id == machine_id)
                ).scalar_one_or_none()
                connection.execute(
                    insert(machine).values(
                        machine_id=machine_id,
                        generation=0 if last is None else last + 1,
                        created_at=datetime.now(UTC),
                        description=description,
                    )
                )
            action = Action.DESCRIBE_MACHINE if changed else Action.CREATE_MACHINE
            record(connection, self._caller, action, machine_id)
            return machine_of_id(connection, machine_id), not changed

    def put_threshold(
        self, machine_id: str, rule: Rule, *, false_alarm_rate: float | None, decision_threshold: float | None
    ) -> MachineRecord:
        """Replace how a machine's decision threshold is chosen. Raises `OffkeyError` (unknown machine)."""
        self._caller.check_machine(machine_id)
        with self._write() as connection:
            connection.execute(
                update(machine)
                .where(machine.c.machine_id == machine_id)
                .values(
                    threshold_rule=rule.value, false_alarm_rate=false_alarm_rate, decision_threshold=decision_threshold
                )
            )
            changed = machine_of_id(connection, machine_id)
            asked = decision_threshold if rule is Rule.MANUAL else false_alarm_rate
            detail = str(rule) if asked is None else f"{rule} {asked:g}"
            record(connection, self._caller, Action.CHANGE_THRESHOLD, machine_id, detail)
            return changed

    def machine(self, machine_id: str) -> MachineRecord:
        """Return a machine. Raises `OffkeyError` (unknown machine)."""
        self._caller.check_machine(machine_id)
        key = (_MACHINE, machine_id)
        known: MachineRecord | None = self._transactions.recalled(key)
        if known is None:
            memory = self._transactions.memory
            with self._read() as connection:
                known = memory[key] = machine_of_id(connection, machine_id)
        return known

    def machines(self, *, after: str, limit: int) -> list[MachineRecord]:
        """Return up to `limit` machines of the caller's whose id sorts behind `after`, by id."""
        prefix = self._caller.machine_prefix or ""
        theirs = func.substr(machine.c.machine_id, 1, len(prefix)) == prefix  # LIKE would take either case
        with self._read() as connection:
            rows = connection.execute(
                machines().where(machine.c.machine_id > after, theirs).order_by(machine.c.machine_id).limit(limit)
            ).mappings()
            return [machine_record(row) for row in rows]

    def delete_machine(self, machine_id: str) -> int:
        """Delete a machine with its bank and return its key. Raises `OffkeyError` (unknown machine)."""
        self._caller.check_machine(machine_id)
        with self._write() as connection:
            gone = machine_of_id(connection, machine_id)
            connection.execute(delete(machine).where(machine.c.machine_key == gone.machine_key))
            connection.execute(delete(deleted_machine).where(deleted_machine.c.machine_id == machine_id))
            connection.execute(insert(deleted_machine).values(machine_id=machine_id, generation=gone.generation))
            record(connection, self._caller, Action.DELETE_MACHINE, machine_id, f"{gone.clips} clips")
            return gone.machine_key

    # -- clips

    def clips(self, machine_id: str, *, after: int, limit: int) -> list[ClipRecord]:
        """Return up to `limit` clips whose id is greater than `after`, by id."""
        self._caller.check_machine(machine_id)
        windows = select(func.count()).where(embedding.c.clip_id == clip.c.clip_id).scalar_subquery().label("windows")
        with self._read() as connection:
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
        """Return a machine and which of these contents are enrolled, by sha256, both as of one moment.

        Raises:
            OffkeyError: unknown machine.
        """
        self._caller.check_machine(machine_id)
        with self._read() as connection:
            found = machine_of_id(connection, machine_id)
            return found, clips_by_content(connection, found.machine_key, sha256s)

    def add_clips(
        self,
        seen: MachineRecord,
        embedding_space_id: str,
        clips: Sequence[NewClip],
        *,
        known: Mapping[str, Enrolled],
        missing_audio: Mapping[int, bytes] | None = None,
        limits: BankLimits,
        action: Action = Action.ENROLL,
        once: Once | None = None,
        step: Callable[[Sequence[Enrolled]], Step] | None = None,
    ) -> tuple[list[Enrolled], MachineRecord]:
        """Enroll clips, all of them or none. Content that is enrolled already is not added again.

        Args:
            seen: the machine that the request is about.
            embedding_space_id: what the clips were embedded in.
            clips: to enroll.
            known: clips of the same request that `enrolled` found; they must be enrolled still.
            missing_audio: the files of those among them, by clip id, that were not kept and are to be.
            limits: of the bank.
            action: as it goes to the audit log.
            once: whose answer is kept with what it tells of.
            step: of a job, made of what became of the clips; written with them or not at all.

        Raises:
            AnsweredError: the same request was answered meanwhile.
            JobOverError: the job is over.
            BankChangedError: a known clip is no longer what it was, or the bank is of another embedding space; ask
                `enrolled` again.
            OffkeyError: the machine is gone; the same content, or a piece of the same recording, enrolled under the
                other domain; too many clips or windows.
        """
        self._caller.check_machine(seen.machine_id)
        with self._write() as connection:
            key = seen.machine_key
            grown = machine_of_key(connection, seen)
            if grown.embedding_space_id not in (None, embedding_space_id):
                raise BankChangedError  # it moved to another bundle while the clips were embedded
            if once and (answer := earlier_answer(connection, once.key, once.fingerprint)) is not None:
                raise AnsweredError(answer)
            if known and clips_by_content(connection, key, list(known)) != known:
                raise BankChangedError
            keep_missing_audio(connection, missing_audio or {})
            for recording, domain in {(new.recording, new.domain) for new in clips if new.recording is not None}:
                check_recording(connection, key, recording, domain)
            enrolled = [add_clip(connection, key, new) for new in clips]
            added = [str(one.clip_id) for one in enrolled if not one.duplicate]
            if added:
                connection.execute(
                    update(machine)
                    .where(machine.c.machine_key == key)
                    .values(embedding_space_id=embedding_space_id, generation=machine.c.generation + 1)
                )
                grown = machine_of_key(connection, seen)
                check_size(connection, grown, limits)
                detail = f"{len(added)} {clips[0].domain} clips from id {added[0]}, generation {grown.generation}"
                record(connection, self._caller, action, grown.machine_id, detail)
            if once:
                keep_answer(connection, once, key, once.answer(enrolled, grown))
            if step:
                take_step(connection, step(enrolled))
            return enrolled, grown

    def earlier_answer(self, key: str, fingerprint: str) -> str | None:
        """Return what a request with this `Idempotency-Key` was answered.

        Raises:
            OffkeyError: it was another request.
        """
        with self._read() as connection:
            return earlier_answer(connection, key, fingerprint)

    def delete_clip(self, machine_id: str, clip_id: int) -> MachineRecord:
        """Take a clip out of the bank. Raises `OffkeyError` (unknown machine or clip)."""
        self._caller.check_machine(machine_id)
        with self._write() as connection:
            found = machine_of_id(connection, machine_id)
            gone = connection.execute(
                delete(clip).where(clip.c.machine_key == found.machine_key, clip.c.clip_id == clip_id)
            ).rowcount
            if not gone:
                raise OffkeyError(
                    ErrorKind.UNKNOWN_CLIP,
                    f"Machine {machine_id} has no clip {clip_id}. GET /machines/{machine_id}/clips lists them.",
                )
            values: dict[str, Any] = {"generation": machine.c.generation + 1}
            if found.clips == 1:  # an empty bank belongs to no space: the next clip may come from any bundle
                values["embedding_space_id"] = None
            connection.execute(update(machine).where(machine.c.machine_key == found.machine_key).values(**values))
            record(connection, self._caller, Action.DELETE_CLIP, machine_id, f"clip {clip_id}")
            return machine_of_id(connection, machine_id)

    def bank_rows(self, machine_key: int, known: Known = lambda _: False) -> BankRows:
        """Return all enrolled windows of a machine, as of one generation.

        Args:
            machine_key: whose.
            known: asked with what scores need of the rows. Where it says so, the rest of them is `Unread`; else it is
                read, as of the same moment.

        Raises:
            OffkeyError: the machine was deleted, or what is stored of it is damaged.
        """
        with self._read() as connection:
            found = connection.execute(_OF_BANK, {"machine_key": machine_key}).one_or_none()
            if found is None:
                raise OffkeyError(ErrorKind.UNKNOWN_MACHINE, "The machine was deleted while it was scored.")
            with isolate_machine(found.machine_id):
                return bank_rows(
                    connection, self._counts, machine_key, found.generation, found.embedding_space_id, known
                )
