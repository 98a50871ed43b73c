"""The two kinds of transaction: one that reads, as of one moment, and one that writes, alone."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from service.store.database.sqlite import check_in_place, file_identity
from service.store.errors import translate_errors


class Transactions:
    """Of one open database. Both raise `OffkeyError` where it is locked, full, damaged or out of reach.

    Attributes:
        memory: what was read since the last change, for what is asked with every request. Who reads takes it before,
            and puts what was read in there: if there was a change meanwhile, it is another one by then, and nobody
            will see it. One process at a time uses a data folder, so nobody else makes changes.
    """

    def __init__(self, engine: Engine, database: Path) -> None:
        self.memory: dict[Hashable, Any] = {}
        self._engine = engine
        self._database = database
        self._identity = file_identity(database)

    def check_in_place(self, connection: Connection) -> None:
        """Raise `OffkeyError` if the database was deleted or replaced."""
        check_in_place(connection, self._database, self._identity)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Everything read in the block is as of one moment."""
        with translate_errors(self._database.parent), self._engine.connect() as connection:
            self.check_in_place(connection)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """What is written in the block is on disk when it ends, or nothing of it is written."""
        try:
            with (
                translate_errors(self._database.parent),
                self._engine.connect().execution_options(write=True) as connection,
            ):
                self.check_in_place(connection)
                yield connection
                connection.commit()
                self.check_in_place(connection)  # or the commit went to a deleted file
        finally:
            self.memory = {}

    def recalled(self, key: Hashable) -> Any:
        """What `memory` has; None: nothing, or the database is no longer where it was, which is to be told."""
        return self.memory.get(key) if file_identity(self._database) == self._identity else None
