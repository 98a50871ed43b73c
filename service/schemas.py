"""What the service answers and takes as JSON. The routes, the use cases and the client share these."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.domain.drift import Verdict
from service.domain.envelope import Measure
from service.domain.machine import Domain
from service.domain.threshold import MIN_FALSE_ALARM_RATE, Rule

MAX_DESCRIPTION_CHARACTERS = 500


class _Answer(BaseModel):
    # Clients made from the OpenAPI document must live with fields that a later version adds.
    model_config = ConfigDict(allow_inf_nan=False, from_attributes=True)


class MachineSettings(BaseModel):
    """What `PUT /machines/{machine_id}` sets. A field left out goes back to its default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    description: str = Field("", max_length=MAX_DESCRIPTION_CHARACTERS, examples=["Exhaust fan, hall 2"])


class ThresholdSettings(BaseModel):
    """How a machine's decision threshold is chosen. A field left out goes back to its default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rule: Rule = Field(
        Rule.CONFORMAL,
        description="conformal: promises the rate; gamma: a quantile as the DCASE baselines have it, manual: "
        "`decision_threshold` itself, neither of which promises anything",
    )
    false_alarm_rate: float | None = Field(
        None,
        ge=MIN_FALSE_ALARM_RATE,
        lt=1,
        description="share of healthy clips that may raise an alarm; null: the service's default, of gamma 0.1",
    )
    decision_threshold: float | None = Field(None, description="of the manual rule, on the scale of the scores")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.rule is Rule.MANUAL:
            if self.decision_threshold is None or self.false_alarm_rate is not None:
                raise ValueError("the manual rule takes decision_threshold and no false_alarm_rate")
        elif self.decision_threshold is not None:
            raise ValueError(f"the {self.rule} rule takes no decision_threshold; the manual rule does")
        return self


class ThresholdChoice(_Answer):
    """How a machine's decision threshold is chosen."""

    rule: Rule
    false_alarm_rate: float | None = Field(description="null: manual")
    decision_threshold: float | None = Field(description="of the manual rule")


class ClipCounts(_Answer):
    """Enrolled clips by domain."""

    source: int
    target: int


class DomainPromise(_Answer):
    """What the decision threshold promises to healthy clips of one domain, like those enrolled."""

    domain: Domain
    clips: int = Field(description="enrolled clips of the domain")
    recordings: int = Field(description="n, the recordings they were cut from")
    promised_false_alarm_rate: float = Field(
        description="the requested rate, or 1 / (n + 1) where that is larger; 1 is nothing: of a single recording, and "
        "of rules that promise nothing"
    )
    lowest_false_alarm_rate: float = Field(description="the lowest that n recordings can promise, 1 / (n + 1)")
    above_threshold: int = Field(description="enrolled clips whose leave-one-out score is above the threshold")
    borrowed_scale: bool = Field(
        description="too few recordings for a deviation of their own: the other domain's is used"
    )


class Threshold(_Answer):
    """The decision threshold in force, and what it promises."""

    decision_threshold: float = Field(description="a clip whose anomaly score is higher is anomalous")
    rule: Rule
    calibration_version: str = Field(
        description="equal where the threshold is: it names the generation, the backend, the rule and what was asked",
        examples=["3:mahalanobis:conformal:0.05"],
    )
    requested_false_alarm_rate: float | None = Field(description="null: manual")
    promised_false_alarm_rate: float = Field(description="the largest of the domains': it holds for either")
    domains: list[DomainPromise] = Field(description="those enrolled; nothing is promised for another")
    warnings: list[str] = Field(description="what cannot be promised, and what to enroll for it")


class Machine(_Answer):
    """A machine and its memory bank."""

    machine_id: str
    description: str
    generation: int = Field(description="moves on with every change of the bank, and never back for a machine id")
    clips: ClipCounts
    embedding_space_id: str | None = Field(description="null until a clip is enrolled")
    threshold_settings: ThresholdChoice = Field(description="in force, defaults filled in")
    threshold: Threshold | None = Field(description="null until two recordings of one domain are enrolled")
    created_at: datetime


class MachineSummary(_Answer):
    """A machine in a list."""

    machine_id: str
    description: str
    generation: int
    clips: ClipCounts
    created_at: datetime


class MachineList(_Answer):
    """Machines, by id. `next_after` is the `after` of the next page, null on the last."""

    machines: list[MachineSummary]
    next_after: str | None


class ClipConditions(_Answer):
    """Under which conditions a clip was recorded, as far as its sound tells."""

    level_dbfs: float = Field(description="RMS around the mean, dBFS")
    noise_floor_dbfs: float = Field(description="level of the quietest tenth, in frames of 64 ms, dBFS")
    bandwidth_hz: float = Field(
        description="highest frequency within 60 dB of the spectrum's peak, up to half the model's sample rate, Hz"
    )
    clipped: float = Field(description="share of the file's samples at full scale, 0 to 1")
    sample_rate: int = Field(description="of the file, Hz")
    channels: int = Field(description="of the file")


class ConditionWarning(_Answer):
    """Something about a clip that is unlike what was enrolled: whatever it scores, look at this first."""

    kind: Measure
    detail: str = Field(
        examples=[
            "The level is 16 dB below all 20 enrolled clips (-42 against -26 to -22 dBFS): the microphone was moved or "
            "muted, or its gain was turned. The score says little."
        ]
    )


