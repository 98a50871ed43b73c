"""Reads the sizes and the rate that a WAV, W64, AIFF or CAF file declares. libsndfile corrects them silently.

Sources: Microsoft/IBM "Multimedia Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech 3306 (RF64),
Apple "Audio Interchange File Format" and "Core Audio Format Specification 1.0", Sony "Wave64 file format".
"""

import struct
from dataclasses import dataclass

_MAX_CHUNKS = 1_000
# Programs that write to a pipe cannot fill in the size afterwards. They leave 0, all ones, or a size near 2 GiB.
_MIN_UNKNOWN_SIZE = 0x7FFF_0000
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass(frozen=True)
class _Layout:
    first: int  # offset of the first chunk
    size: struct.Struct  # size field after the chunk's id
    audio: bytes  # id of the chunk with the samples
    align: int = 2
    counts_head: bool = False  # whether the size includes the id and the size field

    @property
    def head(self) -> int:
        return len(self.audio) + self.size.size


_RIFF = _Layout(12, struct.Struct("<I"), b"data")
_LAYOUTS = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"RIFX": _Layout(12, struct.Struct(">I"), b"data"),
    b"FORM": _Layout(12, struct.Struct(">I"), b"SSND"),
    b"caff": _Layout(8, struct.Struct(">q"), b"data", align=1),
    b"riff": _Layout(40, struct.Struct("<q"), _W64_DATA, align=8, counts_head=True),
}


@dataclass(frozen=True)
class DeclaredAudio:
    """Audio that the header of a file declares.

    Attributes:
        sample_rate: sample rate of a WAV file in Hz, any 32-bit number, or None.
        missing_bytes: declared bytes of audio that are not in the file.
    """

    sample_rate: int | None = None
    missing_bytes: int = 0


def read_headers(data: bytes) -> DeclaredAudio:
    """Read the chunk headers up to the audio. Files of other formats, or without an audio chunk, declare nothing."""
    layout = _LAYOUTS.get(data[:4])
    sample_rate = None
    long_size = 0  # RF64 declares the size of the audio in an earlier chunk
    at = layout.first if layout else len(data)
    for _ in range(_MAX_CHUNKS):
        if layout is None or at + layout.head > len(data):
            break
        name = data[at : at + len(layout.audio)]
        size: int = layout.size.unpack_from(data, at + len(layout.audio))[0]
        at += layout.head
        size -= layout.head if layout.counts_head else 0
        if name == layout.audio:
            return DeclaredAudio(sample_rate, _missing_bytes(long_size or size, layout.size.size, len(data) - at))
        if name == b"fmt " and at + 8 <= len(data):
            sample_rate = struct.unpack_from("<I" if layout is _RIFF else ">I", data, at + 4)[0]
        if name == b"ds64" and at + 16 <= len(data):
            long_size = struct.unpack_from("<Q", data, at + 8)[0]
        at += max(0, size) + -size % layout.align
    return DeclaredAudio(sample_rate)


def _missing_bytes(size: int, width: int, available: int) -> int:
    if size <= 0 or (width == 4 and _MIN_UNKNOWN_SIZE <= size < 2**32):
        return 0
    return max(0, size - available)
