"""Translate errors of the database to messages for people."""

import logging
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from offkey.errors import ErrorKind, OffkeyError

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
RESTORE = "Restore a snapshot (`offkey restore`)."
_NO_SPACE = 2**20  # bytes
_PRIMARY_CODE = 0xFF  # the rest of SQLite's code gives details


_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Errors of damage without an error code of their own.
_DAMAGE_MESSAGES = ("Could not decode to UTF-8", "no such table", "no such column")


@contextmanager
def translate_errors(folder: Path) -> Iterator[None]:
    """Raise `OffkeyError` for a database that is locked, full, read-only, damaged or unreachable."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        explanation = _explain(error.orig, folder)
        if explanation is None:
            raise
        if explanation.kind is not ErrorKind.STORE_BUSY:
            logger.error("the store fails: %s", error.orig)
        raise explanation from error


@contextmanager
def translate_row_errors() -> Iterator[None]:
    """Raise `OffkeyError` for rows that cannot be what was written.

    Wraps conversions of the store's own rows only. The same errors in the code of a use case are faults of that code.
    """
    try:
        yield
    except (ValueError, TypeError, AttributeError) as error:
        logger.exception("the store holds a value that cannot have been written")
        raise OffkeyError(
            ErrorKind.STORE_UNUSABLE, f"The store's database is damaged: it holds what was never written. {RESTORE}"
        ) from error


@contextmanager
def isolate_machine(machine_id: str) -> Iterator[None]:
    """Raise `OffkeyError` (machine damaged) if what is read about one machine cannot be what was written."""
    try:
        yield
    except (DBAPIError, ValueError, TypeError, AttributeError, struct.error) as error:
        if isinstance(error, DBAPIError) and not (isinstance(error.orig, sqlite3.Error) and is_damage(error.orig)):
            raise
        reason = error.orig if isinstance(error, DBAPIError) else error
        logger.error("what is stored of machine %s is damaged: %s", machine_id, reason)
        raise OffkeyError(
            ErrorKind.MACHINE_DAMAGED,
            f"What is stored of machine {machine_id} is damaged ({reason}); other machines are served. `offkey verify` "
            f"lists other damage. {RESTORE} Or delete the machine and enroll its clips again.",
            machine_id=machine_id,
        ) from error


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error of SQLite means that the database is damaged."""
    return _code(error) in _DAMAGE or str(error).startswith(_DAMAGE_MESSAGES)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _NO_SPACE
    except OSError:
        return False


def _explain(error: sqlite3.Error, folder: Path) -> OffkeyError | None:
    code = sqlite3.SQLITE_CORRUPT if is_damage(error) and _code(error) not in _DAMAGE else _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OffkeyError(
            ErrorKind.STORE_BUSY,
            "Another program has locked the store's database; nothing was changed. "
            f"Send it again in {RETRY_AFTER_SECONDS} s, and end what holds the lock if it stays.",
            retry_after=RETRY_AFTER_SECONDS,
        )
    # Some file systems detect only at the fsync that they are full, for which SQLite has no error code.
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(folder)):
        return OffkeyError(
            ErrorKind.STORAGE_FULL,
            "The disk of the store is full; nothing was changed. Free space and send it again.",
        )
    todo = {
        sqlite3.SQLITE_READONLY: "is read-only. Allow the service to write to its data folder.",
        sqlite3.SQLITE_CORRUPT: f"is damaged. {RESTORE}",
        sqlite3.SQLITE_NOTADB: f"is damaged, or no database at all. {RESTORE}",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened. Check that the data folder can be read and written.",
        sqlite3.SQLITE_PERM: "cannot be opened. Check that the data folder can be read and written.",
        sqlite3.SQLITE_IOERR: "cannot be read or written. Check the disk.",
    }.get(code)
    if todo is None:
        return None
    return OffkeyError(ErrorKind.STORE_UNUSABLE, f"The store's database {todo} SQLite reports: {error}.")