class Clip(_Answer):
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


class ClipList(_Answer):
    """Clips of a machine, by id. `next_after` is the `after` of the next page, null on the last."""

    clips: list[Clip]
    next_after: int | None


class EnrolledClip(_Answer):
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
    warnings: list[ConditionWarning] = Field(
        [], description="how it was recorded unlike the others of its domain, those of the request included"
    )


class Enrollment(_Answer):
    """The answer of `POST /enroll`. If one clip cannot be used, none is enrolled; clips held back leave the others."""

    machine_id: str
    generation: int = Field(description="of the bank with these clips in it")
    clips: list[EnrolledClip]
    bank: ClipCounts


class Judgment(_Answer):
    """How a bank sees a clip."""

    anomaly_score: float
    decision_threshold: float
    calibration_version: str
    is_anomalous: bool


class FeedbackOnClip(_Answer):
    """What became of a clip that was called healthy."""

    name: str
    clip_id: int
    status: Literal["enrolled", "duplicate"]
    before: Judgment
    after: Judgment = Field(
        description="with the request's clips in the bank, this one's recording left out: whether its like would raise "
        "the alarm again"
    )


class Feedback(_Answer):
    """The answer of `POST /feedback`: alarms that were false, and what knowing that changes."""

    machine_id: str
    generation: int
    clips: list[FeedbackOnClip]


class NoiseClip(_Answer):
    """A clip of the background without the machine."""

    noise_id: int
    name: str
    seconds: float
    windows: int
    sha256: str = Field(description="of the bytes that were posted")
    enrolled_at: datetime


class NoiseEnrollment(_Answer):
    """The answer of `POST /noise`."""

    machine_id: str
    added: int = Field(description="clips that were not there already")
    noise: list[NoiseClip] = Field(description="those of the request, in its order")


class NoiseList(_Answer):
    """The background of a machine."""

    noise: list[NoiseClip]


class Neighbor(_Answer):
    """An enrolled window that sounds like the scored one."""

    clip_id: int
    name: str
    domain: Domain
    start_s: float
    distance: float = Field(description="cosine distance of the embeddings, 0 to 2")


class WindowScore(_Answer):
    """The score of one window of a clip."""

    start_s: float
    end_s: float
    anomaly_score: float
    neighbors: list[Neighbor]


class ClipScore(_Answer):
    """The score of one clip: that of its most anomalous window."""

    name: str
    seconds: float
    anomaly_score: float = Field(description="higher is more anomalous; it is neither bounded nor a probability")
    is_anomalous: bool = Field(description="whether the score is above the decision threshold")
    p_value: float = Field(
        description="at most this share of healthy clips like those enrolled scores as high; not the probability of a "
        "fault"
    )
    conditions: ClipConditions
    warnings: list[ConditionWarning] = Field(
        description="where the conditions are unlike all enrolled clips, of either domain; empty also where those were "
        "enrolled before conditions were measured"
    )
    windows: list[WindowScore]


class Scores(_Answer):
    """The answer of `POST /score`."""

    machine_id: str
    bundle: str = Field(examples=["offkey-small/2"])
    backend: str = Field(
        examples=["nearest"], description="how scores are measured; docs/scoring.md lists the backends"
    )
    generation: int = Field(description="of the bank that was compared with")
    threshold: Threshold
    clips: list[ClipScore]


class DriftWindow(_Answer):
    """Scores of late beside the bank's own leave-one-out scores."""

    window: str = Field(examples=["last 100 clips"])
    n: int = Field(description="clips that were scored, whether or not they were anomalous")
    since: datetime | None = Field(description="when the first of them was scored")
    median_shift: float | None = Field(description="of their median from the bank's, in the bank's deviations (sigma)")
    p_value: float | None = Field(description="two-sided, of the rank-sum test: small where no drift would do this")
    verdict: Verdict


class DomainDrift(_Answer):
    """The drift of clips that are nearest to one domain."""

    domain: Domain
    recordings: int = Field(description="enrolled ones, that the scores are held against")
    verdict: Verdict
    windows: list[DriftWindow]


class DriftReport(_Answer):
    """Whether what is scored lately scores as the enrolled clips do among each other."""

    machine_id: str
    generation: int = Field(description="of the bank; every change of it begins anew")
    verdict: Verdict = Field(
        description="unknown: too little to tell; steady; higher: wear, a fault that grows, or other conditions; lower"
    )
    advice: str = Field(description="what to do")
    domains: list[DomainDrift]


class Info(_Answer):
    """What runs here, and every limit."""

    version: str
    bundle: str
    embedding_space_id: str
    sample_rate: int = Field(description="clips are resampled to it, Hz")
    window_seconds: float
    hop_seconds: float
    min_clip_seconds: float
    device: str = Field(description="as asked for")
    provider: str = Field(description="the ONNX Runtime provider in use")
    backend: str = Field(description="how scores are measured")
    false_alarm_rate: float = Field(description="requested for machines that set none")
    formats: list[str]
    limits: dict[str, int | float] = Field(description="docs/settings.md has the units")


class Health(_Answer):
    """Answer of the probes."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """Every error, as `application/problem+json` (RFC 9457). The values behind it stand beside these fields."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:offkey:problem:empty-bank"])
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
