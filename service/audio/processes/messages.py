"""Messages between the service, the fork server and the workers. Nothing is pickled: a worker may be compromised.

- service -> fork server: one byte with two sockets, the worker's connection and its lifeline.
- worker -> service, once, on the connection: a `HEAD` and JSON, the limits that could not be set.
- service -> worker: a `CLIP` and the bytes of the file.
- worker -> service: any number of `HEAD`s with samples, float32 in native byte order, then one with JSON: properties of
  the file, or the error.
- fork server -> service on the lifeline, when the worker has exited: a `STATUS` from `waitpid`.
- End of file on a lifeline kills the worker. End of file on the socket to the fork server ends it and all its workers.
"""

import json
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Self

from service.audio.decode import AudioLimits

CLIP = struct.Struct("!QIdd")  # bytes of the file, output sample rate in Hz, samples in the budget, samples left
HEAD = struct.Struct("!cI")  # SAMPLES or JSON, bytes that follow
STATUS = struct.Struct("!i")
SAMPLES, JSON = b"S", b"J"
MAX_JSON = 65_536  # bytes

# Address space of a worker in addition to the file: libsndfile, soxr, and blocks of up to 16 channels.
OVERHEAD_BYTES = 48 * 2**20


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of every worker of a pool."""

    audio: AudioLimits
    max_bytes: int  # largest file, in bytes
    cpu_seconds: int  # CPU time per clip

    def to_json(self) -> str:
        """Convert to a command-line argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the output of `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "audio": AudioLimits(**fields["audio"])})


def receive(connection: socket.socket, count: int) -> bytes:
    """Read `count` bytes from a blocking socket, or fewer at the end of the file."""
    data = connection.recv(count, socket.MSG_WAITALL)
    while 0 < len(data) < count:
        more = connection.recv(count - len(data), socket.MSG_WAITALL)
        if not more:
            break
        data += more
    return data
