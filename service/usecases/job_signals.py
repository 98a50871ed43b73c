"""Signal between requests and the job runner of the same process. The store stays the source of truth."""

import threading
from collections import deque

from service.store.jobs import JobRecord


class JobSignals:
    """Wakes the runner and stops a running job. A lost signal delays work, and changes no result."""

    def __init__(self) -> None:
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[int, threading.Event] = {}
        self._canceled: deque[JobRecord] = deque()

    def wake(self) -> None:
        """Signal that a job was queued, or that the runner is to end."""
        self._wake.set()

    def wait(self) -> None:
        """Wait for `wake`."""
        self._wake.wait()

    def clear(self) -> None:
        """Reset `wake`. Called before the queue is read, so that no signal is missed."""
        self._wake.clear()

    def started(self, job_id: int, halt: threading.Event) -> None:
        """Register a running job. `halt` is set when it is to stop."""
        with self._lock:
            self._running[job_id] = halt

    def ended(self, job_id: int) -> None:
        """Remove a job that no longer runs."""
        with self._lock:
            self._running.pop(job_id, None)

    def cancel(self, job: JobRecord) -> None:
        """Stop a canceled job if it runs here. Otherwise let the runner clean up after it."""
        with self._lock:
            halt = self._running.get(job.job_id)
            if halt is not None:
                halt.set()
                return
            self._canceled.append(job)
        self._wake.set()

    def pop_canceled(self) -> JobRecord | None:
        """Return a job that was canceled before it ran, each once. None if there is no other."""
        with self._lock:
            return self._canceled.popleft() if self._canceled else None

    def halt(self) -> None:
        """Stop the running job."""
        with self._lock:
            for halt in self._running.values():
                halt.set()

    @property
    def busy(self) -> bool:
        """Whether a job runs in this process."""
        return bool(self._running)
