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
from service.domain.lengths import window_seconds
from service.domain.slices import Slices
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
    slices: tuple[Slices, ...]  # one for each window; empty if the bundle has none
    window_seconds: float = 0.0  # length of windows that are not the bundle's own; 0 for its own

    @property
    def seconds(self) -> float:
        """Duration of the clip, in seconds."""
        return self.waveform.seconds

    @property
    def compared_seconds(self) -> float:
        """Duration of the enrolled pieces that the clip is compared with, in seconds."""
        return self.window_seconds or self.seconds

    @property
    def in_pieces(self) -> bool:
        """Whether each window is compared with an enrolled piece of its length."""
        return self.window_seconds > 0


def spans_of(clip: EmbeddedClip) -> list[tuple[float, float]]:
    """Return start and end of each window, in seconds. The last window ends with the clip, and all are equally long."""
    length = clip.seconds - float(clip.starts[-1])
    return [(start, start + length) for start in clip.starts.tolist()]


def embed_clip(call: Call, encoder: Encoder, clip: Clip, longest: float = 0.0) -> EmbeddedClip:
    """Decode and embed a clip.

    Args:
        call: the request.
        encoder: encoder of the bank.
        clip: posted clip.
        longest: duration of the longest enrolled clip, in seconds, for a clip to score; 0 if unknown.

    Raises:
        OffkeyError: the clip cannot be used. The error names it.
    """
    try:
        with call.stages.during(Stage.DECODE):
            waveform = call.service.decoder.decode(clip.data, encoder.sample_rate, clip.budget)
        return embed_waveform(call, encoder, waveform, clip.budget, longest)
    except OffkeyError as error:
        raise OffkeyError(error.kind, error.detail, **{"clip": clip.name, **error.values}) from error


def embed_waveform(
    call: Call, encoder: Encoder, waveform: Waveform, budget: Budget = UNLIMITED, longest: float = 0.0
) -> EmbeddedClip:
    """Measure the acoustics of a waveform and embed it. Raises `OffkeyError` if it cannot be used."""
    with call.stages.during(Stage.ACOUSTICS):
        acoustics = measure(
            waveform.samples,
            waveform.sample_rate,
            source_rate=waveform.source_sample_rate,
            channels=waveform.source_channels,
            clipped=waveform.source_clipped,
            codec=waveform.source_codec,
            canceled_db=waveform.source_canceled_db,
            out_of_band=waveform.source_out_of_band,
        )
    window = window_seconds(waveform.seconds, longest, encoder.manifest.window.seconds)
    with call.stages.during(Stage.EMBED):
        embedding = encoder.embed(waveform.samples, budget, window)
    return EmbeddedClip(waveform, acoustics, *embedding, window)
