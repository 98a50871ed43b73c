"""Define the answers about jobs, snapshots and model bundles."""

from datetime import datetime

from pydantic import Field

from offkey.schemas.base import Answer
from offkey.vocabulary import EntryStatus, JobKind, JobState


class Job(Answer):
    """Work that continues after the request that started it."""

    job_id: int
    kind: JobKind
    state: JobState = Field(description="state; `done`, `failed` and `canceled` are final")
    machine_id: str | None = Field(description="machine id; null if the job is about the whole service")
    total: int | None = Field(
        description="number of archive entries, or of machines to move; null if it is not known yet"
    )
    done: int = Field(description="number of entries or machines that are done")
    entries: dict[EntryStatus, int] = Field(description="number of entries or machines by result")
    result: str | None = Field(description="name of the finished snapshot; null for other jobs")
    problem: str | None = Field(
        description="error kind of a failed job, the last part of the problem's type; otherwise null"
    )
    detail: str | None = Field(
        description="reason for the failure and the recommended action; null if the job did not fail"
    )
    who: str = Field(description="name of the key that started the job")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class JobList(Answer):
    """Jobs, the newest first. `next_before` is the `before` of the next page, null on the last."""

    jobs: list[Job]
    next_before: int | None


class JobEntry(Answer):
    """Result of one entry of an archive, or of one machine."""

    number: int = Field(description="place in the archive from 0, or internal number of the machine")
    name: str = Field(description="name of the entry, or machine id")
    status: EntryStatus
    clip_id: int | None = Field(description="id of the clip; null if it is not enrolled")
    problem: str | None = Field(
        description="error kind of a refused entry, the last part of the problem's type; otherwise null"
    )
    detail: str | None = Field(description="reason why the entry was refused or held back, or a note about it")


class JobEntryList(Answer):
    """Entries of a job by number. `next_after` is the `after` of the next page, null on the last."""

    entries: list[JobEntry]
    next_after: int | None


class Snapshot(Answer):
    """A snapshot that the service stores."""

    name: str
    bytes: int = Field(description="size of the file, in bytes")
    created_at: datetime


class SnapshotList(Answer):
    """Snapshots, the oldest first."""

    snapshots: list[Snapshot]


class Model(Answer):
    """A model bundle or an embedding space, and the banks in it."""

    bundle: str | None = Field(description="name and version; null if no loaded bundle made these banks")
    embedding_space_id: str
    serves: bool = Field(description="true if banks of this space can be scored")
    current: bool = Field(description="true if new banks are made with this bundle, and others are moved to it")
    machines: int = Field(description="number of machines with a bank of this space")
    clips: int = Field(description="number of clips in these banks")
    clips_without_audio: int = Field(
        description="number of clips without stored audio; their machines cannot move to another bundle"
    )


class ModelList(Answer):
    """The loaded bundles, and the embedding spaces of all banks."""

    models: list[Model]
