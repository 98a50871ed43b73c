"""The only truth: machines, their clips and embeddings, in one database.

Every method is one transaction; a method that changes something has committed when it returns. Every method
raises `OffkeyError` where the database is locked, full, read-only, damaged or out of reach.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from service.bank import BankRows
from service.domain.errors import ErrorKind, OffkeyError
from service.domain.machine import Domain
from service.domain.threshold import Rule
from service.store.answered import AnsweredError, Once, earlier_answer, keep_answer
from service.store.bank_rows import bank_rows
from service.store.condition_rows import add_conditions
from service.store.engine import DATABASE_FILE, check_in_place, open_engine
from service.store.failures import RETRY_AFTER_SECONDS, quarantined
from service.store.lock import FolderLock
from service.store.noise import NoiseTable
from service.store.records import BankLimits, ClipRecord, Enrolled, MachineRecord, NewClip
from service.store.restore import finish_restore
from service.store.schema import clip, embedding, machine, retired
from service.store.shift import ShiftTables
from service.store.vectors import DTYPE, checksum

logger = logging.getLogger(__name__)


class BankChangedError(Exception):
    """Another request changed what this one relies on; nothing was written."""


class Store(ShiftTables, NoiseTable):
    """Machines and banks, kept durably. Safe to use from many threads."""

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

    def close(self) -> None:
        """Close every connection, and let another process have the folder."""
        self._engine.dispose()
        self._lock.close()

    def ping(self) -> None:
        """Read one row. Raises `OffkeyError` (not ready) where that is not possible, for whatever reason."""
        try:
            with self._engine.connect() as connection:
                check_in_place(connection, self._database, self._identity)
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
        with self._write() as connection:
            changed = connection.execute(
                update(machine).where(machine.c.machine_id == machine_id).values(description=description)
            ).rowcount
            if not changed:
                last = connection.execute(
                    select(retired.c.generation).where(retired.c.machine_id == machine_id)
                ).scalar_one_or_none()
                connection.execute(
                    insert(machine).values(
                        machine_id=machine_id,
                        generation=0 if last is None else last + 1,
                        created_at=datetime.now(UTC),
                        description=description,
                    )
                )
            return _machine(connection, machine_id), not changed

    def put_threshold(
        self, machine_id: str, rule: Rule, *, false_alarm_rate: float | None, decision_threshold: float | None
    ) -> MachineRecord:
        """Replace how a machine's decision threshold is chosen. Raises `OffkeyError` (unknown machine)."""
        with self._write() as connection:
            connection.execute(
                update(machine)
                .where(machine.c.machine_id == machine_id)
                .values(
                    threshold_rule=rule.value, false_alarm_rate=false_alarm_rate, decision_threshold=decision_threshold
                )
            )
            return _machine(connection, machine_id)

    def machine(self, machine_id: str) -> MachineRecord:
        """Return a machine. Raises `OffkeyError` (unknown machine)."""
        with self._read() as connection:
            return _machine(connection, machine_id)

    def machines(self, *, after: str, limit: int) -> list[MachineRecord]:
        """Return up to `limit` machines whose id sorts behind `after`, by id."""
        with self._read() as connection:
            rows = connection.execute(
                _machines().where(machine.c.machine_id > after).order_by(machine.c.machine_id).limit(limit)
            ).mappings()
            return [_machine_record(row) for row in rows]

    def delete_machine(self, machine_id: str) -> int:
        """Delete a machine with its bank and return its key. Raises `OffkeyError` (unknown machine)."""
        with self._write() as connection:
            record = _machine(connection, machine_id)
            connection.execute(delete(machine).where(machine.c.machine_key == record.machine_key))
            connection.execute(delete(retired).where(retired.c.machine_id == machine_id))
            connection.execute(insert(retired).values(machine_id=machine_id, generation=record.generation))
            return record.machine_key

    # -- clips

    def clips(self, machine_id: str, *, after: int, limit: int) -> list[ClipRecord]:
        """Return up to `limit` clips whose id is greater than `after`, by id."""
        windows = select(func.count()).where(embedding.c.clip_id == clip.c.clip_id).scalar_subquery().label("windows")
        with self._read() as connection:
            key = _machine(connection, machine_id).machine_key
            rows = connection.execute(
                select(clip, windows)
                .where(clip.c.machine_key == key, clip.c.clip_id > after)
                .order_by(clip.c.clip_id)
                .limit(limit)
            ).mappings()
            return [_clip_record(row) for row in rows]

    def enrolled(self, machine_id: str, sha256s: Sequence[str]) -> tuple[MachineRecord, dict[str, Enrolled]]:
        """Return a machine and which of these contents are enrolled, by sha256, both as of one moment.

        Raises:
            OffkeyError: unknown machine.
        """
        with self._read() as connection:
            record = _machine(connection, machine_id)
            return record, _enrolled(connection, record.machine_key, sha256s)

    def add_clips(
        self,
        seen: MachineRecord,
        embedding_space_id: str,
        clips: Sequence[NewClip],
        *,
        known: Mapping[str, Enrolled],
        limits: BankLimits,
        once: Once | None = None,
    ) -> tuple[list[Enrolled], MachineRecord]:
        """Enroll clips, all of them or none. Content that is enrolled already is not added again.

        Args:
            seen: the machine that the request is about.
            embedding_space_id: what the clips were embedded in.
            clips: to enroll.
            known: clips of the same request that `enrolled` found; they must be enrolled still.
            limits: of the bank.
            once: whose answer is kept with what it tells of.

        Raises:
            AnsweredError: the same request was answered meanwhile.
            BankChangedError: a known clip is no longer what it was; ask `enrolled` again.
            OffkeyError: the machine is gone; a bank of another embedding space; the same content, or a piece of
                the same recording, enrolled under the other domain; too many clips or windows.
        """
        with self._write() as connection:
            key = seen.machine_key
            record = _machine_of_key(connection, seen)
            check_space(record, embedding_space_id)
            if once and (answer := earlier_answer(connection, once.key, once.fingerprint)) is not None:
                raise AnsweredError(answer)
            if _enrolled(connection, key, list(known)) != known:
                raise BankChangedError
            for recording, domain in {(new.recording, new.domain) for new in clips if new.recording is not None}:
                _check_recording(connection, key, recording, domain)
            enrolled = [_add_clip(connection, key, new) for new in clips]
            added = sum(not one.duplicate for one in enrolled)
            if added:
                connection.execute(
                    update(machine)
                    .where(machine.c.machine_key == key)
                    .values(embedding_space_id=embedding_space_id, generation=machine.c.generation + 1)
                )
                record = _machine_of_key(connection, seen)
                _check_size(connection, record, limits)
            if once:
                keep_answer(connection, once, key, once.answer(enrolled, record))
            return enrolled, record

    def earlier_answer(self, key: str, fingerprint: str) -> str | None:
        """Return what a request with this `Idempotency-Key` was answered.

        Raises:
            OffkeyError: it was another request.
        """
        with self._read() as connection:
            return earlier_answer(connection, key, fingerprint)

    def delete_clip(self, machine_id: str, clip_id: int) -> MachineRecord:
        """Take a clip out of the bank. Raises `OffkeyError` (unknown machine or clip)."""
        with self._write() as connection:
            record = _machine(connection, machine_id)
            gone = connection.execute(
                delete(clip).where(clip.c.machine_key == record.machine_key, clip.c.clip_id == clip_id)
            ).rowcount
            if not gone:
                raise OffkeyError(
                    ErrorKind.UNKNOWN_CLIP,
                    f"Machine {machine_id} has no clip {clip_id}. GET /machines/{machine_id}/clips lists them.",
                )
            values: dict[str, Any] = {"generation": machine.c.generation + 1}
            if record.clips == 1:  # an empty bank belongs to no space: the next clip may come from any bundle
                values["embedding_space_id"] = None
            connection.execute(update(machine).where(machine.c.machine_key == record.machine_key).values(**values))
            return _machine(connection, machine_id)

    def bank_rows(self, machine_key: int) -> BankRows:
        """Return all enrolled windows of a machine, as of one generation.

        Raises:
            OffkeyError: the machine was deleted, or what is stored of it is damaged.
        """
        with self._read() as connection:
            found = connection.execute(
                select(machine.c.machine_id, machine.c.generation).where(machine.c.machine_key == machine_key)
            ).one_or_none()
            if found is None:
                raise OffkeyError(ErrorKind.UNKNOWN_MACHINE, "The machine was deleted while it was scored.")
            with quarantined(found.machine_id):
                return bank_rows(connection, machine_key, found.generation)


