"""Jobs: work that outlasts a request."""

from enum import StrEnum


class JobKind(StrEnum):
    """Kind of work that a job does."""

    ENROLL = "enroll"  # the clips of a zip archive
    SNAPSHOT = "snapshot"
    REEMBED = "reembed"  # moves banks to the bundle that serves


class JobState(StrEnum):
    """State of a job. The states `done`, `failed` and `canceled` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


class EntryStatus(StrEnum):
    """Result for one entry of a job: a clip of an archive, or a machine."""

    ENROLLED = "enrolled"
    DUPLICATE = "duplicate"
    HELD_BACK = "held-back"
    REFUSED = "refused"
    MOVED = "moved"
    UNCHANGED = "unchanged"
