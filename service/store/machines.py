"""Read the rows of machines."""

from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, func, select

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain, Rule
from service.store.errors import translate_row_errors
from service.store.records import MachineRecord
from service.store.schema import clip, machine


def machines() -> Select[Any]:
    """Return the query of machines with the size of their banks."""

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


@translate_row_errors()
def machine_of_id(connection: Connection, machine_id: str) -> MachineRecord:
    """Return a machine by its id. Raises `OffkeyError` (unknown machine)."""
    row = connection.execute(_OF_ID, {"machine_id": machine_id}).mappings().one_or_none()
    if row is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE,
            f"There is no machine {machine_id}. Check the id, or create it with PUT /machines/{machine_id}.",
        )
    return machine_record(row)


@translate_row_errors()
def machine_of_key(connection: Connection, seen: MachineRecord) -> MachineRecord:
    """Return the machine of an earlier record. Raises `OffkeyError`: it was deleted since."""
    row = connection.execute(_OF_KEY, {"machine_key": seen.machine_key}).mappings().one_or_none()
    if row is None:
        raise OffkeyError(
            ErrorKind.UNKNOWN_MACHINE,
            f"Machine {seen.machine_id} was deleted during the request; nothing was written.",
        )
    return machine_record(row)


def machine_record(row: RowMapping) -> MachineRecord:
    """Convert a row.

    Raises:
        ValueError: it cannot have been written. SQLite stores bytes in a text column, and a damaged page may hold them.
    """
    if not isinstance(row["machine_id"], str):
        raise ValueError(f"the id of a machine is {type(row['machine_id']).__name__}, not text")
    return MachineRecord(
        **{
            **row,
            "threshold_rule": Rule(row["threshold_rule"]),
        }
    )
