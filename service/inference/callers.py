"""Runs of the graph on the threads that ask for them: how a processor is used best."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnxruntime as ort

from service.audio import Samples
from service.budget import Budget
from service.inference.layout import Layout
from service.inference.runs import INPUT, Outputs

# After two runs at once a crowd is expected for so long: then each run keeps to a core of its own.
_CROWD_SECONDS = 0.5


class Callers:
    """Each window by itself on the thread of its caller: on a processor a batch is no faster, and takes more memory.

    A run that is the only one goes over all cores that make it faster; beside others it keeps to its own, which
    gives more clips.
    """

    def __init__(self, crowded: ort.InferenceSession, alone: ort.InferenceSession, layout: Layout) -> None:
        """Take a session for runs beside others and one for a run that is alone, which may be the same."""
        self.provider: str = crowded.get_providers()[0]
        self.workers = layout.workers
        self._crowded = crowded
        self._alone = alone
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
        del self._crowded, self._alone

    @contextmanager
    def _session(self) -> Iterator[ort.InferenceSession]:
        with self._lock:
            self._running += 1
            now = time.monotonic()
            if self._running > 1:
                self._crowd_until = now + _CROWD_SECONDS
            session = self._crowded if now < self._crowd_until else self._alone
        try:
            yield session
        finally:
            with self._lock:
                self._running -= 1