def _machines() -> Select[Any]:
    def clips_of(domain: Domain) -> Any:
        return (
            select(func.count())
            .where(clip.c.machine_key == machine.c.machine_key, clip.c.domain == domain.value)
            .scalar_subquery()
        )

    return select(
        machine,
        clips_of(Domain.SOURCE).label("source_clips"),
        clips_of(Domain.TARGET).label("target_clips"),
    )


def _machine(connection: Connection, machine_id: str) -> MachineRecord:
    row = connection.execute(_machines().where(machine.c.machine_id == machine_id)).mappings().one_or_none()
    if row is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE,
            f"There is no machine {machine_id}. Check the id, or create it with PUT /machines/{machine_id}.",
        )
    return _machine_record(row)


def _machine_of_key(connection: Connection, seen: MachineRecord) -> MachineRecord:
    row = connection.execute(_machines().where(machine.c.machine_key == seen.machine_key)).mappings().one_or_none()
    if row is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE,
            f"Machine {seen.machine_id} was deleted while its clips were on the way; nothing was enrolled.",
        )
    return _machine_record(row)


def _machine_record(row: RowMapping) -> MachineRecord:
    return MachineRecord(
        **{
            **row,
            "threshold_rule": Rule(row["threshold_rule"]),
            "created_at": row["created_at"].replace(tzinfo=UTC),
        }
    )


