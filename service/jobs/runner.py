"""Works jobs off, one after another, on a thread of low priority: requests come first."""

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import JobKind, JobState
from service.jobs.handler import Kind, Work
from service.store.jobs import JobOverError, JobRecord
from service.usecases.service import Context

logger = logging.getLogger(__name__)

_NICE = 10
_RETRY_SECONDS = 1.0
_ATTEMPTS = 5
_PASSING = frozenset({ErrorKind.STORE_BUSY, ErrorKind.DECODER_LOST, ErrorKind.NOT_READY})


@dataclass
class _Tries:
    """How often a job failed for what may pass by itself."""

    job_id: int = 0
    count: int = 0


class Runner:
    """The thread, and how to speak to it."""

    def __init__(self, context: Context, kinds: Mapping[JobKind, Kind]) -> None:
        self._context = context
        self._kinds = kinds
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._work: Work | None = None
        self._tries = _Tries()
        self._thread = threading.Thread(target=self._run, name="offkey-jobs", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether the thread is at work."""
        return self._work is not None

    def start(self) -> None:
        """Go on with what was interrupted, then with what waits."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._wake.set()

    def canceled(self, job: JobRecord) -> None:
        """A job was canceled: give it up if it is at hand, clean up if it is not."""
        with self._lock:
            if self._work is not None and self._work.job.job_id == job.job_id:
                self._work.halt.set()
                return
        self._clean(Work(self._context, job), done=False)

    def stop(self) -> None:
        """Give up what is at hand; it goes on when the service is started again."""
        self._stopping.set()
        self._wake.set()
        with self._lock:
            if self._work is not None:
                self._work.halt.set()

    def join(self, seconds: float) -> None:
        """Wait up to `seconds` for the thread to end."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        with suppress(AttributeError, OSError):  # of this thread, where the system has that
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                job = self._context.store.jobs.next()
            except OffkeyError as error:
                logger.warning("the next job cannot be read: %s", error.detail)
                self._stopping.wait(_RETRY_SECONDS)
                continue
            if job is None:
                self._wake.wait()
                continue
            work = Work(self._context.by(job.caller), job)
            with self._lock:
                self._work = work
            try:
                if self._stopping.is_set():
                    return
                self._do(work)
            finally:
                with self._lock:
                    self._work = None

    def _do(self, work: Work) -> None:
        job = work.job
        jobs = work.context.store.jobs
        try:
            result = self._kinds[job.kind].run(work)
            jobs.end(job.job_id, JobState.DONE, result=result)
        except JobOverError:
            logger.info("job %d was canceled", job.job_id)
            self._clean(work, done=False)
            return
        except OffkeyError as error:
            self._failed(work, error)
            return
        except Exception:
            if self._stopping.is_set():  # what it works with was closed under it; it goes on at the next start
                return
            logger.exception("job %d failed", job.job_id)
            self._end(work, OffkeyError(ErrorKind.INTERNAL, "The service failed; the log says why."))
            return
        logger.info("job %d is done", job.job_id)
        self._clean(work, done=True)

    def _failed(self, work: Work, error: OffkeyError) -> None:
        if self._stopping.is_set():  # it goes on at the next start
            return
        if work.halt.is_set():  # canceled
            self._clean(work, done=False)
            return
        if self._tries.job_id != work.job.job_id:
            self._tries = _Tries(work.job.job_id)
        self._tries.count += 1
        # A disk that is full may have room again; of what else may pass so many attempts are enough.
        waits_for_room = error.kind is ErrorKind.STORAGE_FULL and work.job.kind is not JobKind.SNAPSHOT
        if waits_for_room or (error.kind in _PASSING and self._tries.count < _ATTEMPTS):
            logger.warning("job %d is interrupted and tried again: %s", work.job.job_id, error.detail)
            self._stopping.wait(_RETRY_SECONDS * min(self._tries.count, 30))
            return
        logger.warning("job %d failed: %s", work.job.job_id, error.detail)
        self._end(work, error)

    def _end(self, work: Work, error: OffkeyError) -> None:
        try:
            work.context.store.jobs.end(work.job.job_id, JobState.FAILED, error=error)
        except JobOverError:
            pass
        except OffkeyError as full:  # it is tried again, and fails again
            logger.warning("the end of job %d cannot be written: %s", work.job.job_id, full.detail)
            self._stopping.wait(_RETRY_SECONDS)
            return
        self._clean(work, done=False)

    def _clean(self, work: Work, *, done: bool) -> None:
        try:
            self._kinds[work.job.kind].clean(work, done=done)
        except OSError:
            logger.exception("what job %d leaves behind cannot be removed", work.job.job_id)
