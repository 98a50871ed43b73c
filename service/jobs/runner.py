"""Run jobs one after another on a thread of low priority. Requests come first."""

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import JobKind, JobState
from service.jobs.handler import JobHandler, JobRun
from service.store.jobs import JobOverError, JobRecord
from service.usecases.service import Service

logger = logging.getLogger(__name__)

_NICE = 10
_RETRY_SECONDS = 1.0
_ATTEMPTS = 5
_TRANSIENT = frozenset({ErrorKind.STORE_BUSY, ErrorKind.DECODER_LOST, ErrorKind.NOT_READY})


@dataclass
class _Attempts:
    """Number of failures of a job for transient reasons."""

    job_id: int = 0
    count: int = 0


class JobRunner:
    """The thread that runs jobs."""

    def __init__(self, service: Service, handlers: Mapping[JobKind, JobHandler]) -> None:
        self._service = service
        self._signals = service.job_signals
        self._handlers = handlers
        self._stopping = threading.Event()
        self._attempts = _Attempts()
        self._thread = threading.Thread(target=self._loop, name="offkey-jobs", daemon=True)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self._signals.busy

    def start(self) -> None:
        """Resume the interrupted job, then run the queue."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt the running job. It is resumed when the service starts again."""
        self._stopping.set()
        self._signals.wake()
        self._signals.halt()

    def join(self, seconds: float) -> None:
        """Wait up to `seconds` for the thread to end."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _loop(self) -> None:
        with suppress(AttributeError, OSError):  # of this thread, where the system supports it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stopping.is_set():
            self._signals.clear()
            while (canceled := self._signals.pop_canceled()) is not None:
                self._clean(JobRun(self._service.call(canceled.caller), canceled), done=False)
            try:
                with self._service.store.begin() as tx:
                    job = tx.next_job()
            except OffkeyError as error:
                logger.warning("the next job cannot be read: %s", error.detail)
                self._stopping.wait(_RETRY_SECONDS)
                continue
            if job is None:
                self._signals.wait()
                continue
            self._start(job)

    def _start(self, job: JobRecord) -> None:
        run = JobRun(self._service.call(job.caller), job)
        self._signals.started(job.job_id, run.halt)
        try:
            if not self._stopping.is_set():
                self._run(run)
        finally:
            self._signals.ended(job.job_id)

    def _run(self, run: JobRun) -> None:
        job = run.job
        try:
            result = self._handlers[job.kind].run(run)
            with run.call.store.begin() as tx:
                tx.finish_job(job.job_id, JobState.DONE, result=result)
        except JobOverError:
            logger.info("job %d was canceled", job.job_id)
            self._clean(run, done=False)
            return
        except OffkeyError as error:
            self._failed(run, error)
            return
        except Exception:
            if self._stopping.is_set():  # the store was closed during the run; the job is resumed at the next start
                return
            logger.exception("job %d failed", job.job_id)
            self._fail(run, OffkeyError(ErrorKind.INTERNAL, "The service failed; see its log."))
            return
        logger.info("job %d is done", job.job_id)
        self._clean(run, done=True)

    def _failed(self, run: JobRun, error: OffkeyError) -> None:
        if self._stopping.is_set():  # resumed at the next start
            return
        if run.halt.is_set():  # canceled
            self._clean(run, done=False)
            return
        if self._attempts.job_id != run.job.job_id:
            self._attempts = _Attempts(run.job.job_id)
        self._attempts.count += 1
        # A full disk may have space again later. Other transient faults get a limited number of attempts.
        waits_for_space = error.kind is ErrorKind.STORAGE_FULL and run.job.kind is not JobKind.SNAPSHOT
        if waits_for_space or (error.kind in _TRANSIENT and self._attempts.count < _ATTEMPTS):
            logger.warning("job %d is interrupted and tried again: %s", run.job.job_id, error.detail)
            self._stopping.wait(_RETRY_SECONDS * min(self._attempts.count, 30))
            return
        logger.warning("job %d failed: %s", run.job.job_id, error.detail)
        self._fail(run, error)

    def _fail(self, run: JobRun, error: OffkeyError) -> None:
        try:
            with run.call.store.begin() as tx:
                tx.finish_job(run.job.job_id, JobState.FAILED, error=error)
        except JobOverError:
            pass
        except OffkeyError as full:  # the job is tried again, and fails again
            logger.warning("the end of job %d cannot be written: %s", run.job.job_id, full.detail)
            self._stopping.wait(_RETRY_SECONDS)
            return
        self._clean(run, done=False)

    def _clean(self, run: JobRun, *, done: bool) -> None:
        try:
            self._handlers[run.job.kind].clean(run, done=done)
        except OSError:
            logger.exception("files of job %d cannot be removed", run.job.job_id)
