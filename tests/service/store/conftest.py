"""Fixtures of the store's tests: a store of the test, and writers that are not this store."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from service.store import Store
from service.store.database.lock import FolderLock
from service.store.database.sqlite import DATABASE_FILE, SqliteDatabase

_EXECUTE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
with database:
    for statement in sys.argv[2:]:
        assert database.execute(statement).rowcount, statement
database.close()
"""


@pytest.fixture
def execute_elsewhere(tmp_path: Path) -> Callable[..., None]:
    """`execute_elsewhere(*statements)` commits SQL to the store in `tmp_path` from another process."""

    def execute(*statements: str) -> None:
        subprocess.run([sys.executable, "-c", _EXECUTE, str(tmp_path / DATABASE_FILE), *statements], check=True)

    return execute


@pytest.fixture
def other_store(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """`other_store()` opens the store in `tmp_path` once more, as another process would if the folder had no lock."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def open_again() -> Store:
            lock = FolderLock(tmp_path, f"other-{next(numbers)}.lock")
            store = Store(SqliteDatabase(tmp_path), tmp_path, lock)
            return stack.enter_context(closing(store))

        yield open_again
