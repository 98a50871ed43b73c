"""Archives from untrusted senders: valid entries are read, everything else is refused."""

import io
import random
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.audio.archive import Archive, ArchiveLimits

MEBIBYTE = 2**20
LIMITS = ArchiveLimits(entries=100, entry_bytes=MEBIBYTE, unpacked_bytes=8 * MEBIBYTE)

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_disk(data: bytes) -> Path:
        path = tmp_path / "a.zip"
        path.write_bytes(data)
        return path

    return to_disk


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def refusal(path: Path, limits: ArchiveLimits = LIMITS) -> OffkeyError:
    """Return the error of an archive or of its entries."""

    def read_all() -> None:
        with Archive(path, limits) as archive:
            for entry in archive.entries:
                archive.read(entry)

    with pytest.raises(OffkeyError) as error:
        read_all()
    return error.value


def test_entries_are_read_in_order_and_junk_is_skipped(write: Write) -> None:
    files = {
        "b/2.wav": b"two",
        "folder/": b"",
        "__MACOSX/b/._2.wav": b"junk",
        "b/.DS_Store": b"junk",
        "b/._1.wav": b"junk",
        "a/1.wav": b"one",
    }
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        with Archive(write(packed(files, method)), LIMITS) as archive:
            assert [(entry.number, entry.name) for entry in archive.entries] == [(0, "2.wav"), (1, "1.wav")]
            assert [archive.read(entry) for entry in archive.entries] == [b"two", b"one"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("C:\\x.wav", "x.wav"),
        ("a/\x1b[31mred.wav", "[31mred.wav"),
        ("a/\u202egnp.wav", "gnp.wav"),
        ("n" * 5_000, "n" * 255),
        ("..", ".."),
    ],
)
def test_names_are_labels_and_not_paths(write: Write, tmp_path: Path, name: str, label: str) -> None:
    with Archive(write(packed({name: b"x"})), LIMITS) as archive:
        (entry,) = archive.entries
        assert (entry.name, archive.read(entry)) == (label, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_entry_that_unpacks_to_too_much_is_refused_and_the_next_is_read(write: Write) -> None:
    data = packed({"bomb": bytes(200 * MEBIBYTE), "clip": b"x"})
    assert len(data) < MEBIBYTE
    with Archive(write(data), LIMITS) as archive:
        bomb, clip = archive.entries
        tracemalloc.start()
        begin = time.process_time()
        with pytest.raises(OffkeyError) as error:
            archive.read(bomb)
        assert time.process_time() - begin < 1.0
        assert tracemalloc.get_traced_memory()[1] < 8 * MEBIBYTE
        tracemalloc.stop()
        assert error.value.kind is ErrorKind.BODY_TOO_LARGE
        assert archive.read(clip) == b"x"


def test_all_entries_together_are_bounded(write: Write) -> None:
    data = packed({f"{number}": bytes(MEBIBYTE) for number in range(9)})
    assert refusal(write(data)).kind is ErrorKind.TOO_MUCH_AUDIO


def test_a_hundred_thousand_entries_are_refused_before_they_are_listed(write: Write) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(100_000):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    for data in (buffer.getvalue(), packed({f"{number}": b"" for number in range(101)})):
        path = write(data)
        tracemalloc.start()
        assert refusal(path).kind in (ErrorKind.TOO_MANY_CLIPS, ErrorKind.UNREADABLE_ARCHIVE)  # ZIP64 is neither
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
        tracemalloc.stop()


def test_a_wrong_count_in_the_end_record_does_not_evade_the_limit(write: Write) -> None:
    data = bytearray(packed({f"{number}": b"" for number in range(300)}))
    at = data.rfind(b"PK\x05\x06")
    struct.pack_into("<HH", data, at + 8, 1, 1)
    assert refusal(write(bytes(data))).kind is ErrorKind.TOO_MANY_CLIPS


def test_entries_that_share_bytes_are_refused(write: Write) -> None:
    """The directory lists the data of one entry many times."""
    data = packed({"kernel": bytes(MEBIBYTE)}, zipfile.ZIP_STORED)
    end = data.rfind(b"PK\x05\x06")
    directory = data[data.rfind(b"PK\x01\x02", 0, end) : end]
    for copies in (2, 90):
        lied = bytearray(data[: end - len(directory)] + directory * copies + data[end:])
        struct.pack_into("<HHL", lied, len(lied) - 14, copies, copies, len(directory) * copies)
        assert refusal(write(bytes(lied))).kind is ErrorKind.UNREADABLE_ARCHIVE


def test_unpacked_bytes_are_counted_whatever_size_is_declared(write: Write) -> None:
    data = bytearray(packed({"a": bytes(3 * MEBIBYTE)}))
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", data, data.find(magic) + offset, 10)  # declares ten unpacked bytes
    assert refusal(write(bytes(data))).kind in (ErrorKind.UNREADABLE_ARCHIVE, ErrorKind.BODY_TOO_LARGE)


def test_links_devices_and_encrypted_entries_are_refused_one_by_one(write: Write) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, mode in (("link", 0o120777), ("device", 0o060666), ("pipe", 0o010666)):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/passwd")
        archive.writestr("clip", b"x")
    data = bytearray(buffer.getvalue())
    with Archive(write(bytes(data)), LIMITS) as archive:
        *odd, clip = archive.entries
        for entry in odd:
            with pytest.raises(OffkeyError, match="link or a device"):
                archive.read(entry)
        assert archive.read(clip) == b"x"
    data = bytearray(packed({"secret": b"x"}))
    data[data.find(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(write(bytes(data))).detail
    assert "method 12" in refusal(write(packed({"a": b"x"}, zipfile.ZIP_BZIP2))).detail


@pytest.mark.parametrize("data", [b"", b"PK", b"RIFF" + bytes(100), b"PK\x05\x06", b"PK\x05\x06" + b"\xff" * 18])
def test_bytes_that_are_no_archive_are_refused(write: Write, data: bytes) -> None:
    assert refusal(write(data)).kind in (ErrorKind.UNREADABLE_ARCHIVE, ErrorKind.TOO_MANY_CLIPS)


def test_a_truncated_archive_is_refused(write: Write) -> None:
    data = packed({f"{number}": bytes(range(256)) * 10 for number in range(5)})
    for size in range(0, len(data), 37):
        assert refusal(write(data[:size])).kind is ErrorKind.UNREADABLE_ARCHIVE


def test_flipped_bits_are_detected_or_change_nothing_that_is_read(write: Write) -> None:
    rng = random.Random(0)
    files = {f"{number}": rng.randbytes(300) for number in range(5)}
    data = packed(files)
    for _ in range(600):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with suppress(OffkeyError), Archive(write(bytes(changed)), LIMITS) as archive:
            for entry in archive.entries:
                with suppress(OffkeyError):
                    assert archive.read(entry) in files.values()
