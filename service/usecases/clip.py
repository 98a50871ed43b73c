"""A posted clip and its embedding: the part that scoring and enrollment share."""

import hashlib
import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offkey.errors import OffkeyError
from service.audio.budget import UNLIMITED, Budget
from service.audio.decode import Waveform
from service.audio.plain_wav import read_pcm
from service.domain.acoustics import Acoustics, measure
from service.domain.distance import Vectors
from service.domain.spectrogram import Spectrogram
from service.encoder.encoder import Encoder
from service.telemetry.stages import Stage
from service.usecases.service import Context


@dataclass(frozen=True)
class Clip:
    """A clip as it was posted, the name it was given or none, and the budget that the clips of its request share."""

    given_name: str
    data: bytes = field(repr=False)
    budget: Budget = UNLIMITED

    @cached_property
    def name(self) -> str:
        """What it is called in answers. Asked on the thread of the work: a sum over a body holds up the event loop."""
        return self.given_name or f"clip-{zlib.crc32(self.data):08x}"

    @cached_property
    def sha256(self) -> str:
        """Hash of the posted bytes, by which a clip is known again."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class EmbeddedClip:
    """A decoded clip with its conditions, and how its windows sound."""

    waveform: Waveform
    acoustics: Acoustics
    vectors: Vectors  # (windows, dim), unit norm
    starts: NDArray[np.float64]  # (windows,) seconds
    spectrograms: tuple[Spectrogram, ...]  # of the windows, or none at all


def embed_clip(context: Context, encoder: Encoder, upload: Clip) -> EmbeddedClip:
    """Decode and embed with an encoder that serves. Raises `OffkeyError` that names the clip if it cannot be."""
    try:
        with context.stages.during(Stage.DECODE):
            waveform = read_pcm(upload.data, encoder.sample_rate, context.audio_limits, upload.budget)
            if waveform is None:
                waveform = context.decoders.decode(upload.data, encoder.sample_rate, upload.budget)
        with context.stages.during(Stage.MEASURE):
            acoustics = measure(
                waveform.samples,
                waveform.sample_rate,
                source_rate=waveform.source_sample_rate,
                channels=waveform.source_channels,
                clipped=waveform.source_clipped,
            )
        with context.stages.during(Stage.EMBED):
            heard = encoder.embed(waveform.samples, upload.budget)
    except OffkeyError as error:
        raise OffkeyError(error.kind, error.detail, **{"clip": upload.name, **error.values}) from error
    return EmbeddedClip(waveform, acoustics, *heard)
