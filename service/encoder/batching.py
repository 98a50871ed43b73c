"""Runs the graph in batches on one session, for a GPU."""

import ctypes
import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.audio.budget import Budget, stopping_error
from service.audio.decode import Samples
from service.encoder.processor import cores
from service.encoder.runner import INPUT, Outputs

logger = logging.getLogger(__name__)

_WORKERS_PER_CORE = 4  # they mostly wait for the device, and more of them fill larger batches
_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")


class BatchingRunner:
    """Runs the windows of all callers in batches, on one thread.

    A batch holds the windows that are waiting when the previous batch ends: it grows under load, and a single window
    runs at once. All windows of a batch have one length, because padding would change embeddings. The number of rows is
    padded to a power of two, so that the device sees few shapes.
    """

    def __init__(self, session: ort.InferenceSession, max_samples: int) -> None:
        """Start the thread.

        Args:
            session: session on the device.
            max_samples: largest batch, in samples. A longer window runs in a batch of its own.
        """
        self.provider: str = session.get_providers()[0]
        self.workers = _WORKERS_PER_CORE * cores()
        self._session = session
        self._max_samples = max_samples
        self._buffer = np.zeros(max_samples, np.float32)
        _pin(self._buffer, self.provider)
        self._queue: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="offkey-batches", daemon=True)
        self._thread.start()

    def run(self, windows: Sequence[Samples], outputs: Sequence[str], budget: Budget) -> Iterator[Outputs]:
        # One batch of a clip at a time, so that other clips run in between.
        most = max(1, self._max_samples // max(map(len, windows), default=1))
        for first in range(0, len(windows), most):
            budget.check()
            requests = [_Request(samples, tuple(outputs), budget) for samples in windows[first : first + most]]
            with self._changed:
                if self._closed:
                    raise stopping_error()
                self._queue.extend(requests)
                self._changed.notify()
            for one in requests:
                yield one.future.result()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        del self._session

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            if not batch:
                continue
            try:
                self._run(batch)
            except Exception as error:
                if len(batch) == 1:
                    batch[0].future.set_exception(error)
                    continue
                # An error that one window causes must not fail the others.
                logger.exception("a batch of %d windows failed; each window is run alone", len(batch))
                with self._changed:
                    self._queue.extendleft(reversed([one.isolated() for one in batch]))

    def _next(self) -> "list[_Request] | None":
        """Return the next batch, oldest first: empty if no caller waits any more, None if the runner is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            batch, others = list[_Request](), deque[_Request]()
            for one in self._queue:
                if self._closed or one.budget.unwanted.is_set():
                    one.future.set_exception(stopping_error())
                elif not batch or (one.compatible_with(batch[0]) and self._has_room(batch)):
                    batch.append(one)
                else:
                    others.append(one)
            self._queue = others
            return None if self._closed else batch

    def _has_room(self, batch: "list[_Request]") -> bool:
        return (len(batch) + 1) * len(batch[0].samples) <= self._max_samples

    def _run(self, batch: "list[_Request]") -> None:
        outputs: Outputs = self._session.run(batch[0].outputs, {INPUT: self._stacked([one.samples for one in batch])})
        for row, one in enumerate(batch):
            one.future.set_result([output[row : row + 1] for output in outputs])

    def _stacked(self, windows: Sequence[Samples]) -> NDArray[np.float32]:
        """Stack windows to `(rows, samples)`, with rows of zeros up to the next power of two if that fits."""
        length = len(windows[0])
        if length > self._max_samples:
            return windows[0][None, :]
        rows = min(1 << (len(windows) - 1).bit_length(), self._max_samples // length)
        stacked = self._buffer[: rows * length].reshape(rows, length)
        for row, window in enumerate(windows):
            stacked[row] = window
        stacked[len(windows) :] = 0.0
        return stacked


class _Request:
    """Waiting window, and the future of its outputs."""

    def __init__(self, samples: Samples, outputs: tuple[str, ...], budget: Budget, *, isolated: bool = False) -> None:
        self.samples = samples
        self.outputs = outputs
        self.budget = budget
        self.is_isolated = isolated
        self.future: Future[Outputs] = Future()

    def compatible_with(self, other: "_Request") -> bool:
        return (
            not (self.is_isolated or other.is_isolated)
            and len(self.samples) == len(other.samples)
            and self.outputs == other.outputs
        )

    def isolated(self) -> "_Request":
        """Return the same request for a batch of its own."""
        again = _Request(self.samples, self.outputs, self.budget, isolated=True)
        again.future = self.future
        return again


def _pin(buffer: NDArray[np.float32], provider: str) -> None:
    """Page-lock the input buffer. The Python interface of ONNX Runtime has no allocator for such memory."""
    if provider == "CPUExecutionProvider":
        return
    for name in _RUNTIMES:
        try:
            failed = ctypes.CDLL(name).cudaHostRegister(ctypes.c_void_p(buffer.ctypes.data), buffer.nbytes, 0)
        except OSError:
            continue
        if not failed:
            return
    logger.warning("the input buffer cannot be page-locked; copies to the GPU are slower")
