"""What `/noise` and the list of noise answer."""

from datetime import datetime

from pydantic import Field

from offkey.schemas.base import Answer


class NoiseClip(Answer):
    """A clip of the background without the machine."""

    noise_id: int
    name: str
    seconds: float
    windows: int
    sha256: str = Field(description="of the bytes that were posted")
    enrolled_at: datetime


class NoiseEnrollment(Answer):
    """The answer of `POST /noise`."""

    machine_id: str
    added: int = Field(description="clips that were not there already")
    noise: list[NoiseClip] = Field(description="those of the request, in its order")


class NoiseList(Answer):
    """The background of a machine."""

    noise: list[NoiseClip]
