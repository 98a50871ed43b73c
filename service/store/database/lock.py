"""One process at a time in a data folder."""

import fcntl
from pathlib import Path
from types import TracebackType
from typing import Self

from offkey.errors import ErrorKind, OffkeyError

LOCK_FILE = "offkey.lock"
SNAPSHOT_LOCK_FILE = "snapshot.lock"


class FolderLock:
    """Held until it is closed or the process ends, however it ends: the kernel lets go of it."""

    def __init__(self, data_dir: Path, name: str = LOCK_FILE, *, used_by: str = "Another Offkey process uses") -> None:
        """Take the lock.

        Args:
            data_dir: the folder, which exists.
            name: of the lock file; it stays there and is always empty.
            used_by: begins the sentence for whoever finds it taken.

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
        """Let go of it."""
        self._file.close()
