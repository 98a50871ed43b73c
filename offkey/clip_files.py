"""Read the clips that a caller passes: paths, bytes, open files and named bytes, one or many."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TypeGuard

from offkey.errors import ErrorKind, OffkeyError

# A tuple of a string and bytes is one clip: its name and its content.
ClipSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | tuple[str, bytes]
ClipSources = ClipSource | Iterable[ClipSource]

_Bytes = bytes | bytearray | memoryview


def read_clips(clips: ClipSources) -> list[tuple[str, bytes]]:
    """Read one clip or many, and return the name and the content of each.

    A string is always a path. Bytes without a name are called `clip-0`, `clip-1` and so on, by their place.

    Raises:
        FileNotFoundError: a path does not exist.
        IsADirectoryError: a path is a folder.
        OffkeyError: there is no clip.
        TypeError: a clip is of another type, or a file is open in text mode.
    """
    named = [_read(clip, f"clip-{place}") for place, clip in enumerate(_each(clips))]
    if not named:
        raise OffkeyError(ErrorKind.MALFORMED_REQUEST, "There is no clip to send. Pass one or more.")
    return named


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a `Path` after checking that it is a file."""
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder, not a file.")
    if not file.exists():
        raise FileNotFoundError(f"There is no file {file}.")
    return file


def name_of(file: IO[bytes]) -> str | None:
    """Return the name of an open file without its folder. None if it has no name, as in memory."""
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else None


def _each(clips: ClipSources) -> Iterable[ClipSource]:
    if isinstance(clips, str | os.PathLike | _Bytes) or hasattr(clips, "read") or _is_named(clips):
        return [clips]  # type: ignore[list-item]  # the checks leave a single one
    return clips


def _read(clip: ClipSource, default_name: str) -> tuple[str, bytes]:
    if isinstance(clip, str | os.PathLike):
        file = existing_file(clip)
        return file.name, file.read_bytes()
    if isinstance(clip, _Bytes):
        return default_name, bytes(clip)
    if _is_named(clip):
        return clip[0], bytes(clip[1])
    if isinstance(clip, tuple) or not hasattr(clip, "read"):
        kinds = "a path, bytes, an open binary file, or a pair (name, bytes)"
        raise TypeError(f"A clip is {kinds}, not {type(clip).__name__}.")
    content = clip.read()
    if not isinstance(content, bytes):
        raise TypeError("The file is open in text mode. Open it in binary mode: open(path, 'rb').")
    return name_of(clip) or default_name, content


def _is_named(clip: object) -> TypeGuard[tuple[str, bytes]]:
    return isinstance(clip, tuple) and len(clip) == 2 and isinstance(clip[0], str) and isinstance(clip[1], _Bytes)
