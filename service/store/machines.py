"""The rows of machines: found and read inside a transaction of the store."""

from datetime import UTC
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, func, select

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain, Rule
from service.store.records import MachineRecord
from service.store.schema import clip, machine


def machines() -> Select[Any]:
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


_OF_ID = machines().where(machine.c.machine_id == bindparam("machine_id"))
_OF_KEY = machines().where(machine.c.machine_key == bindparam("machine_key"))


def machine_of_id(connection: Connection, machine_id: str) -> MachineRecord:
    row = connection.execute(_OF_ID, {"machine_id": machine_id}).mappings().one_or_none()
    if row is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE,
            f"There is no machine {machine_id}. Check the id, or create it with PUT /machines/{machine_id}.",
        )
    return machine_record(row)


def machine_of_key(connection: Connection, seen: MachineRecord) -> MachineRecord:
    row = connection.execute(_OF_KEY, {"machine_key": seen.machine_key}).mappings().one_or_none()
    if row is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE,
            f"Machine {seen.machine_id} was deleted while its clips were on the way; nothing was enrolled.",
        )
    return machine_record(row)


def machine_record(row: RowMapping) -> MachineRecord:
    """The record of a row.

    Raises:
        ValueError: it cannot have been written. SQLite keeps bytes in a column of text, and a damaged page has them.
    """
    if not isinstance(row["machine_id"], str):
        raise ValueError(f"the id of a machine is {type(row['machine_id']).__name__}, not text")
    return MachineRecord(
        **{
            **row,
            "threshold_rule": Rule(row["threshold_rule"]),
            "created_at": row["created_at"].replace(tzinfo=UTC),
        }
    )
