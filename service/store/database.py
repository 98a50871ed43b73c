"""The opened database, and the two ways into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine

from service.store.engine import check_in_place, file_identity
from service.store.failures import explained
from service.store.lock import FolderLock


class Database:
    """What all parts of the store share: transactions that raise `OffkeyError` where the database cannot be used."""

    def __init__(self, engine: Engine, database: Path, lock: FolderLock) -> None:
        self._engine = engine
        self._database = database
        self._identity = file_identity(database)
        self._lock = lock

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with explained(), self._engine.connect() as connection:
            check_in_place(connection, self._database, self._identity)
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with explained(), self._engine.connect().execution_options(write=True) as connection:
            check_in_place(connection, self._database, self._identity)
            yield connection
            connection.commit()
            check_in_place(connection, self._database, self._identity)  # or the commit went to a deleted file
