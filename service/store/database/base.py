"""Define what the store needs of a database, and caches that stay correct when other processes write."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, select

from service.store.schema import machine

T = TypeVar("T")


class Database(ABC):
    """One open database. Its methods raise `OffkeyError` where it is locked, full, damaged or unreachable."""

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """Start a transaction that reads. Everything in the block is read as of one moment.

        The block contains code of the store only: a ValueError or TypeError in it is reported as damaged rows.
        """

    @abstractmethod
    def write(self) -> AbstractContextManager[Connection]:
        """Start a transaction that writes. It is on disk when the block ends, or rolled back if the block raises."""

    @abstractmethod
    def version(self) -> Hashable | None:
        """Return a value that changes with every commit of any process. None if the database cannot be reached."""

    @abstractmethod
    def ping(self) -> None:
        """Read one row. Raises any exception where that is not possible."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection."""


def lock_machine(connection: Connection, wanted: ColumnElement[bool]) -> None:
    """Lock the row of the wanted machine until the transaction ends, so that changes to it happen one after another.

    The only place that locks the row of a machine. SQLite has no row locks: there, one transaction at a time writes.
    """
    connection.execute(select(machine.c.machine_key).where(wanted).with_for_update())


class VersionedCache:
    """Caches values read from a database. A value is valid until any process commits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cached: tuple[Hashable | None, dict[Hashable, Any]] = (None, {})

    def get(self, key: Hashable) -> Any | None:
        """Return a cached value that is current. None if there is none."""
        version, values = self._cached
        return values.get(key) if version is not None and self._database.version() == version else None

    def read(self, key: Hashable, load: Callable[[Connection], T]) -> T:
        """Read a value in a transaction of its own and cache it. None is not cached."""
        # Before the transaction begins: a commit in between makes the entry too old, never too new.
        version = self._database.version()
        with self._database.read() as connection:
            value = load(connection)
        if version is not None and value is not None:
            if self._cached[0] != version:
                self._cached = (version, {})
            cached_version, values = self._cached
            if cached_version == version:
                values[key] = value
        return value
