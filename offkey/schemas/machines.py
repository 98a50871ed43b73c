"""Define the JSON about machines and their decision thresholds."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from offkey.schemas.base import Answer
from offkey.vocabulary import MIN_FALSE_ALARM_RATE, Domain, Rule

MAX_DESCRIPTION_CHARACTERS = 500


class MachineSettings(BaseModel):
    """Settings of a machine. A missing field is reset to its default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    description: str = Field("", max_length=MAX_DESCRIPTION_CHARACTERS, examples=["Exhaust fan, hall 2"])


class ThresholdSettings(BaseModel):
    """Rule for a machine's decision threshold. A missing field is reset to its default."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={  # the same rules as in `_fit_together`
            "anyOf": [
                {
                    "required": ["rule", "decision_threshold"],
                    "properties": {
                        "rule": {"const": "manual"},
                        "decision_threshold": {"type": "number"},
                        "false_alarm_rate": {"type": "null"},
                    },
                },
                {
                    "properties": {
                        "rule": {"enum": ["conformal", "gamma"]},
                        "decision_threshold": {"type": "null"},
                    }
                },
            ]
        },
    )

    rule: Rule = Field(
        Rule.CONFORMAL,
        description="`conformal` promises the false-alarm rate; `gamma` is a quantile as in the DCASE baselines and "
        "`manual` is `decision_threshold` itself, both without a promise",
    )
    # Strict: `false` is no threshold of 0.
    false_alarm_rate: float | None = Field(
        None,
        strict=True,
        ge=MIN_FALSE_ALARM_RATE,
        lt=1,
        description="accepted share of healthy clips with an alarm; null for the service's default, 0.1 for gamma",
    )
    decision_threshold: float | None = Field(
        None, strict=True, description="threshold on the scale of the scores, for the manual rule only"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.rule is Rule.MANUAL:
            if self.decision_threshold is None or self.false_alarm_rate is not None:
                raise ValueError("the manual rule takes decision_threshold and no false_alarm_rate")
        elif self.decision_threshold is not None:
            raise ValueError(f"the {self.rule} rule takes no decision_threshold; the manual rule does")
        return self


class ThresholdChoice(Answer):
    """Rule of a machine's decision threshold, with defaults filled in."""

    rule: Rule
    false_alarm_rate: float | None = Field(
        description="requested false-alarm rate, from 0 to 1; null for the manual rule"
    )
    decision_threshold: float | None = Field(description="threshold of the manual rule; otherwise null")


class ClipCounts(Answer):
    """Number of enrolled clips by domain."""

    source: int
    target: int


class DomainPromise(Answer):
    """False-alarm rate that the decision threshold promises for healthy clips of one domain."""

    domain: Domain
    clips: int = Field(description="number of enrolled clips of the domain")
    compared_clips: int = Field(
        description="number of these clips that new clips are compared with; fewer than all only with a coreset"
    )
    recordings: int = Field(description="n, the number of recordings that the compared clips are cut from")
    decision_threshold: float = Field(
        description="threshold of the domain; a clip is anomalous if it is above the thresholds of all domains"
    )
    promised_false_alarm_rate: float | None = Field(
        description="the requested rate, or 1 / (n + 1) if that is larger; null if nothing is promised, as for a "
        "single recording and for the rules `gamma` and `manual`"
    )
    lowest_false_alarm_rate: float | None = Field(
        description="lowest rate that n recordings can promise, 1 / (n + 1); null for a single recording"
    )
    above_threshold: int = Field(description="number of compared clips with a leave-one-out score above the threshold")
    pooled_scale: bool = Field(
        description="true if the domain has too few recordings and uses the score scale of the other domain"
    )


class Threshold(Answer):
    """The current decision threshold, and the false-alarm rate it promises."""

    decision_threshold: float = Field(
        description="largest threshold of the domains, on the scale of the scores; a clip with a higher anomaly score "
        "is anomalous whichever domain it is from"
    )
    rule: Rule
    calibration_version: str = Field(
        description="version of the calibration: equal versions mean equal thresholds",
        examples=["3:mahalanobis:conformal:0.05"],
    )
    requested_false_alarm_rate: float | None = Field(
        description="requested rate, from 0 to 1; null for the manual rule"
    )
    promised_false_alarm_rate: float | None = Field(
        description="largest promised rate of the domains, from 0 to 1; null if nothing is promised for one of them"
    )
    domains: list[DomainPromise] = Field(description="promise for each enrolled domain")
    warnings: list[str] = Field(description="promises that cannot be made, and the clips to enroll for them")


class Machine(Answer):
    """A machine and its memory bank."""

    machine_id: str
    description: str
    generation: int = Field(description="number of the bank's state; each change of the bank increases it")
    clips: ClipCounts
    embedding_space_id: str | None = Field(description="embedding space of the bank; null until a clip is enrolled")
    threshold_settings: ThresholdChoice = Field(description="rule of the decision threshold, with defaults filled in")
    threshold: Threshold | None = Field(
        description="current decision threshold; null until two recordings of one domain are enrolled"
    )
    created_at: datetime


class MachineSummary(Answer):
    """A machine in a list."""

    machine_id: str
    description: str
    generation: int
    clips: ClipCounts
    created_at: datetime


class MachineList(Answer):
    """Machines, by id. `next_after` is the `after` of the next page, null on the last."""

    machines: list[MachineSummary]
    next_after: str | None
