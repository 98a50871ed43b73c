"""Admit one process at a time to a data folder."""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import Self

from offkey.errors import ErrorKind, OffkeyError

LOCK_FILE = "offkey.lock"
SNAPSHOT_LOCK_FILE = "snapshot.lock"


class FolderLock:
    """A lock that is held until it is closed or the process ends. The kernel releases it."""

    def __init__(self, data_dir: Path, name: str = LOCK_FILE, *, used_by: str = "Another Offkey process uses") -> None:
        """Acquire the lock.

        Args:
            data_dir: existing folder.
            name: name of the lock file, which stays there and is always empty.
            used_by: start of the error message if another process holds the lock.

        Raises:
            OffkeyError: another process holds it.
            OSError: the folder cannot be written.
        """
        self._file = (data_dir / name).open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OffkeyError(
                ErrorKind.STORE_BUSY, f"{used_by} the data folder {data_dir}. End it first, or name another folder."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._file.close()
