"""What `/enroll`, `/feedback` and the list of clips answer."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from offkey.schemas.acoustics import AcousticsWarning, ClipAcoustics
from offkey.schemas.base import Answer
from offkey.schemas.machines import ClipCounts
from offkey.vocabulary import Domain


class Clip(Answer):
    """An enrolled clip."""

    clip_id: int
    name: str
    recording: str | None = Field(description="that it was cut from; null: it is a recording of its own")
    domain: Domain
    seconds: float
    sample_rate: int = Field(description="of the file, Hz")
    channels: int = Field(description="of the file")
    windows: int
    sha256: str = Field(description="of the bytes that were posted")
    enrolled_at: datetime
    acoustics: ClipAcoustics | None = Field(description="as measured; null: enrolled before it was measured")


class ClipList(Answer):
    """Clips of a machine, by id. `next_after` is the `after` of the next page, null on the last."""

    clips: list[Clip]
    next_after: int | None


class EnrolledClip(Answer):
    """What became of one clip."""

    name: str
    clip_id: int | None = Field(description="null: held back")
    status: Literal["enrolled", "duplicate", "held-back"] = Field(
        description="duplicate: the same bytes were enrolled before, nothing was added; held-back: it sounds "
        "plainly anomalous, nothing was added"
    )
    domain: Domain
    note: str | None = Field(
        None,
        description="why it was held back, which enrolled clip it nearly repeats, or that it is enrolled as a piece of "
        "another recording",
    )
    anomaly_score: float | None = Field(
        None, description="against the bank before; null where that had too few recordings of the domain to ask"
    )
    warnings: list[AcousticsWarning] = Field(
        [], description="how it was recorded unlike the others of its domain, those of the request included"
    )


class Enrollment(Answer):
    """The answer of `POST /enroll`. If one clip cannot be used, none is enrolled; clips held back leave the others."""

    machine_id: str
    generation: int = Field(description="of the bank with these clips in it")
    clips: list[EnrolledClip]
    bank: ClipCounts


class Judgment(Answer):
    """How a bank sees a clip."""

    anomaly_score: float
    decision_threshold: float
    calibration_version: str
    is_anomalous: bool


class FeedbackOnClip(Answer):
    """What became of a clip that was called healthy."""

    name: str
    clip_id: int
    status: Literal["enrolled", "duplicate"]
    before: Judgment
    after: Judgment = Field(
        description="with the request's clips in the bank, this one's recording left out: whether its like would raise "
        "the alarm again; of a clip that a coreset leaves out, against the bank as it is"
    )


class Feedback(Answer):
    """The answer of `POST /feedback`: alarms that were false, and what knowing that changes."""

    machine_id: str
    generation: int
    clips: list[FeedbackOnClip]
