"""Atomic files and folders: the old content or the new one, and no temporary file left."""

import errno
import os
import threading
from pathlib import Path

import pytest

from offkey.atomic import replacing, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def interrupted(target: Path, *, as_folder: bool = False) -> None:
    """Write half of the new content, then raise as Ctrl-C does."""
    with replacing(target) as temporary:
        if as_folder:
            temporary.mkdir()
        (temporary / "file" if as_folder else temporary).write_text("half")
        raise KeyboardInterrupt


def test_a_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "settings.json"
    write_text(target, "ä")
    assert target.read_bytes() == "ä".encode()
    write_bytes(target, b"new\r\n")
    assert target.read_bytes() == b"new\r\n"
    assert names(tmp_path) == ["settings.json"]


def test_the_temporary_path_is_hidden_unique_and_has_the_same_suffix(tmp_path: Path) -> None:
    with replacing(tmp_path / "plot.png") as first, replacing(tmp_path / "plot.png") as second:
        assert first != second
        for temporary in (first, second):
            assert temporary.parent == tmp_path
            assert temporary.name.startswith(".")
            assert temporary.suffix == ".png"
        first.write_text("1")
        second.write_text("2")
    assert (tmp_path / "plot.png").read_text() == "1"  # renamed last


def test_an_error_in_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "plot.png"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(target)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["plot.png"]


def test_a_folder_appears_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with replacing(target) as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "model.onnx").write_text("weights")
        (temporary / "link").symlink_to("nowhere")
        assert not target.exists()
    assert (target / "inner" / "model.onnx").read_text() == "weights"
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "other", as_folder=True)
    assert names(tmp_path) == ["bundle"]


def test_a_folder_with_content_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(OSError, match="not empty"), replacing(target) as temporary:
        temporary.mkdir()
    assert names(tmp_path) == ["bundle"]
    assert names(target) == ["old"]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert not names(tmp_path)


@pytest.mark.parametrize("failing", ["open", "fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path if failing == "replace" else os, failing, fail)
    with pytest.raises(OSError, match="No space"):
        write_text(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_content_and_then_names_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append("folder" if path == tmp_path else "bundle" if path.parent == tmp_path else path.name)
        fsync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        flushed.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "replace", rename)
    with replacing(tmp_path / "bundle") as temporary:
        temporary.mkdir()
        (temporary / "model").touch()
    assert flushed == ["model", "bundle", "rename", "folder"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    contents = {bytes([byte]) * 100_000 for byte in range(4)}
    write_bytes(target, next(iter(contents)))

    def write(content: bytes) -> None:
        for _ in range(10):
            write_bytes(target, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert target.read_bytes() in contents
    assert names(tmp_path) == ["file"]