def _clip_record(row: RowMapping) -> ClipRecord:
    values = {name: value for name, value in row.items() if name != "machine_key"}
    return ClipRecord(
        **{**values, "domain": Domain(row["domain"]), "enrolled_at": row["enrolled_at"].replace(tzinfo=UTC)}
    )


def check_same_domain(known: Enrolled, name: str, domain: Domain) -> Enrolled:
    """Return `known`. Raises `OffkeyError` if the clip is to be enrolled under another domain than it is."""
    if known.domain is not domain:
        raise OffkeyError(
            ErrorKind.DOMAIN_CONFLICT,
            f"{name} is enrolled as clip {known.clip_id} of the {known.domain} domain already. Delete that clip "
            f"first to enroll it as {domain}.",
            clip=name,
        )
    return known


def check_space(record: MachineRecord, embedding_space_id: str) -> None:
    """Raise `OffkeyError` if the machine's bank was made in another embedding space."""
    if record.embedding_space_id not in (None, embedding_space_id):
        raise OffkeyError(
            ErrorKind.EMBEDDING_SPACE_MISMATCH,
            f"The bank of machine {record.machine_id} was made by {record.embedding_space_id}, the service "
            f"runs {embedding_space_id}; their distances mean nothing to each other. Serve the old bundle, or "
            "delete the machine and enroll its clips again.",
            bank=str(record.embedding_space_id),
            service=embedding_space_id,
        )


def _enrolled(connection: Connection, machine_key: int, sha256s: Sequence[str]) -> dict[str, Enrolled]:
    rows = connection.execute(
        select(clip.c.sha256, clip.c.clip_id, clip.c.domain, clip.c.recording).where(
            clip.c.machine_key == machine_key, clip.c.sha256.in_(sha256s)
        )
    )
    return {row.sha256: Enrolled(row.clip_id, Domain(row.domain), row.recording, duplicate=True) for row in rows}


def _check_recording(connection: Connection, machine_key: int, recording: str, domain: Domain) -> None:
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


def _check_size(connection: Connection, grown: MachineRecord, limits: BankLimits) -> None:
    windows = connection.execute(
        select(func.count()).join_from(embedding, clip).where(clip.c.machine_key == grown.machine_key)
    ).scalar_one()
    for count, limit, unit in ((grown.clips, limits.clips, "clips"), (windows, limits.windows, "windows")):
        if count > limit:
            raise OffkeyError(
                ErrorKind.BANK_FULL,
                f"Machine {grown.machine_id} would have {count} {unit}; the limit is {limit}. Nothing was enrolled. "
                "Delete clips that are no longer typical.",
                **{unit: count, f"max_{unit}_per_machine": limit},
            )


def _add_clip(connection: Connection, machine_key: int, new: NewClip) -> Enrolled:
    known = _enrolled(connection, machine_key, [new.sha256]).get(new.sha256)
    if known is not None:
        return check_same_domain(known, new.name, new.domain)
    clip_id = connection.execute(
        insert(clip)
        .values(
            machine_key=machine_key,
            sha256=new.sha256,
            name=new.name,
            recording=new.recording,
            domain=new.domain.value,
            seconds=new.seconds,
            sample_rate=new.sample_rate,
            channels=new.channels,
            enrolled_at=datetime.now(UTC),
        )
        .returning(clip.c.clip_id)
    ).scalar_one()
    rows, windows = [], len(new.vectors)
    for window, (start_s, values) in enumerate(zip(new.starts.tolist(), new.vectors, strict=True)):
        vector = values.astype(DTYPE).tobytes()
        written = checksum(machine_key, new.domain, clip_id, window, windows, start_s, vector)
        rows.append({"clip_id": clip_id, "window": window, "start_s": start_s, "vector": vector, "checksum": written})
    connection.execute(insert(embedding), rows)
    add_conditions(connection, clip_id, new.conditions)
    return Enrolled(clip_id, new.domain, new.recording, duplicate=False)
