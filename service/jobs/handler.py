"""Define what a kind of job implements, and the run of one job."""

import threading
from dataclasses import dataclass, field
from typing import Protocol

from service.audio.budget import Budget, stopping_error
from service.store.jobs import JobRecord
from service.usecases.service import Call


@dataclass(frozen=True)
class JobRun:
    """One run of a job.

    Attributes:
        call: request on behalf of the caller who created the job; the audit log names that caller.
        job: record of the job when the run began.
        halt: event that is set when the job is canceled or the service is about to end.
    """

    call: Call
    job: JobRecord
    halt: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Return if the run should go on. Raises `OffkeyError` (stopping) if not."""
        if self.halt.is_set():
            raise stopping_error()

    def budget(self) -> Budget:
        """Return the budget of one clip."""
        return Budget(self.call.service.settings.limits.max_decoded_samples, self.halt)


class JobHandler(Protocol):
    """Implements one kind of job."""

    def run(self, run: JobRun) -> str | None:
        """Do the work, or what is left of it: an interrupted job is run again.

        Returns:
            The result, if it has a name.

        Raises:
            JobOverError: the job was canceled.
            OffkeyError: the work cannot be done, or not now, or `JobRun.halt` is set.
        """

    def clean(self, run: JobRun, *, done: bool) -> None:
        """Remove what is not needed once the job is over."""
