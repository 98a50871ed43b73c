"""How an embedding lies in the database: its bytes, and a checksum of all that a score depends on.

SQLite keeps no checksums of its pages: a flipped bit in a blob is read back as if it had been written.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from service.domain.distance import Vectors

DTYPE = np.dtype("<f4")
_KEYS = struct.Struct("<qqqqd")
_NOISE_KEYS = struct.Struct("<qq")


# A row of `embedding` with the domain of its clip: clip id, domain, window, start in seconds, vector, checksum.
Window = tuple[int, str, int, float, bytes, int]


def checksum(
    machine_key: int, domain: str, clip_id: int, window: int, windows: int, start_s: float, vector: bytes
) -> int:
    """CRC-32 of a window with the machine and domain it counts for and the number of windows its clip has."""
    head = _KEYS.pack(machine_key, clip_id, window, windows, start_s) + domain.encode()
    return zlib.crc32(vector, zlib.crc32(head))


def noise_checksum(machine_key: int, embedding_space_id: str, windows: int, vectors: bytes) -> int:
    """CRC-32 of a clip of noise with all that makes it count."""
    return zlib.crc32(vectors, zlib.crc32(_NOISE_KEYS.pack(machine_key, windows) + embedding_space_id.encode()))


def check_windows(machine_key: int, rows: Sequence[Window]) -> None:
    """Raise ValueError if a row of a bank is not what was written, or one of its clip is missing."""
    windows = Counter(row[0] for row in rows)
    for clip_id, domain, window, start_s, vector, written in rows:
        if checksum(machine_key, domain, clip_id, window, windows[clip_id], start_s, vector) != written:
            raise ValueError(f"window {window} of clip {clip_id} does not fit its checksum")


def stacked(vectors: Sequence[bytes]) -> Vectors:
    """The vectors `(n, dim)` of one bank. Raises ValueError if they are not all of one width."""
    widths = sorted({len(vector) for vector in vectors})  # bytes
    if len(widths) > 1:
        raise ValueError(f"embeddings of {widths} bytes lie in one bank")
    width, rest = divmod(widths[0] if widths else 0, DTYPE.itemsize)
    if rest or (vectors and not width):
        raise ValueError(f"an embedding of {widths[0]} bytes is no array of float32")
    return np.frombuffer(b"".join(vectors), dtype=DTYPE).reshape(len(vectors), width).astype(np.float32, copy=False)
