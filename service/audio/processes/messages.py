"""What the service, the nursery and the decoders say to each other. Nothing pickled: a decoder may be in wrong hands.

- service -> nursery: one byte with two sockets, the decoder's line and its life.
- decoder -> service, once, on the line: a `HEAD` and JSON, the limits that could not be set.
- service -> decoder: a `CLIP` and the bytes of the file.
- decoder -> service: any number of `HEAD`s with samples, float32 as the machine has them, then one with JSON: what the
  file had, or why it is refused.
- nursery -> service on the life, when the decoder has ended: a `STATUS`, as `waitpid` gives it.
- End of file on a life kills the decoder; on the socket to the nursery, the nursery and all its decoders.
"""

import json
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Self

from service.audio.decode import AudioLimits

CLIP = struct.Struct("!QIdd")  # bytes of the file, Hz of the samples wanted, samples in the budget, samples left
HEAD = struct.Struct("!cI")  # SAMPLES or WORDS, bytes that follow
STATUS = struct.Struct("!i")
SAMPLES, JSON = b"S", b"W"
MAX_JSON = 65_536  # bytes

# Address space of a decoder beside the file itself: libsndfile's, soxr's and our blocks of up to 16 channels.
OVERHEAD_BYTES = 48 * 2**20


@dataclass(frozen=True)
class DecodeLimits:
    """What every decoder of a pool is held to."""

    limits: AudioLimits
    max_bytes: int  # of a file
    cpu_seconds: int  # for one clip

    def to_json(self) -> str:
        """The terms as an argument of a command."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "limits": AudioLimits(**fields["limits"])})


def receive(connection: socket.socket, count: int) -> bytes:
    """Read `count` bytes from a blocking socket; fewer only at the end of the file."""
    data = connection.recv(count, socket.MSG_WAITALL)
    while 0 < len(data) < count:
        more = connection.recv(count - len(data), socket.MSG_WAITALL)
        if not more:
            break
        data += more
    return data
