"""What is answered of the scores of late."""

from datetime import datetime

from pydantic import Field

from offkey.schemas.base import Answer
from offkey.vocabulary import Domain, Verdict


class DriftWindow(Answer):
    """Scores of late beside the bank's own leave-one-out scores."""

    window: str = Field(examples=["last 100 clips"])
    n: int = Field(description="clips that were scored, whether or not they were anomalous")
    since: datetime | None = Field(description="when the first of them was scored")
    median_shift: float | None = Field(description="of their median from the bank's, in the bank's deviations (sigma)")
    p_value: float | None = Field(description="two-sided, of the rank-sum test: small where no drift would do this")
    verdict: Verdict


class DomainDrift(Answer):
    """The drift of clips that are nearest to one domain."""

    domain: Domain
    recordings: int = Field(description="enrolled ones, that the scores are held against")
    verdict: Verdict
    windows: list[DriftWindow]


class DriftReport(Answer):
    """Whether what is scored lately scores as the enrolled clips do among each other."""

    machine_id: str
    generation: int = Field(description="of the bank; every change of it begins anew")
    verdict: Verdict = Field(
        description="unknown: too little to tell; steady; higher: wear, a fault that grows, or other conditions; lower"
    )
    advice: str = Field(description="what to do")
    domains: list[DomainDrift]
