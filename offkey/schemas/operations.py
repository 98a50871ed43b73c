"""What operators and their tools are answered, and how errors are."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from offkey.schemas.base import Answer


class Info(Answer):
    """What runs here, and every limit."""

    version: str
    bundle: str
    old_bundle: str | None = Field(description="that made the banks which are not yet re-embedded; null: none is set")
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


class Health(Answer):
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
