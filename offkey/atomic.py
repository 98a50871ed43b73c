"""Write files and folders atomically: another process sees the old content or all of the new one."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` when the block ends.

    The block creates a file or a folder at the temporary path. Its name is hidden, random and has the suffix of
    `path`. It is on disk before the rename, and the rename is on disk when the block ends. If the block raises,
    the temporary file or folder is removed and `path` is unchanged. Two writers never share a temporary path: the
    last rename wins.

    Args:
        path: file, or folder that does not exist or is empty. Its parent folder must exist.

    Raises:
        FileNotFoundError: the block created nothing.
        OSError: writing, flushing or renaming failed, for example because the disk is full.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        if temporary.is_dir():
            for inner in temporary.rglob("*"):
                _flush(inner)
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    _flush(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file atomically by text in UTF-8."""
    write_bytes(path, text.encode())


def _flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on disk."""
    if path.is_symlink():
        return
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # Windows opens files only
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
