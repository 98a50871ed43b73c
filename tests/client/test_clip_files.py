"""The kinds of clips that a caller can pass."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from offkey import Client, OffkeyError
from offkey.clip_files import read_clips


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    return path


def test_one_clip_of_each_kind(file: Path) -> None:
    with file.open("rb") as opened:
        assert read_clips(opened) == [("a.wav", b"sound")]
    assert read_clips(file) == [("a.wav", b"sound")]
    assert read_clips(str(file)) == [("a.wav", b"sound")]
    assert read_clips(("hall 2.wav", b"sound")) == [("hall 2.wav", b"sound")]
    for content in (b"sound", bytearray(b"sound"), memoryview(b"sound"), io.BytesIO(b"sound")):
        assert read_clips(content) == [("clip-0", b"sound")]


def test_many_clips_of_any_kinds(file: Path) -> None:
    opened = io.BytesIO(b"four")
    mixed: list[Any] = [file, b"two", ("three", b"3"), opened, str(file)]
    expected = [("a.wav", b"sound"), ("clip-1", b"two"), ("three", b"3"), ("clip-3", b"four"), ("a.wav", b"sound")]
    for form in (list, tuple, iter):
        opened.seek(0)
        assert read_clips(form(mixed)) == expected
    assert read_clips((str(file), str(file))) == [("a.wav", b"sound")] * 2


def test_an_open_file_is_read_from_its_position(file: Path) -> None:
    with file.open("rb") as opened:
        opened.seek(2)
        assert read_clips([opened]) == [("a.wav", b"und")]


def test_a_string_is_one_path_and_a_missing_file_is_named_before_anything_is_sent(
    connect: Callable[..., Any], record: Callable[..., Any], tmp_path: Path
) -> None:
    service = record()
    client = connect(service)
    for call in (client.score, client.enroll, client.feedback, client.add_noise, client.enroll_archive):
        with pytest.raises(FileNotFoundError, match=r"There is no file .*fan\.wav\."):
            call("fan-1", str(tmp_path / "fan.wav"))
        with pytest.raises(IsADirectoryError, match="is a folder"):
            call("fan-1", tmp_path)
    assert not service.requests


def test_other_types_are_refused_with_the_kinds_there_are(file: Path) -> None:
    for wrong in ([3], [None], [("a", "b", "c")], [("a", "b")]):
        with pytest.raises(TypeError, match="a path, bytes, an open binary file, or a pair"):
            read_clips(wrong)  # type: ignore[arg-type]
    with file.open() as text, pytest.raises(TypeError, match="binary mode"):
        read_clips(text)
    with pytest.raises(OffkeyError, match="no clip"):
        read_clips([])


def test_an_archive_that_could_not_be_sent_twice_is_refused() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with Client("http://offkey.test") as client, pytest.raises(ValueError, match="Pass its path"):
        client.enroll_archive("fan-1", Pipe(b"PK"))
