"""What `/machines` takes and answers."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from offkey.schemas.base import Answer
from offkey.vocabulary import MIN_FALSE_ALARM_RATE, Domain, Rule

MAX_DESCRIPTION_CHARACTERS = 500


class MachineSettings(BaseModel):
    """What `PUT /machines/{machine_id}` sets. A field left out goes back to its default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    description: str = Field("", max_length=MAX_DESCRIPTION_CHARACTERS, examples=["Exhaust fan, hall 2"])


class ThresholdSettings(BaseModel):
    """How a machine's decision threshold is chosen. A field left out goes back to its default."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={  # what `_fit_together` holds
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
        description="conformal: promises the rate; gamma: a quantile as the DCASE baselines have it, manual: "
        "`decision_threshold` itself, neither of which promises anything",
    )
    # Strict: `false` is no threshold of 0.
    false_alarm_rate: float | None = Field(
        None,
        strict=True,
        ge=MIN_FALSE_ALARM_RATE,
        lt=1,
        description="share of healthy clips that may raise an alarm; null: the service's default, of gamma 0.1",
    )
    decision_threshold: float | None = Field(
        None, strict=True, description="of the manual rule, on the scale of the scores"
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
    """How a machine's decision threshold is chosen."""

    rule: Rule
    false_alarm_rate: float | None = Field(description="null: manual")
    decision_threshold: float | None = Field(description="of the manual rule")


class ClipCounts(Answer):
    """Enrolled clips by domain."""

    source: int
    target: int


class DomainPromise(Answer):
    """What the decision threshold promises to healthy clips of one domain, like those enrolled."""

    domain: Domain
    clips: int = Field(description="enrolled clips of the domain")
    compared_clips: int = Field(
        description="those among them that scores compare with: all, unless a coreset is set and they are more"
    )
    recordings: int = Field(description="n, the recordings that the compared clips were cut from")
    promised_false_alarm_rate: float = Field(
        description="the requested rate, or 1 / (n + 1) where that is larger; 1 is nothing: of a single recording, and "
        "of rules that promise nothing"
    )
    lowest_false_alarm_rate: float = Field(description="the lowest that n recordings can promise, 1 / (n + 1)")
    above_threshold: int = Field(description="compared clips whose leave-one-out score is above the threshold")
    pooled_scale: bool = Field(
        description="too few recordings for a deviation of their own: the other domain's is used"
    )


class Threshold(Answer):
    """The decision threshold in force, and what it promises."""

    decision_threshold: float = Field(description="a clip whose anomaly score is higher is anomalous")
    rule: Rule
    calibration_version: str = Field(
        description="equal where the threshold is: it names the generation, the backend, the rule, what was asked, and "
        "a coreset that is in force",
        examples=["3:mahalanobis:conformal:0.05"],
    )
    requested_false_alarm_rate: float | None = Field(description="null: manual")
    promised_false_alarm_rate: float = Field(description="the largest of the domains': it holds for either")
    domains: list[DomainPromise] = Field(description="those enrolled; nothing is promised for another")
    warnings: list[str] = Field(description="what cannot be promised, and what to enroll for it")


class Machine(Answer):
    """A machine and its memory bank."""

    machine_id: str
    description: str
    generation: int = Field(description="moves on with every change of the bank, and never back for a machine id")
    clips: ClipCounts
    embedding_space_id: str | None = Field(description="null until a clip is enrolled")
    threshold_settings: ThresholdChoice = Field(description="in force, defaults filled in")
    threshold: Threshold | None = Field(description="null until two recordings of one domain are enrolled")
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
