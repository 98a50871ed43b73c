"""A decoder: takes the limits on itself, then decodes one clip after another until the service hangs up."""

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

from service.audio import Samples, decode_blocks
from service.budget import Budget
from service.decoding.wire import CLIP, HEAD, OVERHEAD_BYTES, SAMPLES, WORDS, Terms, receive
from service.domain.errors import OffkeyError

_LINE = 3  # descriptor of the socket to the service, the only one beside the standard three
_DESCRIPTORS = 4_096  # more than a nursery ever has: one for each of at most 256 decoders
_PR_SET_PDEATHSIG = 1


def live(line: socket.socket, terms: Terms, nursery: int) -> NoReturn:
    """Be a decoder: called in a process that was just forked by the nursery of process id `nursery`."""
    status = 1
    try:
        _let_go(line)
        with socket.socket(fileno=_LINE) as own:
            _say(own, {"without": _limit(terms, nursery)})
            while head := receive(own, CLIP.size):
                _serve(own, terms, *CLIP.unpack(head))
        status = 0
    finally:
        # No way back into the nursery's loop, whatever went wrong.
        os._exit(status)


def _let_go(line: socket.socket) -> None:
    """Keep nothing of the nursery's: neither the lives of other decoders nor a place to write to."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(line.fileno(), _LINE)
    os.closerange(_LINE + 1, _DESCRIPTORS)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):  # the MP3 decoder writes to standard error what a client made it say
        os.dup2(nowhere, standard)
    os.close(nowhere)


def _limit(terms: Terms, nursery: int) -> list[str]:
    """Take the limits; return the names of those that this platform does not have."""
    missing = []
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != nursery:  # it died before it could be noticed
            os._exit(1)
    else:
        missing.append("PR_SET_PDEATHSIG")
    wanted = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0, "RLIMIT_AS": _address_space() + terms.max_bytes + OVERHEAD_BYTES}
    for name, value in wanted.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            missing.append(name)
    return missing


def _address_space() -> int:
    """Bytes of address space in use, or 0 where only Linux would say."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 - pathlib is not otherwise needed here
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _serve(line: socket.socket, terms: Terms, length: int, sample_rate: int, samples: float, left: float) -> None:
    data = receive(line, length)
    if len(data) < length:
        return
    # The limit counts the life of the process, so it is moved on for each clip.
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + terms.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    budget = Budget(samples, left=left)

    def send(block: Samples) -> None:
        if len(block):
            line.sendall(HEAD.pack(SAMPLES, block.nbytes))
            line.sendall(block.data.cast("B"))

    answer: dict[str, object]
    try:
        source = decode_blocks(data, send, sample_rate=sample_rate, limits=terms.limits, budget=budget)
        answer = {
            "sample_rate": source.sample_rate,
            "channels": source.channels,
            "clipped": source.clipped,
            "spent": 0.0 if math.isinf(left) else left - budget.left,
        }
    except OffkeyError as error:
        answer = {"refused": error.kind.value, "detail": error.detail, "values": error.values}
    except OSError:  # the service hung up
        raise
    except Exception:
        answer = {"failed": traceback.format_exc()[-4_000:]}
    answer["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    _say(line, answer)


def _say(line: socket.socket, words: dict[str, object]) -> None:
    data = json.dumps(words).encode()
    line.sendall(HEAD.pack(WORDS, len(data)) + data)
