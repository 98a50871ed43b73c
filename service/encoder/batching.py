"""Runs of the graph in batches on one session: how a GPU is used best."""

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

# They wait for the device most of the time, and what waits for it fills its batches.
_WORKERS_PER_CORE = 4
_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")


class BatchingRunner:
    """Windows of all callers, run by one thread in batches.

    A batch is what waits when the one before it ends: under load it grows, and a window that is alone waits for
    nobody. All its windows are of one length, as padding would change embeddings; its rows are filled up to a power
    of two, so that the device sees few shapes.
    """

    def __init__(self, session: ort.InferenceSession, max_samples: int) -> None:
        """Run batches of at most `max_samples` samples together, or of one window that is longer."""
        self.provider: str = session.get_providers()[0]
        self.workers = _WORKERS_PER_CORE * cores()
        self._session = session
        self._max_samples = max_samples
        self._buffer = np.zeros(max_samples, np.float32)
        _pin(self._buffer, self.provider)
        self._waiting: deque[_Window] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="offkey-batches", daemon=True)
        self._thread.start()

    def run(self, windows: Sequence[Samples], outputs: Sequence[str], budget: Budget) -> Iterator[Outputs]:
        # No more of one clip at once than a batch holds, so that others come in between.
        most = max(1, self._max_samples // max(map(len, windows), default=1))
        for first in range(0, len(windows), most):
            budget.check()
            asked = [_Window(samples, tuple(outputs), budget) for samples in windows[first : first + most]]
            with self._changed:
                if self._closed:
                    raise stopping_error()
                self._waiting.extend(asked)
                self._changed.notify()
            for one in asked:
                yield one.answer.result()

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
                self._do(batch)
            except Exception as error:
                if len(batch) == 1:
                    batch[0].answer.set_exception(error)
                    continue
                # What one window does to the device is no reason to fail the others.
                logger.exception("a batch of %d windows failed; each is run by itself", len(batch))
                with self._changed:
                    self._waiting.extendleft(reversed([one.by_itself() for one in batch]))

    def _next(self) -> "list[_Window] | None":
        """What to run next, oldest first; an empty list: nobody waits for it; None: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch, others = list[_Window](), deque[_Window]()
            for one in self._waiting:
                if self._closed or one.budget.unwanted.is_set():
                    one.answer.set_exception(stopping_error())
                elif not batch or (one.goes_with(batch[0]) and self._has_room(batch)):
                    batch.append(one)
                else:
                    others.append(one)
            self._waiting = others
            return None if self._closed else batch

    def _has_room(self, batch: "list[_Window]") -> bool:
        return (len(batch) + 1) * len(batch[0].samples) <= self._max_samples

    def _do(self, batch: "list[_Window]") -> None:
        found: Outputs = self._session.run(batch[0].outputs, {INPUT: self._stacked([one.samples for one in batch])})
        for row, one in enumerate(batch):
            one.answer.set_result([output[row : row + 1] for output in found])

    def _stacked(self, windows: Sequence[Samples]) -> NDArray[np.float32]:
        """Of `n` windows `(rows, samples)`, `rows` the next power of two if it fits; those behind `n` are silent."""
        length = len(windows[0])
        if length > self._max_samples:
            return windows[0][None, :]
        rows = min(1 << (len(windows) - 1).bit_length(), self._max_samples // length)
        stacked = self._buffer[: rows * length].reshape(rows, length)
        for row, window in enumerate(windows):
            stacked[row] = window
        stacked[len(windows) :] = 0.0
        return stacked


class _Window:
    """A window that waits, and where its outputs will be."""

    def __init__(self, samples: Samples, outputs: tuple[str, ...], budget: Budget, *, alone: bool = False) -> None:
        self.samples = samples
        self.outputs = outputs
        self.budget = budget
        self.alone = alone
        self.answer: Future[Outputs] = Future()

    def goes_with(self, other: "_Window") -> bool:
        return (
            not (self.alone or other.alone)
            and len(self.samples) == len(other.samples)
            and self.outputs == other.outputs
        )

    def by_itself(self) -> "_Window":
        """The same, to be run in a batch of its own."""
        again = _Window(self.samples, self.outputs, self.budget, alone=True)
        again.answer = self.answer
        return again


def _pin(buffer: NDArray[np.float32], provider: str) -> None:
    """Lock the pages that inputs are copied from: ONNX Runtime's Python interface has no allocator for such memory."""
    if provider == "CPUExecutionProvider":
        return
    for name in _RUNTIMES:
        try:
            failed = ctypes.CDLL(name).cudaHostRegister(ctypes.c_void_p(buffer.ctypes.data), buffer.nbytes, 0)
        except OSError:
            continue
        if not failed:
            return
    logger.warning("the input buffer cannot be locked into memory; copies to the GPU are slower")
