"""What is answered of how a clip was recorded."""

from pydantic import Field

from offkey.schemas.base import Answer
from offkey.vocabulary import Measure


class ClipAcoustics(Answer):
    """Under which conditions a clip was recorded, as far as its sound tells."""

    level_dbfs: float = Field(description="RMS around the mean, dBFS")
    noise_floor_dbfs: float = Field(description="level of the quietest tenth, in frames of 64 ms, dBFS")
    bandwidth_hz: float = Field(
        description="highest frequency within 60 dB of the spectrum's peak, up to half the model's sample rate, Hz"
    )
    clipped: float = Field(description="share of the file's samples at full scale, 0 to 1")
    sample_rate: int = Field(description="of the file, Hz")
    channels: int = Field(description="of the file")


class AcousticsWarning(Answer):
    """Something about a clip that is unlike what was enrolled: whatever it scores, look at this first."""

    kind: Measure
    detail: str = Field(
        examples=[
            "The level is 16 dB below all 20 enrolled clips (-42 against -26 to -22 dBFS): the microphone was moved or "
            "muted, or its gain was turned. The score says little."
        ]
    )
