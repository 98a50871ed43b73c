"""Define the answers about enrolled clips: `/enroll`, `/feedback` and the list of clips."""

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
    recording: str | None = Field(description="recording that the clip is cut from; null if the clip is a recording")
    domain: Domain
    seconds: float = Field(description="duration, in seconds")
    sample_rate: int = Field(description="sample rate of the file, in Hz")
    channels: int = Field(description="number of channels in the file")
    windows: int = Field(description="number of windows in the bank")
    sha256: str = Field(description="SHA-256 of the posted bytes, in hexadecimal")
    enrolled_at: datetime
    acoustics: ClipAcoustics | None = Field(
        description="acoustic properties; null if an older version enrolled the clip"
    )


class ClipList(Answer):
    """Clips of a machine, by id. `next_after` is the `after` of the next page, null on the last."""

    clips: list[Clip]
    next_after: int | None


class EnrolledClip(Answer):
    """Result of enrolling one clip."""

    name: str
    clip_id: int | None = Field(description="id of the clip; null if it was held back")
    status: Literal["enrolled", "duplicate", "held-back"] = Field(
        description="`duplicate` if the same bytes are enrolled already, `held-back` if the clip is clearly anomalous; "
        "neither adds anything"
    )
    domain: Domain
    note: str | None = Field(
        None,
        description="reason for holding the clip back, or the enrolled clip or recording that it repeats",
    )
    anomaly_score: float | None = Field(
        None, description="score against the bank before this request; null if it had too few recordings of the domain"
    )
    warnings: list[AcousticsWarning] = Field(
        [], description="differences from the other clips of the domain, including those of the request"
    )


class Enrollment(Answer):
    """Answer of `POST /enroll`.

    If one clip cannot be used, none is enrolled. Clips held back do not affect the others.
    """

    machine_id: str
    generation: int = Field(description="generation of the bank with these clips")
    clips: list[EnrolledClip]
    bank: ClipCounts = Field(description="number of enrolled clips after this request")


class Judgment(Answer):
    """Score and decision for a clip against one state of the bank."""

    anomaly_score: float
    decision_threshold: float
    calibration_version: str
    is_anomalous: bool


class FeedbackOnClip(Answer):
    """Result of reporting one clip as a false alarm."""

    name: str
    clip_id: int
    status: Literal["enrolled", "duplicate"]
    before: Judgment = Field(description="decision against the bank before this request")
    after: Judgment = Field(
        description="decision for a similar clip: the bank contains the clips of the request except for those of the "
        "same recording; for a clip outside the coreset, the bank is unchanged"
    )


class Feedback(Answer):
    """Answer of `POST /feedback`: the decision for each clip before and after it was enrolled."""

    machine_id: str
    generation: int
    clips: list[FeedbackOnClip]
