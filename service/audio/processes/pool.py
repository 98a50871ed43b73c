"""The service's side of decoding: as many decoders as there are callers at once, each replaced when it fails."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import numpy as np

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import UNLIMITED, Budget, stopping_error
from service.audio.decode import Waveform
from service.audio.processes.messages import CLIP, HEAD, JSON, MAX_JSON, SAMPLES, STATUS, DecodeLimits

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1
_CLIPS_PER_DECODER = 1_000  # then it is replaced, before what a library leaks can bring it to its limit
_START_SECONDS = 60.0  # for a cold disk
_POLL_SECONDS = 0.1  # how often a caller that waits looks whether it should still
_STATUS_SECONDS = 1.0
_BUFFER_BYTES = 2**20  # a 10 s clip passes without waiting; the system may give less

_ENVIRON = {
    "OPENBLAS_NUM_THREADS": "1",  # a process with threads cannot fork safely
    # glibc gives large blocks back at once, and to have them again costs a decoder as much as decoding a short WAV.
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
}


class ForkServerError(Exception):
    """Decoders cannot be started here."""


class _ConnectionLostError(Exception):
    """A decoder ended, or says what no decoder says."""


class Decoders:
    """Decodes clips in child processes. Safe to call from many threads; each call that runs has its own decoder."""

    def __init__(self, decode_limits: DecodeLimits, *, wall_seconds: float) -> None:
        """Start the nursery, without waiting for it.

        Args:
            decode_limits: limits of each decoder.
            wall_seconds: time for one clip.
        """
        self.peak_bytes = 0  # most memory that a decoder has held
        self.lost: dict[str, int] = dict.fromkeys(("cpu", "crash", "killed", "time"), 0)
        self._decode_limits = decode_limits
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._closed = False
        self._warned = False
        self._control, self._process = self._start()

    def check(self) -> None:
        """Wait until a decoder is ready. Raises `NurseryError` if none comes."""
        try:
            self._put_back(self._take())
        except (OSError, _ConnectionLostError) as error:
            raise ForkServerError(
                "No decoder could be started; see the lines above. The service needs to start child processes of "
                f"{sys.executable} ({error})."
            ) from error

    def decode(self, data: bytes, sample_rate: int, budget: Budget = UNLIMITED) -> Waveform:
        """Decode a clip as `service.audio.decode` does, at a rate in Hz.

        Raises:
            OffkeyError: as `decode`; or the clip took more CPU time than a clip may, or crashed its decoder; or the
                decoder was lost by no fault of the clip; or the service is stopping.
        """
        deadline = time.monotonic() + self._wall_seconds
        try:
            decoder = self._take()
        except (OSError, _ConnectionLostError) as error:
            budget.check()
            raise self._lost("killed", None) from error
        try:
            waveform = decoder.decode(data, sample_rate, budget, deadline)
        except TimeoutError:
            decoder.close()
            raise self._lost("time", None) from None
        except (OSError, _ConnectionLostError) as error:
            status = decoder.status()
            decoder.close()
            if self._closed:
                raise stopping_error() from None
            raise self._lost(_cause(status), status) from error
        except BaseException:
            # What a refused file did to the memory of its decoder is nothing that the next clip should meet.
            decoder.close()
            raise
        finally:
            self.peak_bytes = max(self.peak_bytes, decoder.peak_bytes)
        self._put_back(decoder)
        return waveform

    def close(self) -> None:
        """End the nursery and all decoders, also those at work: their clips are answered that the service stops."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.close()
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
        control, other = socket.socketpair()
        control.settimeout(_START_SECONDS)
        with other:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "service.audio.processes.fork_server",
                    str(other.fileno()),
                    self._decode_limits.to_json(),
                ],
                # It finds what we found; -P keeps the folder that it is started in out of it.
                env={**os.environ, **_ENVIRON, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )
        return control, process

    def _take(self) -> "_Decoder":
        with self._lock:
            if self._closed:
                raise stopping_error()
            while self._idle:
                decoder = self._idle.pop()  # the one that was at work last: its memory is warm
                if decoder.idle():
                    return decoder
                decoder.close()
            connection, theirs = socket.socketpair()
            for end in (connection, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            lifeline, its_lifeline = socket.socketpair()
            with theirs, its_lifeline:
                try:
                    socket.send_fds(self._control, [b"."], [theirs.fileno(), its_lifeline.fileno()])
                except OSError:
                    logger.error("the process that starts decoders has ended and is started again")
                    self._control.close()
                    self._process.kill()
                    self._process.wait()
                    self._control, self._process = self._start()
                    socket.send_fds(self._control, [b"."], [theirs.fileno(), its_lifeline.fileno()])
        decoder = _Decoder(connection, lifeline, self._decode_limits)
        try:
            missing = decoder.handshake(time.monotonic() + _START_SECONDS)
        except BaseException:
            decoder.close()
            raise
        if missing and not self._warned:
            self._warned = True
            logger.warning("decoding runs without limits that this platform lacks: %s", ", ".join(missing))
        return decoder

    def _put_back(self, decoder: "_Decoder") -> None:
        with self._lock:
            if not self._closed and decoder.clips < _CLIPS_PER_DECODER:
                self._idle.append(decoder)
                return
        decoder.close()

    def _lost(self, cause: str, status: int | None) -> OffkeyError:
        with self._lock:
            self.lost[cause] += 1
        logger.warning("a decoder was lost (%s, wait status %s)", cause, status)
        if cause == "cpu":
            return OffkeyError(
                ErrorKind.COSTLY_AUDIO,
                f"The clip took more than {self._decode_limits.cpu_seconds} s of CPU time to decode. Send a "
                "shorter clip, or WAV.",
                max_decode_cpu_seconds=self._decode_limits.cpu_seconds,
            )
        if cause == "crash":
            return OffkeyError(
                ErrorKind.UNDECODABLE_AUDIO,
                "The clip is not audio that can be decoded (it crashed its decoder). Write the file again with another "
                "program, or send WAV.",
            )
        why = (
            f"The clip was not decoded within {self._wall_seconds:g} s, though it had not used the CPU time of "
            "one: the machine is overloaded."
            if cause == "time"
            else "The process that decoded the clip was killed from outside, as happens when memory runs out."
        )
        return OffkeyError(
            ErrorKind.DECODER_LOST,
            f"{why} Send it again in {RETRY_AFTER_SECONDS} s.",
            retry_after=RETRY_AFTER_SECONDS,
        )


def _cause(status: int | None) -> str:
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return "killed"
    return "cpu" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU else "crash"


class _Decoder:
    """One decoder, as the service has it. Its errors: `_LineError`, `OSError`, and `TimeoutError` at the deadline."""

    def __init__(self, connection: socket.socket, lifeline: socket.socket, decode_limits: DecodeLimits) -> None:
        self.clips = 0
        self.peak_bytes = 0
        self._connection = connection
        self._lifeline = lifeline
        self._decode_limits = decode_limits
        connection.settimeout(_POLL_SECONDS)
        lifeline.settimeout(_STATUS_SECONDS)

    def handshake(self, deadline: float) -> list[str]:
        """Wait until it is ready; return the limits that it could not take."""
        missing: list[str] = self._json(*self._head(UNLIMITED, deadline), UNLIMITED, deadline)["without"]
        return missing

    def decode(self, data: bytes, sample_rate: int, budget: Budget, deadline: float) -> Waveform:
        """Send a clip and receive its samples. After any error it is of no use any more."""
        self.clips += 1
        longest = round((self._decode_limits.limits.max_seconds + 1) * sample_rate) * 4  # bytes of samples
        self._send(CLIP.pack(len(data), sample_rate, budget.samples, budget.left), budget, deadline)
        self._send(data, budget, deadline)
        samples = bytearray()
        while (head := self._head(budget, deadline))[0] == SAMPLES:
            if len(samples) + head[1] > longest:
                raise _ConnectionLostError("more samples than a clip can have")
            samples += self._receive(head[1], budget, deadline)
            self._check_deadline(budget, deadline)  # there may always be something to receive
        answer = self._json(*head, budget, deadline)
        self.peak_bytes = int(answer["peak_bytes"])
        if "failed" in answer:
            logger.error("a clip failed in its decoder:\n%s", answer["failed"])
            raise OffkeyError(
                ErrorKind.UNDECODABLE_AUDIO,
                "The clip is not audio that can be decoded (its decoder failed). Write the file again with another "
                "program, or send WAV.",
            )
        if "refused" in answer:
            raise OffkeyError(ErrorKind(answer["refused"]), answer["detail"], **answer["values"])
        budget.spend(answer["spent"])
        waveform = np.frombuffer(samples, dtype=np.float32)  # (samples,)
        return Waveform(waveform, sample_rate, answer["sample_rate"], answer["channels"], answer["clipped"])

    def idle(self) -> bool:
        """Whether it lives and says nothing, as it should between clips."""
        self._connection.settimeout(0)
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        finally:
            self._connection.settimeout(_POLL_SECONDS)
        return False

    def close(self) -> None:
        """Kill it if it lives."""
        self._connection.close()
        self._lifeline.close()

    def status(self) -> int | None:
        """How it ended, as `waitpid` says it; nothing if even the nursery does not know."""
        with suppress(OSError):
            status = self._lifeline.recv(STATUS.size)
            return int(STATUS.unpack(status)[0]) if len(status) == STATUS.size else None
        return None

    def _head(self, budget: Budget, deadline: float) -> tuple[bytes, int]:
        kind, length = HEAD.unpack(self._receive(HEAD.size, budget, deadline))
        return kind, length

    def _json(self, kind: bytes, length: int, budget: Budget, deadline: float) -> dict[str, Any]:
        if kind != JSON or length > MAX_JSON:
            raise _ConnectionLostError("not what a decoder says")
        fields: dict[str, Any] = json.loads(self._receive(length, budget, deadline))
        return fields

    def _send(self, data: bytes, budget: Budget, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            with suppress(TimeoutError):
                rest = rest[self._connection.send(rest) :]
                continue
            self._check_deadline(budget, deadline)

    def _receive(self, count: int, budget: Budget, deadline: float) -> bytes:
        parts: list[bytes] = []
        while count:
            with suppress(TimeoutError):
                part = self._connection.recv(count)
                if not part:
                    raise _ConnectionLostError("the decoder has ended")
                parts.append(part)
                count -= len(part)
                continue
            self._check_deadline(budget, deadline)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @staticmethod
    def _check_deadline(budget: Budget, deadline: float) -> None:
        budget.check()
        if time.monotonic() > deadline:
            raise TimeoutError
