"""What `/score` answers."""

from typing import Literal

from pydantic import Field

from offkey.schemas.acoustics import AcousticsWarning, ClipAcoustics
from offkey.schemas.base import Answer
from offkey.schemas.machines import Threshold
from offkey.vocabulary import Domain


class Neighbor(Answer):
    """An enrolled window that sounds like the scored one."""

    clip_id: int
    name: str
    domain: Domain
    start_s: float
    distance: float = Field(description="cosine distance of the embeddings, 0 to 2")


class Region(Answer):
    """Seconds and frequencies of a window that stand out. What is inside need not stand out everywhere."""

    start_s: float
    end_s: float
    low_hz: float
    high_hz: float
    deviation: float = Field(
        description="deviations by which its strongest half second and band is off what is usual there"
    )
    change: Literal["louder", "quieter"] = Field(description="than usual")
    p_value: float = Field(
        description="at most this share of healthy windows like those enrolled has anything that stands out as much"
    )


class Localization(Answer):
    """Where a window differs from how the enrolled clips usually sound: where to listen. It decides nothing."""

    domain: Domain = Field(description="whose clips it was held against, those it is more like")
    mean_deviation: float = Field(description="what every second healthy window like those enrolled reaches somewhere")
    regions: list[Region] = Field(description="the strongest three at most, strongest first, above `usual_standout`")
    step_s: float
    profile: list[float] = Field(description="the largest standout in each step of `step_s` seconds")


class WindowScore(Answer):
    """The score of one window of a clip."""

    start_s: float
    end_s: float
    anomaly_score: float
    neighbors: list[Neighbor]
    localization: Localization | None = Field(None, description="null: `localization_note` says why")


class ClipScore(Answer):
    """The score of one clip: that of its most anomalous window."""

    name: str
    seconds: float
    anomaly_score: float = Field(description="higher is more anomalous; it is neither bounded nor a probability")
    is_anomalous: bool = Field(description="whether the score is above the decision threshold")
    p_value: float = Field(
        description="at most this share of healthy clips like those enrolled scores as high; not the probability of a "
        "fault"
    )
    acoustics: ClipAcoustics
    warnings: list[AcousticsWarning] = Field(
        description="where the conditions are unlike all enrolled clips, of either domain; empty also where those were "
        "enrolled before conditions were measured"
    )
    windows: list[WindowScore]


class Scores(Answer):
    """The answer of `POST /score`."""

    machine_id: str
    bundle: str = Field(examples=["offkey-small/3"])
    backend: str = Field(
        examples=["nearest"], description="how scores are measured; docs/scoring.md lists the backends"
    )
    generation: int = Field(description="of the bank that was compared with")
    threshold: Threshold
    clips: list[ClipScore]
    localization_note: str | None = Field(
        None, description="why nothing was localized, or which enrolled clips could not be compared with"
    )
    timing_ms: dict[str, float] = Field(
        {},
        description="milliseconds of the request until this answer was made, by stage; they add up to `total`",
        examples=[{"receive": 0.3, "queue": 0.1, "decode": 0.2, "embed": 6.1, "search": 0.1, "total": 7.7}],
    )
