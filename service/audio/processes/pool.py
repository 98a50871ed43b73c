"""Pool of decoding workers, as the service sees it: one per concurrent call, each replaced when it fails."""

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
_CLIPS_PER_WORKER = 1_000  # a worker is then replaced, before leaks of a library reach its memory limit
_START_SECONDS = 60.0  # long enough for a cold disk
_POLL_SECONDS = 0.1  # interval of checks for the deadline and the budget
_STATUS_SECONDS = 1.0
_BUFFER_BYTES = 2**20  # a 10 s clip is sent without waiting; the system may limit it

_ENVIRON = {
    "OPENBLAS_NUM_THREADS": "1",  # a process with threads cannot fork safely
    # glibc returns large blocks to the system at once; allocating them again takes as long as decoding a short WAV.
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
}


class ForkServerError(Exception):
    """Workers cannot be started here."""


class _ConnectionLostError(Exception):
    """A worker exited, or sent an invalid message."""


class DecoderPool:
    """Decodes clips in child processes. Safe to call from many threads; each running call has its own worker.

    Attributes:
        limits: limits of each worker.
        peak_bytes: largest memory of a worker so far, in bytes.
        lost: number of workers lost so far, by cause.
    """

    def __init__(self, limits: DecodeLimits, *, wall_seconds: float) -> None:
        """Start the fork server without waiting for it.

        Args:
            limits: limits of each worker.
            wall_seconds: time for one clip.
        """
        self.limits = limits
        self.peak_bytes = 0
        self.lost: dict[str, int] = dict.fromkeys(("cpu", "crash", "killed", "time"), 0)
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._closed = False
        self._warned = False
        self._control, self._process = self._start()

    def check(self) -> None:
        """Wait until a worker is ready. Raises `ForkServerError` if none can be started."""
        try:
            self._put_back(self._take())
        except (OSError, _ConnectionLostError) as error:
            raise ForkServerError(
                "No decoder process could be started; see the lines above. The service must be able to start child "
                f"processes of {sys.executable} ({error})."
            ) from error

    def decode(self, data: bytes, sample_rate: int, budget: Budget = UNLIMITED) -> Waveform:
        """Decode a clip in a child process. For arguments see `service.audio.decode.decode`.

        Raises:
            OffkeyError: as `service.audio.decode.decode`; or the clip exceeded the CPU time or crashed its worker; or
                the worker was lost for another reason; or the service is stopping.
        """
        deadline = time.monotonic() + self._wall_seconds
        try:
            worker = self._take()
        except (OSError, _ConnectionLostError) as error:
            budget.check()
            raise self._lost("killed", None) from error
        try:
            waveform = worker.decode(data, sample_rate, budget, deadline)
        except TimeoutError:
            worker.close()
            raise self._lost("time", None) from None
        except (OSError, _ConnectionLostError) as error:
            status = worker.status()
            worker.close()
            if self._closed:
                raise stopping_error() from None
            raise self._lost(_cause(status), status) from error
        except BaseException:
            # A refused file may have left the worker's memory damaged, so the next clip gets another worker.
            worker.close()
            raise
        finally:
            self.peak_bytes = max(self.peak_bytes, worker.peak_bytes)
        self._put_back(worker)
        return waveform

    def close(self) -> None:
        """End the fork server and all workers. Clips in progress fail with the error that the service is stopping."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()
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
                    self.limits.to_json(),
                ],
                # The same import path as ours; -P excludes the working directory.
                env={**os.environ, **_ENVIRON, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )
        return control, process

    def _take(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise stopping_error()
            while self._idle:
                worker = self._idle.pop()  # the last one used; its memory is warm
                if worker.idle():
                    return worker
                worker.close()
            connection, theirs = socket.socketpair()
            for end in (connection, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            lifeline, its_lifeline = socket.socketpair()
            with theirs, its_lifeline:
                try:
                    socket.send_fds(self._control, [b"."], [theirs.fileno(), its_lifeline.fileno()])
                except OSError:
                    logger.error("the fork server has ended and is started again")
                    self._control.close()
                    self._process.kill()
                    self._process.wait()
                    self._control, self._process = self._start()
                    socket.send_fds(self._control, [b"."], [theirs.fileno(), its_lifeline.fileno()])
        worker = _Worker(connection, lifeline, self.limits)
        try:
            missing = worker.handshake(time.monotonic() + _START_SECONDS)
        except BaseException:
            worker.close()
            raise
        if missing and not self._warned:
            self._warned = True
            logger.warning("decoding runs without limits that this platform lacks: %s", ", ".join(missing))
        return worker

    def _put_back(self, worker: "_Worker") -> None:
        with self._lock:
            if not self._closed and worker.clips < _CLIPS_PER_WORKER:
                self._idle.append(worker)
                return
        worker.close()

    def _lost(self, cause: str, status: int | None) -> OffkeyError:
        with self._lock:
            self.lost[cause] += 1
        logger.warning("a decoder process was lost (%s, wait status %s)", cause, status)
        if cause == "cpu":
            return OffkeyError(
                ErrorKind.COSTLY_AUDIO,
                f"The clip took more than {self.limits.cpu_seconds} s of CPU time to decode. Send a "
                "shorter clip, or WAV.",
                max_decode_cpu_seconds=self.limits.cpu_seconds,
            )
        if cause == "crash":
            return OffkeyError(
                ErrorKind.UNDECODABLE_AUDIO,
                "The clip is not audio that can be decoded (it crashed its decoder). Write the file again with another "
                "program, or send WAV.",
            )
        why = (
            f"The clip was not decoded within {self._wall_seconds:g} s, although its CPU time was not used up: the "
            "machine is overloaded."
            if cause == "time"
            else "The process that decoded the clip was killed, for example because memory ran out."
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


class _Worker:
    """One worker. Its methods raise `_ConnectionLostError`, `OSError`, and `TimeoutError` at the deadline."""

    def __init__(self, connection: socket.socket, lifeline: socket.socket, limits: DecodeLimits) -> None:
        self.clips = 0
        self.peak_bytes = 0
        self._connection = connection
        self._lifeline = lifeline
        self._limits = limits
        connection.settimeout(_POLL_SECONDS)
        lifeline.settimeout(_STATUS_SECONDS)

    def handshake(self, deadline: float) -> list[str]:
        """Wait until the worker is ready. Returns the names of limits that could not be set."""
        missing: list[str] = self._json(*self._head(UNLIMITED, deadline), UNLIMITED, deadline)["without"]
        return missing

    def decode(self, data: bytes, sample_rate: int, budget: Budget, deadline: float) -> Waveform:
        """Send a clip and receive its samples. The worker cannot be used again after an error."""
        self.clips += 1
        longest = round((self._limits.audio.max_seconds + 1) * sample_rate) * 4  # bytes of samples
        self._send(CLIP.pack(len(data), sample_rate, budget.samples, budget.left), budget, deadline)
        self._send(data, budget, deadline)
        samples = bytearray()
        while (head := self._head(budget, deadline))[0] == SAMPLES:
            if len(samples) + head[1] > longest:
                raise _ConnectionLostError("more samples than a clip can have")
            samples += self._receive(head[1], budget, deadline)
            self._check_deadline(budget, deadline)  # a worker that never stops sending would not time out
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
        return Waveform(
            waveform,
            sample_rate,
            answer["sample_rate"],
            answer["channels"],
            answer["clipped"],
            answer["canceled_db"],
            answer["out_of_band"],
            answer["codec"],
        )

    def idle(self) -> bool:
        """Return whether the worker is alive and silent, as it must be between clips."""
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
        """Kill the worker if it is alive."""
        self._connection.close()
        self._lifeline.close()

    def status(self) -> int | None:
        """Return the wait status of an exited worker, or None if the fork server does not report it."""
        with suppress(OSError):
            status = self._lifeline.recv(STATUS.size)
            return int(STATUS.unpack(status)[0]) if len(status) == STATUS.size else None
        return None

    def _head(self, budget: Budget, deadline: float) -> tuple[bytes, int]:
        kind, length = HEAD.unpack(self._receive(HEAD.size, budget, deadline))
        return kind, length

    def _json(self, kind: bytes, length: int, budget: Budget, deadline: float) -> dict[str, Any]:
        if kind != JSON or length > MAX_JSON:
            raise _ConnectionLostError("invalid message")
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
                    raise _ConnectionLostError("the worker has exited")
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
