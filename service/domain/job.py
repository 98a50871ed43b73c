"""Jobs: work that outlasts a request."""

from enum import StrEnum


class JobKind(StrEnum):
    """What a job does."""

    ENROLL = "enroll"  # the clips of a zip archive
    SNAPSHOT = "snapshot"
    REEMBED = "reembed"  # moves banks to the bundle that serves


class JobState(StrEnum):
    """How far a job is. Over are `done`, `failed` and `canceled`."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


class EntryStatus(StrEnum):
    """What became of one entry of a job: a clip of an archive, or a machine."""

    ENROLLED = "enrolled"
    DUPLICATE = "duplicate"
    HELD_BACK = "held-back"
    REFUSED = "refused"
    MOVED = "moved"
    UNCHANGED = "unchanged"
