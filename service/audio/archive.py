"""Reads zip archives of clips, entry by entry, without trusting what they declare.

Names are labels and never used as paths. Unpacked bytes are counted during unpacking. The number of entries is checked
before they are listed, because a directory of 100,000 entries takes a hundred megabytes as Python objects. The format
is PKWARE's APPNOTE 6.3.10, parsed by `zipfile` of the standard library.
"""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from offkey.errors import ErrorKind, OffkeyError

_END = struct.Struct("<4s4H2LH")  # end of the central directory
_END_MAGIC, _ZIP64_MAGIC = b"PK\x05\x06", b"PK\x06\x07"
_ZIP64_LOCATOR = 20  # bytes, directly before the end record
_MAX_COMMENT = 2**16  # bytes
_ENTRY_BYTES = 46 + 512  # size of a directory entry with a long name
_LOCAL_BYTES = 30  # size of the header before an entry's name and data
_ENCRYPTED = 0x1
_BLOCK = 2**20
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_MAX_NAME = 255
# Exceptions of `zipfile` and `zlib` for arbitrary bytes.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits of an archive."""

    entries: int
    entry_bytes: int  # largest unpacked size of one entry
    unpacked_bytes: int  # largest unpacked size of all entries together


@dataclass(frozen=True)
class ArchiveEntry:
    """File in an archive. `number` counts from 0, without folders and junk files."""

    number: int
    name: str
    _info: zipfile.ZipInfo


class Archive:
    """Open archive.

    Attributes:
        entries: files in the order of the archive's directory, without folders and junk files of operating systems.
    """

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        """Open an archive and read its directory.

        Raises:
            OffkeyError: the file is not a zip archive, or has too many or overlapping entries.
            OSError: the file cannot be read.
        """
        self._limits = limits
        self._left = limits.unpacked_bytes
        _check_end(path, limits.entries)
        with _errors_translated():
            self._zip = zipfile.ZipFile(path)
        try:
            infos = self._zip.infolist()
            _check_count(len(infos), limits.entries)
            _check_overlap(infos, self._zip.start_dir)
        except BaseException:
            self._zip.close()
            raise
        wanted = [info for info in infos if not _is_junk(info)]
        self.entries: Sequence[ArchiveEntry] = [
            ArchiveEntry(number, _label(info.filename, number), info) for number, info in enumerate(wanted)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._zip.close()

    def read(self, entry: ArchiveEntry) -> bytes:
        """Unpack an entry.

        Raises:
            OffkeyError: the entry is encrypted, damaged, too large, compressed by a method other than deflate, or not a
                regular file; or the whole archive unpacks to too many bytes (`too-much-audio`).
        """
        info = entry._info
        if info.flag_bits & _ENCRYPTED:
            raise _unreadable("the entry is encrypted")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _unreadable("the entry is a link or a device, not a file")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _unreadable(f"the entry is compressed by method {info.compress_type}; use deflate or no compression")
        data = bytearray()
        with _errors_translated():
            for block in self._blocks(info):
                data += block
                self._left -= len(block)
                if self._left < 0:
                    raise OffkeyError(
                        ErrorKind.TOO_MUCH_AUDIO,
                        f"The archive unpacks to more than {self._limits.unpacked_bytes} bytes. Split it.",
                        max_unpacked_bytes=self._limits.unpacked_bytes,
                    )
                if len(data) > self._limits.entry_bytes:
                    raise OffkeyError(
                        ErrorKind.BODY_TOO_LARGE,
                        f"The entry unpacks to more than {self._limits.entry_bytes} bytes. Cut it into shorter clips.",
                        max_body_bytes=self._limits.entry_bytes,
                    )
        return bytes(data)

    def _blocks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        with self._zip.open(info) as file:
            while block := file.read(_BLOCK):
                yield block


@contextmanager
def _errors_translated() -> Iterator[None]:
    """Raise `OffkeyError` for exceptions caused by the bytes of the archive."""
    try:
        yield
    except _UNREADABLE as error:
        raise _unreadable(str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset before the beginning of the file
            raise
        raise _unreadable("it refers to a position outside the file") from error


def _check_end(path: Path, most: int) -> None:
    """Check the end record that `zipfile` will use: the last one, followed at most by a comment."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END.size - _MAX_COMMENT - _ZIP64_LOCATOR))
        tail = file.read()
    at = tail.rfind(_END_MAGIC)
    if at < 0 or at + _END.size > len(tail):
        raise _unreadable("it has no end record; it is truncated, or not a zip file")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(tail, at)
    if tail[max(0, at - _ZIP64_LOCATOR) :][:4] == _ZIP64_MAGIC:
        raise _unreadable("it is a ZIP64 archive; write it without ZIP64, or split it")
    _check_count(max(entries, directory_bytes // _ENTRY_BYTES), most)


def _check_count(entries: int, most: int) -> None:
    if entries > most:
        raise OffkeyError(
            ErrorKind.TOO_MANY_CLIPS,
            f"The archive has {entries} entries or more; at most {most} are accepted. Split it.",
            max_zip_entries=most,
        )


def _check_overlap(infos: Sequence[zipfile.ZipInfo], directory: int) -> None:
    """Refuse entries that share bytes: kilobytes could unpack to terabytes (D. Fifield, "A better zip bomb")."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [*(info.header_offset for info in ordered[1:]), directory]
    for info, end in zip(ordered, ends, strict=True):
        if info.header_offset + _LOCAL_BYTES + info.compress_size > end:
            raise _unreadable(f"the entry {_label(info.filename, 0)!r} overlaps another")


def _is_junk(info: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(info.filename.replace("\\", "/")).parts
    return info.is_dir() or "__MACOSX" in parts or (bool(parts) and (parts[-1] in _JUNK or parts[-1].startswith("._")))


def _label(name: str, number: int) -> str:
    """Return the last part of a name without unprintable characters, which could break a terminal or a page."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable())[:_MAX_NAME] or f"entry-{number}"


def _unreadable(why: str) -> OffkeyError:
    return OffkeyError(
        ErrorKind.UNREADABLE_ARCHIVE, f"The archive cannot be read: {why.strip().rstrip('.')}. Make it again."
    )
