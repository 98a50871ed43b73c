"""How an embedding lies in the database: its bytes, and a checksum of all that a score depends on.

SQLite keeps no checksums of its pages: a flipped bit in a blob is read back as if it had been written.
"""

import struct
import zlib

import numpy as np

from service.domain.distance import Vectors

DTYPE = np.dtype("<f4")
_KEYS = struct.Struct("<qqqd")


def checksum(machine_key: int, domain: str, clip_id: int, window: int, start_s: float, vector: bytes) -> int:
    """CRC-32 of a row of `embedding` with the machine and domain that it counts for."""
    head = _KEYS.pack(machine_key, clip_id, window, start_s) + domain.encode()
    return zlib.crc32(vector, zlib.crc32(head))


def stacked(vectors: list[bytes]) -> Vectors:
    """The vectors `(n, dim)` of one bank. Raises ValueError if they are not all of one width."""
    widths = sorted({len(vector) for vector in vectors})  # bytes
    if len(widths) > 1:
        raise ValueError(f"embeddings of {widths} bytes lie in one bank")
    width, rest = divmod(widths[0] if widths else 0, DTYPE.itemsize)
    if rest or (vectors and not width):
        raise ValueError(f"an embedding of {widths[0]} bytes is no array of float32")
    return np.frombuffer(b"".join(vectors), dtype=DTYPE).reshape(len(vectors), width).astype(np.float32)
