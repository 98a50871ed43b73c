"""Define the answer about drift: recent scores compared with those of the enrolled clips."""

from datetime import datetime

from pydantic import Field

from offkey.schemas.base import Answer
from offkey.vocabulary import Domain, Verdict


class DriftWindow(Answer):
    """Recent scores compared with the leave-one-out scores of the bank."""

    window: str = Field(examples=["last 100 clips"])
    n: int = Field(description="number of scored clips, anomalous or not")
    since: datetime | None = Field(description="time of the first of these scores; null if there are none")
    median_shift: float | None = Field(
        description="recent median minus that of the bank scores, in standard deviations of the bank scores"
    )
    p_value: float | None = Field(
        description="two-sided p-value of the rank-sum test; small if the difference is unlikely without drift"
    )
    verdict: Verdict


class DomainDrift(Answer):
    """Drift of the clips that are nearest to one domain."""

    domain: Domain
    recordings: int = Field(description="number of enrolled recordings in the comparison")
    verdict: Verdict
    windows: list[DriftWindow]


class DriftReport(Answer):
    """Comparison of the recent scores of a machine with the scores of its enrolled clips."""

    machine_id: str
    generation: int = Field(description="generation of the bank; each change of the bank starts the comparison again")
    verdict: Verdict = Field(
        description="`unknown` if there are too few scores; `higher` may mean wear, a growing fault or new conditions"
    )
    advice: str = Field(description="recommended action")
    domains: list[DomainDrift]
