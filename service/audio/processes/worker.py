"""Decoding worker: sets its own limits, then decodes one clip after another until the service closes the connection."""

import ctypes
import json
import math
import os
import resource
import signal
import socket
import sys
import traceback
from typing import NoReturn

from offkey.errors import OffkeyError
from service.audio.budget import Budget
from service.audio.decode import Samples, decode_blocks
from service.audio.processes.messages import CLIP, HEAD, JSON, OVERHEAD_BYTES, SAMPLES, DecodeLimits, receive

_CONNECTION = 3  # descriptor of the socket to the service; the only one besides the standard three
_DESCRIPTORS = 4_096  # more than a fork server ever has: one for each of at most 256 workers
_PR_SET_PDEATHSIG = 1


def run_worker(connection: socket.socket, decode_limits: DecodeLimits, fork_server: int) -> NoReturn:
    """Decode clips in a process that was just forked by the process with id `fork_server`."""
    status = 1
    try:
        _detach(connection)
        with socket.socket(fileno=_CONNECTION) as own:
            _send_json(own, {"without": _limit(decode_limits, fork_server)})
            while head := receive(own, CLIP.size):
                _serve(own, decode_limits, *CLIP.unpack(head))
        status = 0
    finally:
        # An exception must not return to the loop of the fork server.
        os._exit(status)


def _detach(connection: socket.socket) -> None:
    """Close what the fork server has open: the lifelines of other workers, and the standard streams."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(connection.fileno(), _CONNECTION)
    os.closerange(_CONNECTION + 1, _DESCRIPTORS)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # the MP3 decoder writes text from the file to standard error
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _limit(decode_limits: DecodeLimits, fork_server: int) -> list[str]:
    """Set the limits. Returns the names of those that this platform lacks."""
    missing = []
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != fork_server:  # it died before prctl took effect
            os._exit(1)
    else:
        missing.append("PR_SET_PDEATHSIG")
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_AS": _address_space() + decode_limits.max_bytes + OVERHEAD_BYTES,
    }
    for name, value in wanted.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            missing.append(name)
    return missing


def _address_space() -> int:
    """Return the address space in use in bytes, or 0 on other systems than Linux."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - pathlib is not otherwise imported here
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _serve(
    connection: socket.socket, decode_limits: DecodeLimits, length: int, sample_rate: int, samples: float, left: float
) -> None:
    data = receive(connection, length)
    if len(data) < length:
        return
    # The limit counts from the start of the process, so it is raised for each clip.
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + decode_limits.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    budget = Budget(samples, left=left)

    def send(block: Samples) -> None:
        if len(block):
            connection.sendall(HEAD.pack(SAMPLES, block.nbytes))
            connection.sendall(block.data.cast("B"))

    answer: dict[str, object]
    try:
        source = decode_blocks(data, send, sample_rate=sample_rate, limits=decode_limits.audio, budget=budget)
        answer = {
            "sample_rate": source.sample_rate,
            "channels": source.channels,
            "clipped": source.clipped,
            "canceled_db": source.canceled_db,
            "out_of_band": source.out_of_band,
            "codec": source.codec,
            "spent": 0.0 if math.isinf(left) else left - budget.left,
        }
    except OffkeyError as error:
        answer = {"refused": error.kind.value, "detail": error.detail, "values": error.values}
    except OSError:  # the service closed the connection
        raise
    except Exception:
        answer = {"failed": traceback.format_exc()[-4_000:]}
    answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    _send_json(connection, answer)


def _send_json(connection: socket.socket, fields: dict[str, object]) -> None:
    data = json.dumps(fields).encode()
    connection.sendall(HEAD.pack(JSON, len(data)) + data)
