"""Define the answer of `/score`."""

from typing import Literal

from pydantic import Field

from offkey.schemas.acoustics import AcousticsWarning, ClipAcoustics
from offkey.schemas.base import Answer
from offkey.schemas.machines import Threshold
from offkey.vocabulary import Condition, Domain, View


class Neighbor(Answer):
    """An enrolled window similar to the scored one."""

    clip_id: int
    name: str
    domain: Domain
    start_s: float = Field(description="start of the window in its clip, in seconds")
    distance: float = Field(description="cosine distance of the embeddings, from 0 to 2")


class Region(Answer):
    """A rectangle of time and frequency that contains a deviation. It may contain normal parts too."""

    start_s: float = Field(description="start in the clip, in seconds")
    end_s: float = Field(description="end in the clip, in seconds")
    low_hz: float = Field(description="lowest frequency, in Hz")
    high_hz: float = Field(description="highest frequency, in Hz")
    deviation: float = Field(
        description="largest difference from the enrolled clips in any half second and band, in standard deviations"
    )
    change: Literal["louder", "quieter"] = Field(description="direction of the difference from the enrolled clips")
    p_value: float = Field(
        description="upper bound of the share of healthy windows with such a deviation anywhere, from 0 to 1"
    )


class Localization(Answer):
    """Differences between a window and the enrolled clips: where to listen. The decision does not depend on them."""

    domain: Domain = Field(description="domain of the enrolled clips in the comparison, the more similar one")
    median_deviation: float = Field(
        description="typical largest deviation of a healthy window, in standard deviations: half of them reach it"
    )
    regions: list[Region] = Field(description="regions above `median_deviation`, the strongest first, three at most")
    step_s: float = Field(description="time between two values of `profile`, in seconds")
    profile: list[float] = Field(description="largest deviation in each step, in standard deviations")


class WindowScore(Answer):
    """The score of one window of a clip."""

    start_s: float = Field(description="start in the clip, in seconds")
    end_s: float = Field(description="end in the clip, in seconds")
    anomaly_score: float
    neighbors: list[Neighbor] = Field(description="nearest enrolled windows, the nearest first")
    localization: Localization | None = Field(
        None,
        description="differences from the enrolled clips; null if not requested, or as `localization_note` explains",
    )


class DecidedBy(Answer):
    """The part of a clip that its score is about."""

    view: View = Field(description="`steady` compares whole windows, `event` the most anomalous half second")
    start_s: float = Field(description="start in the clip, in seconds")
    end_s: float = Field(description="end in the clip, in seconds")


class ClipScore(Answer):
    """Score of one clip."""

    name: str
    seconds: float = Field(description="duration, in seconds")
    anomaly_score: float = Field(
        description="anomaly score; higher is more anomalous, without bounds, and not a probability"
    )
    decision_threshold: float = Field(
        description="threshold that decides about this clip: that of the domain which it fits or is nearest to, for "
        "clips of its length"
    )
    is_anomalous: bool = Field(description="true if the anomaly score is above `decision_threshold`")
    domain: Domain = Field(description="domain that the clip is nearest to")
    decided_by: DecidedBy
    p_value: float | None = Field(
        description="upper bound of the share of healthy clips with such a score, from 0 to 1; not the probability of "
        "a fault; null if no enrolled clips are comparable"
    )
    promised_false_alarm_rate: float | None = Field(
        description="promised rate for healthy clips like this one, from 0 to 1; null if nothing is promised"
    )
    promise_note: str | None = Field(None, description="reason why nothing is promised; null if something is")
    condition: Condition = Field(
        description="whether the clip was recorded like the enrolled clips; `warnings` has the differences"
    )
    advice: str | None = Field(
        None, description="next step for a clip that was recorded unlike the enrolled ones; otherwise null"
    )
    acoustics: ClipAcoustics
    warnings: list[AcousticsWarning] = Field(
        description="differences from all enrolled clips of both domains in how the clip was recorded; empty too if an "
        "older version enrolled them"
    )
    windows: list[WindowScore]


class Scores(Answer):
    """Answer of `POST /score`."""

    machine_id: str
    bundle: str = Field(description="name and version of the model bundle", examples=["offkey-small/4"])
    backend: str = Field(
        examples=["nearest"], description="scoring backend; docs/reference/scoring.md lists all of them"
    )
    generation: int = Field(description="generation of the bank in the comparison")
    threshold: Threshold
    clips: list[ClipScore]
    localization_note: str | None = Field(
        None, description="reason why nothing was localized, or enrolled clips that could not be compared"
    )
    timing_ms: dict[str, float] = Field(
        {},
        description="time of the request by stage, in milliseconds; the stages add up to `total`",
        examples=[{"receive": 0.3, "queue": 0.1, "decode": 0.2, "embed": 6.1, "search": 0.1, "total": 7.7}],
    )
