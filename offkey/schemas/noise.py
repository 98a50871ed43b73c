"""Define the answers about a machine's background noise."""

from datetime import datetime

from pydantic import Field

from offkey.schemas.base import Answer


class NoiseClip(Answer):
    """A clip of the background without the machine."""

    noise_id: int
    name: str
    seconds: float = Field(description="duration, in seconds")
    windows: int = Field(description="number of windows")
    sha256: str = Field(description="SHA-256 of the posted bytes, in hexadecimal")
    enrolled_at: datetime


class NoiseEnrollment(Answer):
    """Answer of `POST /noise`."""

    machine_id: str
    added: int = Field(description="number of clips that were not stored before")
    noise: list[NoiseClip] = Field(description="clips of the request, in its order")


class NoiseList(Answer):
    """The background clips of a machine."""

    noise: list[NoiseClip]
