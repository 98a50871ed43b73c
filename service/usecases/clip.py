"""Decode and embed a posted clip: the part that scoring and enrollment share."""

import hashlib
import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from offkey.errors import OffkeyError
from service.audio.budget import UNLIMITED, Budget
from service.audio.decode import Waveform
from service.domain.acoustics import Acoustics, measure
from service.domain.distance import Vectors
from service.domain.spectrogram import Spectrogram
from service.encoder.encoder import Encoder
from service.telemetry.stages import Stage
from service.usecases.service import Call


@dataclass(frozen=True)
class Clip:
    """A posted clip.

    Attributes:
        given_name: name that the client gave, empty if none.
        data: bytes of the file.
        budget: budget that the clips of the request share.
    """

    given_name: str
    data: bytes = field(repr=False)
    budget: Budget = UNLIMITED

    @cached_property
    def name(self) -> str:
        """Name in answers. Computed on a worker thread: a checksum over a body would block the event loop."""
        return self.given_name or f"clip-{zlib.crc32(self.data):08x}"

    @cached_property
    def sha256(self) -> str:
        """Hash of the posted bytes, by which a repeated clip is recognized."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class EmbeddedClip:
    """A decoded clip with its acoustics and the embeddings of its windows."""

    waveform: Waveform
    acoustics: Acoustics
    vectors: Vectors  # (windows, dim), unit norm
    starts: NDArray[np.float64]  # (windows,) seconds
    spectrograms: tuple[Spectrogram, ...]  # one for each window; empty if the bundle has none

    @property
    def seconds(self) -> float:
        """Duration of the clip, in seconds."""
        return self.waveform.seconds


def embed_clip(call: Call, encoder: Encoder, clip: Clip) -> EmbeddedClip:
    """Decode and embed a clip. Raises `OffkeyError`, which names the clip, if it cannot be used."""
    try:
        with call.stages.during(Stage.DECODE):
            waveform = call.service.decoder.decode(clip.data, encoder.sample_rate, clip.budget)
        return embed_waveform(call, encoder, waveform, clip.budget)
    except OffkeyError as error:
        raise OffkeyError(error.kind, error.detail, **{"clip": clip.name, **error.values}) from error


def embed_waveform(call: Call, encoder: Encoder, waveform: Waveform, budget: Budget = UNLIMITED) -> EmbeddedClip:
    """Measure the acoustics of a waveform and embed it. Raises `OffkeyError` if it cannot be used."""
    with call.stages.during(Stage.ACOUSTICS):
        acoustics = measure(
            waveform.samples,
            waveform.sample_rate,
            source_rate=waveform.source_sample_rate,
            channels=waveform.source_channels,
            clipped=waveform.source_clipped,
        )
    with call.stages.during(Stage.EMBED):
        embedding = encoder.embed(waveform.samples, budget)
    return EmbeddedClip(waveform, acoustics, *embedding)
