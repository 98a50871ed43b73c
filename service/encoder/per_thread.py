"""Runs of the graph on the threads that ask for them: how a processor is used best."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnxruntime as ort

from service.audio.budget import Budget
from service.audio.decode import Samples
from service.encoder.runner import INPUT, Outputs
from service.encoder.threads import ThreadCounts

# After two runs at once a crowd is expected for so long: then each run keeps to a core of its own.
_CROWD_SECONDS = 0.5


class PerThreadRunner:
    """Each window by itself on the thread of its caller: on a processor a batch is no faster, and takes more memory.

    A run that is the only one goes over all cores that make it faster; beside others it keeps to its own, which
    gives more clips.
    """

    def __init__(
        self, busy_threads: ort.InferenceSession, idle_threads: ort.InferenceSession, thread_counts: ThreadCounts
    ) -> None:
        """Take a session for runs beside others and one for a run that is alone, which may be the same."""
        self.provider: str = busy_threads.get_providers()[0]
        self.workers = thread_counts.workers
        self._busy = busy_threads
        self._idle = idle_threads
        self._lock = threading.Lock()
        self._running = 0
        self._crowd_until = 0.0  # of the monotonic clock

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
                self._crowd_until = now + _CROWD_SECONDS
            session = self._busy if now < self._crowd_until else self._idle
        try:
            yield session
        finally:
            with self._lock:
                self._running -= 1
