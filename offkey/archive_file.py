"""Stream a zip archive from a path, bytes or an open file, from its beginning for each attempt."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from offkey.clip_files import existing_file

ArchiveSource = str | os.PathLike[str] | bytes | IO[bytes]

_BLOCK_BYTES = 1 << 20


class ArchiveFile:
    """A zip archive that is read in blocks, so that its size does not matter for memory.

    An open file is read from its current position, and is not closed.
    """

    def __init__(self, source: ArchiveSource) -> None:
        """Check that the archive can be read.

        Raises:
            FileNotFoundError: the path does not exist.
            IsADirectoryError: the path is a folder.
            ValueError: the open file cannot seek, so it could not be sent a second time.
        """
        self._source: Path | IO[bytes]
        self._start = 0
        if isinstance(source, str | os.PathLike):
            self._source = existing_file(source)
        elif isinstance(source, bytes):
            self._source = io.BytesIO(source)
        elif source.seekable():
            self._source, self._start = source, source.tell()
        else:
            raise ValueError("The archive cannot seek, so it cannot be sent again after an error. Pass its path.")

    def size(self) -> int:
        """Return the number of bytes that `blocks` yields."""
        with self._open() as file:
            return file.seek(0, os.SEEK_END) - self._start

    def blocks(self) -> Iterator[bytes]:
        """Read the archive from its beginning."""
        with self._open() as file:
            file.seek(self._start)
            while block := file.read(_BLOCK_BYTES):
                yield block

    async def blocks_async(self) -> AsyncIterator[bytes]:
        """Read the archive from its beginning, on a thread for each block."""
        blocks = self.blocks()
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            yield block

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        return self._source.open("rb") if isinstance(self._source, Path) else nullcontext(self._source)
