"""Define the answers for operators and their tools, and the form of errors."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from offkey.schemas.base import Answer


class Info(Answer):
    """Version, model bundle and limits of the service."""

    version: str
    bundle: str = Field(description="name and version of the current model bundle")
    old_bundle: str | None = Field(
        description="previous bundle, for banks that are not re-embedded yet; null if none is set"
    )
    embedding_space_id: str
    sample_rate: int = Field(description="sample rate of the model, in Hz; clips are resampled to it")
    window_seconds: float = Field(description="duration of a window, in seconds")
    hop_seconds: float = Field(description="time between the starts of two windows, in seconds")
    min_clip_seconds: float = Field(description="duration of the shortest accepted clip, in seconds")
    device: str = Field(description="requested processor: auto, cpu, cuda or tensorrt")
    provider: str = Field(description="ONNX Runtime provider in use")
    backend: str = Field(description="scoring backend")
    false_alarm_rate: float = Field(description="default false-alarm rate of a machine, from 0 to 1")
    formats: list[str] = Field(description="accepted audio formats")
    limits: dict[str, int | float] = Field(description="limits by name; docs/reference/settings.md lists their units")


class Health(Answer):
    """Answer of the probes."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """An error as `application/problem+json` (RFC 9457). Further fields contain the values it depends on."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        description="`urn:offkey:problem:` and the error kind", examples=["urn:offkey:problem:empty-bank"]
    )
    title: str = Field(description="summary, the same for each error of this type")
    status: int = Field(description="HTTP status")
    detail: str = Field(description="cause of this error and recommended action")
    instance: str = Field(description="path of the request")
    request_id: str = Field(description="id in `X-Request-ID` and in the log")
