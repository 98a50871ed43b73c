"""What `/jobs`, `/snapshots` and `/models` answer."""

from datetime import datetime

from pydantic import Field

from offkey.schemas.base import Answer
from offkey.vocabulary import EntryStatus, JobKind, JobState


class Job(Answer):
    """Work that outlasts a request."""

    job_id: int
    kind: JobKind
    state: JobState = Field(description="over are done, failed and canceled")
    machine_id: str | None = Field(description="null: it is about the whole service")
    total: int | None = Field(description="entries of the archive, or machines to move; null: not known")
    done: int = Field(description="of the total")
    entries: dict[EntryStatus, int] = Field(description="what became of those that are done")
    result: str | None = Field(description="of a snapshot that is done, its name")
    problem: str | None = Field(description="of a failed job, the last part of the problem's type")
    detail: str | None = Field(description="of a failed job, what was wrong and what to do")
    who: str = Field(description="name of the key that asked for it")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class JobList(Answer):
    """Jobs, the newest first. `next_before` is the `before` of the next page, null on the last."""

    jobs: list[Job]
    next_before: int | None


class JobEntry(Answer):
    """What became of an entry of an archive, or of a machine."""

    number: int = Field(description="place in the archive, from 0; of a machine, its key")
    name: str
    status: EntryStatus
    clip_id: int | None = Field(description="of a clip that is enrolled, or was before")
    problem: str | None = Field(description="of a refused one, the last part of the problem's type")
    detail: str | None = Field(description="why it was refused or held back, or what else to know")


class JobEntryList(Answer):
    """Entries of a job by number. `next_after` is the `after` of the next page, null on the last."""

    entries: list[JobEntry]
    next_after: int | None


class Snapshot(Answer):
    """A snapshot that is kept."""

    name: str
    bytes: int
    created_at: datetime


class SnapshotList(Answer):
    """Snapshots, the oldest first."""

    snapshots: list[Snapshot]


class Model(Answer):
    """A bundle, and the banks that it made."""

    bundle: str | None = Field(description="name and version; null: no bundle at hand made these banks")
    embedding_space_id: str
    serves: bool = Field(description="whether banks of this space can be scored")
    current: bool = Field(description="whether new banks are made with it, and others are moved to it")
    machines: int = Field(description="whose banks are of this space")
    clips: int
    clips_without_audio: int = Field(description="these keep their machines from being moved to another bundle")


class ModelList(Answer):
    """Bundles that serve, and embedding spaces that banks are in."""

    models: list[Model]
