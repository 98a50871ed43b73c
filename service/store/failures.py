"""What the database says when it cannot do its work, in words for a person."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from service.domain.errors import ErrorKind, OffkeyError

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
_PRIMARY_CODE = 0xFF  # the rest of SQLite's code tells the circumstances


@contextmanager
def explained() -> Iterator[None]:
    """Raise `OffkeyError` for a database that is locked, full, read-only, damaged or out of reach."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE
        explanation = _explain(code, str(error.orig))
        if explanation is None:
            raise
        if explanation.kind is not ErrorKind.STORE_BUSY:
            logger.error("the store fails with %s: %s", error.orig.sqlite_errorname, error.orig)
        raise explanation from error


def _explain(code: int, said: str) -> OffkeyError | None:
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OffkeyError(
            ErrorKind.STORE_BUSY,
            "Another program keeps the store's database locked; nothing was changed. "
            f"Send it again in {RETRY_AFTER_SECONDS} s, and end what holds the lock if it stays.",
            retry_after=RETRY_AFTER_SECONDS,
        )
    if code == sqlite3.SQLITE_FULL:
        return OffkeyError(
            ErrorKind.STORAGE_FULL,
            "The disk of the store is full; nothing was changed. Free space and send it again.",
        )
    todo = {
        sqlite3.SQLITE_READONLY: "is read-only. Give the service leave to write to its data folder.",
        sqlite3.SQLITE_CORRUPT: "is damaged. Restore the data folder from a copy.",
        sqlite3.SQLITE_NOTADB: "is damaged, or no database at all. Restore the data folder from a copy.",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened. Check that the data folder can be read and written.",
        sqlite3.SQLITE_PERM: "cannot be opened. Check that the data folder can be read and written.",
        sqlite3.SQLITE_IOERR: "cannot be read or written. Check the disk.",
    }.get(code)
    if todo is None:
        return None
    return OffkeyError(ErrorKind.STORE_UNUSABLE, f"The store's database {todo} SQLite says: {said}.")
