"""Under which conditions a clip was recorded, measured from its sound: how loud, how wide, with which spectrum.

A detector knows a machine as one microphone heard it in one place. A clip that was recorded otherwise it scores too,
but the score then says more of the recording than of the machine.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SILENCE_DBFS = -120.0  # what is below is told as this
_TINY = 1e-30  # -300 dBFS: nothing has no logarithm
_FRAME_SECONDS = 0.064
_MAX_FRAMES = 80  # spread evenly over longer clips
_FLOOR_PERCENTILE = 10
_ROLLOFF_DB = 60.0
_STRETCH = 512  # samples
_SMOOTHED_BINS = 5  # of the spectrum that the bandwidth is read from
_LOWEST_EDGES = (0.0, 125.0, 250.0)  # Hz; a third of an octave would hold too few bins there


@dataclass(frozen=True)
class Acoustics:
    """What was measured of a clip.

    Attributes:
        level_dbfs: RMS around the mean.
        noise_floor_dbfs: level of its quietest tenth, in frames of 64 ms.
        bandwidth_hz: highest frequency at which the mean spectrum is within 60 dB of its peak.
        clipped: share of the file's samples that are at full scale, 0 to 1.
        bands_dbfs: median level in frames of 64 ms, by band (`band_edges`).
        sample_rate: of the file, Hz.
        channels: of the file.
    """

    level_dbfs: float
    noise_floor_dbfs: float
    bandwidth_hz: float
    clipped: float
    bands_dbfs: tuple[float, ...]
    sample_rate: int
    channels: int

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for what no clip can have, only a damaged database."""
        if not all(map(math.isfinite, (self.level_dbfs, self.noise_floor_dbfs, *self.bands_dbfs))):
            raise ValueError(f"conditions hold levels of {self.level_dbfs}, {self.noise_floor_dbfs}, {self.bands_dbfs}")
        if not (self.bandwidth_hz > 0 and 0 <= self.clipped <= 1):
            raise ValueError(f"conditions hold a bandwidth of {self.bandwidth_hz} Hz, a share of {self.clipped}")

    @property
    def spectrum(self) -> NDArray[np.float64]:
        """Levels by band relative to the clip's, `(bands,)` dB: what turning a gain leaves as it is."""
        return np.array(self.bands_dbfs) - self.level_dbfs


def measure(
    samples: NDArray[np.float32], sample_rate: int, *, source_rate: int, channels: int, clipped: float
) -> Acoustics:
    """Measure a clip.

    Args:
        samples: `(samples,)` mono as the encoder hears it, finite, at least one.
        sample_rate: of `samples`, Hz.
        source_rate: of the file, Hz.
        channels: of the file.
        clipped: share of the file's samples that are at full scale.
    """
    samples = samples - np.float32(mean_of(samples))
    squares = _squares(samples, sample_rate)  # (frames, 2 bins)
    bands = squares @ _bands(sample_rate)  # (frames, bands)
    power = squares.mean(axis=0).reshape(-1, 2).sum(axis=1)  # (bins,)
    smoothed = np.convolve(power, np.ones(_SMOOTHED_BINS) / _SMOOTHED_BINS, "same")
    loud = np.flatnonzero(smoothed >= smoothed.max() * 10 ** (-_ROLLOFF_DB / 10))
    return Acoustics(
        level_dbfs=float(_decibels(samples @ samples / len(samples))),
        noise_floor_dbfs=float(_decibels(np.percentile(bands.sum(axis=1), _FLOOR_PERCENTILE))),
        bandwidth_hz=float((loud[-1] + 1) * sample_rate / 2 / len(power)),
        clipped=clipped,
        bands_dbfs=tuple(_decibels(np.median(bands, axis=0)).tolist()),
        sample_rate=source_rate,
        channels=channels,
    )


def mean_of(samples: NDArray[np.float32]) -> float:
    """The mean of `(samples,)`: summed in single precision over short stretches alone, in a quarter of the time."""
    whole = len(samples) - len(samples) % _STRETCH
    sums = samples[:whole].reshape(-1, _STRETCH) @ np.ones(_STRETCH, np.float32)  # (stretches,)
    rest = samples[whole:].sum(dtype=np.float64)
    return float(sums.sum(dtype=np.float64) + rest) / len(samples)


def frames_of(seconds: float) -> int:
    """How many frames of a clip are looked at."""
    return min(max(int(seconds / _FRAME_SECONDS), 1), _MAX_FRAMES)


def band_edges(bands: int) -> list[float]:
    """Edges (Hz) of so many bands: 0, 125, 250, then thirds of octaves."""
    return [*_LOWEST_EDGES, *(_LOWEST_EDGES[-1] * 2.0 ** (third / 3) for third in range(1, bands - 1))]


def _squares(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Mean square by frequency in frames of the clip, `(frames, 2 bins)`: a real and an imaginary part for each bin.

    The bins up to half the rate, without 0 Hz. As few arrays as can be: to touch new memory costs more than to reckon.
    """
    length = round(_FRAME_SECONDS * sample_rate)
    if len(samples) < length:
        samples = np.pad(samples, (0, length - len(samples)))
    starts = np.linspace(0, len(samples) - length, frames_of(len(samples) / sample_rate)).astype(np.int64)
    framed = np.lib.stride_tricks.sliding_window_view(samples, length)[starts]  # (frames, length), a copy
    framed *= _window(length)
    # Any norm but the default keeps numpy in single precision, which takes a seventh of the time; this one divides by
    # the length.
    parts = np.fft.rfft(framed, axis=1, norm="forward").view(np.float32)  # (frames, length + 2)
    parts *= _scale(length)
    squares: NDArray[np.float32] = np.square(parts, out=parts)[:, 2:]
    return squares


@lru_cache(maxsize=4)
def _scale(length: int) -> np.float32:
    """What makes the square of a part of `rfft` a mean square, where it divides by the length."""
    return np.float32(math.sqrt(2.0 * length / float(np.square(_window(length)).sum())))


@lru_cache(maxsize=4)
def _window(length: int) -> NDArray[np.float32]:
    return np.hanning(length + 1)[:-1].astype(np.float32)


@lru_cache(maxsize=4)
def _bands(sample_rate: int) -> NDArray[np.float32]:
    """Which part of which bin is of which band, `(2 bins, bands)`."""
    length = round(_FRAME_SECONDS * sample_rate)
    bins = np.arange(1, length // 2 + 1) * sample_rate / length
    thirds = int(3 * math.log2(sample_rate / 2 / _LOWEST_EDGES[-1]) + 1e-9)  # that end below half the rate
    edges = band_edges(len(_LOWEST_EDGES) - 1 + thirds)
    within = [(bins > low) & (bins <= high) for low, high in pairwise(edges)]
    return np.repeat(np.stack(within, axis=1), 2, axis=0).astype(np.float32)


def _decibels(power: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """Mean square, of which 1 is 0 dBFS, in dB; at least `SILENCE_DBFS`."""
    found: NDArray[np.float64] = np.maximum(10.0 * np.log10(np.asarray(power, np.float64) + _TINY), SILENCE_DBFS)
    return found
