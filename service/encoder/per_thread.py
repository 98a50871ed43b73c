"""Runs the graph on the calling threads, for a CPU."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnxruntime as ort

from service.audio.budget import Budget
from service.audio.decode import Samples
from service.encoder.runner import INPUT, Outputs
from service.encoder.threads import ThreadCounts

# After two concurrent runs, each run uses `busy_threads` for this time.
_BUSY_SECONDS = 0.5


class PerThreadRunner:
    """Runs each window alone on the thread of its caller. On a CPU a batch is no faster, and takes more memory.

    A single run uses all the threads that make it faster. Concurrent runs use fewer threads each, for more throughput.
    """

    def __init__(
        self, busy_threads: ort.InferenceSession, idle_threads: ort.InferenceSession, thread_counts: ThreadCounts
    ) -> None:
        """Use one session for concurrent runs, and one for a single run. They may be the same."""
        self.provider: str = busy_threads.get_providers()[0]
        self.workers = thread_counts.workers
        self._busy = busy_threads
        self._idle = idle_threads
        self._lock = threading.Lock()
        self._running = 0
        self._busy_until = 0.0  # time of the monotonic clock

    def run(self, windows: Sequence[Samples], outputs: Sequence[str], budget: Budget) -> Iterator[Outputs]:
        for window in windows:
            budget.check()
            with self._session() as session:
                found: Outputs = session.run(outputs, {INPUT: window[None, :]})
            yield found

    def close(self) -> None:
        del self._busy, self._idle

    @contextmanager
    def _session(self) -> Iterator[ort.InferenceSession]:
        with self._lock:
            self._running += 1
            now = time.monotonic()
            if self._running > 1:
                self._busy_until = now + _BUSY_SECONDS
            session = self._busy if now < self._busy_until else self._idle
        try:
            yield session
        finally:
            with self._lock:
                self._running -= 1
