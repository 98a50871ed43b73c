"""Define the acoustic properties of a clip, and the warnings about them."""

from pydantic import Field

from offkey.schemas.base import Answer
from offkey.vocabulary import Measure


class ClipAcoustics(Answer):
    """Acoustic properties of a clip, measured from its samples."""

    level_dbfs: float = Field(description="RMS level around the mean, in dBFS")
    noise_floor_dbfs: float = Field(description="level of the quietest tenth of the frames of 64 ms, in dBFS")
    bandwidth_hz: float = Field(
        description="highest frequency within 60 dB of the spectrum's peak, up to half the model's sample rate, in Hz"
    )
    clipped: float = Field(description="share of the file's samples at full scale, from 0 to 1")
    sample_rate: int = Field(description="sample rate of the file, in Hz")
    channels: int = Field(description="number of channels in the file")


class AcousticsWarning(Answer):
    """A difference from all enrolled clips in how a clip was recorded. Check it before you rely on the score."""

    kind: Measure = Field(description="property that differs")
    detail: str = Field(
        examples=[
            "The level is 16 dB below all 20 enrolled clips (-42 against -26 to -22 dBFS): the microphone was moved or "
            "muted, or its gain was changed. The score is not reliable."
        ]
    )
