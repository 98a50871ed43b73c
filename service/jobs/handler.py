"""A job that is being worked on, and what every kind of job can do."""

import threading
from dataclasses import dataclass, field
from typing import Protocol

from service.audio.budget import Budget, stopping_error
from service.store.jobs import JobRecord
from service.usecases.service import Context


@dataclass(frozen=True)
class Work:
    """A job with the context of who asked for it.

    Attributes:
        context: the adapters; the store does what the caller's key allows, and the audit log names it.
        job: as it was when the work began, or began again.
        halt: set when the job is canceled or the service is about to end.
    """

    context: Context
    job: JobRecord
    halt: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Return if the work should go on. Raises `OffkeyError` (stopping) if not."""
        if self.halt.is_set():
            raise stopping_error()

    def budget(self) -> Budget:
        """What one clip may cost."""
        return Budget(self.context.settings.max_decoded_samples, self.halt)


class Kind(Protocol):
    """What jobs of a kind do."""

    def run(self, work: Work) -> str | None:
        """Do it, or what is left of it: a job that was interrupted is run again.

        Returns:
            What came of it, if that can be named.

        Raises:
            JobOverError: the job was canceled.
            OffkeyError: it cannot be done, or not now, or `Work.halt` is set.
        """

    def clean(self, work: Work, *, done: bool) -> None:
        """Remove what nobody needs once the job is over."""
