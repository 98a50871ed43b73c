"""Recording conditions of a clip, measured from its sound: level, bandwidth and spectrum.

A bank holds a machine as recorded by one microphone in one place. A clip that was recorded differently gets a score
too, but that score reflects the recording more than the machine.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SILENCE_DBFS = -120.0  # lowest level that is reported
_TINY = 1e-30  # -300 dBFS; avoids the logarithm of 0
_FRAME_SECONDS = 0.064
_MAX_FRAMES = 80  # spread evenly over longer clips
_FLOOR_PERCENTILE = 10
_ROLLOFF_DB = 60.0
_STRETCH = 512  # samples
_SMOOTHED_BINS = 5  # width of the moving average before the bandwidth is measured
_LOWEST_EDGES = (0.0, 125.0, 250.0)  # Hz; thirds of octaves would hold too few bins there


@dataclass(frozen=True)
class Acoustics:
    """Acoustic measurements of a clip.

    Attributes:
        level_dbfs: RMS level about the mean.
        noise_floor_dbfs: level of the quietest tenth of the clip, in frames of 64 ms.
        bandwidth_hz: highest frequency at which the mean spectrum is within 60 dB of its peak.
        clipped: share of samples at full scale in the file, 0 to 1.
        bands_dbfs: median level in frames of 64 ms, by band (`band_edges`).
        sample_rate: sample rate of the file, Hz.
        channels: number of channels in the file.
        codec: lossy codec of the file, empty if it has none. None if unknown: an earlier version enrolled the clip.
        canceled_db: level of the channels over the level of their mean; not stored with enrolled clips.
        out_of_band: share of the file's power above the encoder's band, 0 to 1; not stored with enrolled clips.
        limit_hz: highest frequency that the encoder receives, Hz; not stored with enrolled clips.
    """

    level_dbfs: float
    noise_floor_dbfs: float
    bandwidth_hz: float
    clipped: float
    bands_dbfs: tuple[float, ...]
    sample_rate: int
    channels: int
    codec: str | None = None
    canceled_db: float = 0.0
    out_of_band: float = 0.0
    limit_hz: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for values that only a damaged database can hold."""
        if not all(map(math.isfinite, (self.level_dbfs, self.noise_floor_dbfs, *self.bands_dbfs))):
            raise ValueError(f"acoustics hold levels of {self.level_dbfs}, {self.noise_floor_dbfs}, {self.bands_dbfs}")
        if not (self.bandwidth_hz > 0 and 0 <= self.clipped <= 1):
            raise ValueError(f"acoustics hold a bandwidth of {self.bandwidth_hz} Hz, a share of {self.clipped}")

    @property
    def spectrum(self) -> NDArray[np.float64]:
        """Levels by band relative to the level of the clip, `(bands,)` dB, which are independent of gain."""
        return np.array(self.bands_dbfs) - self.level_dbfs


def measure(
    samples: NDArray[np.float32],
    sample_rate: int,
    *,
    source_rate: int,
    channels: int,
    clipped: float,
    codec: str | None = None,
    canceled_db: float = 0.0,
    out_of_band: float = 0.0,
) -> Acoustics:
    """Measure a clip.

    Args:
        samples: decoded mono audio `(samples,)` as the encoder gets it, finite, at least one sample.
        sample_rate: sample rate of `samples`, Hz.
        source_rate: sample rate of the file, Hz.
        channels: number of channels in the file.
        clipped: share of samples at full scale in the file, 0 to 1.
        codec: lossy codec of the file, empty if it has none, None if unknown.
        canceled_db: level of the channels over the level of their mean, dB.
        out_of_band: share of the file's power above half of `sample_rate`, 0 to 1.
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
        codec=codec,
        canceled_db=canceled_db,
        out_of_band=out_of_band,
        limit_hz=sample_rate / 2,
    )


def mean_of(samples: NDArray[np.float32]) -> float:
    """Average `(samples,)`. Single precision over short stretches alone takes a quarter of the time."""
    whole = len(samples) - len(samples) % _STRETCH
    sums = samples[:whole].reshape(-1, _STRETCH) @ np.ones(_STRETCH, np.float32)  # (stretches,)
    rest = samples[whole:].sum(dtype=np.float64)
    return float(sums.sum(dtype=np.float64) + rest) / len(samples)


def frames_of(seconds: float) -> int:
    """Return the number of frames that are measured in a clip of this length."""
    return min(max(int(seconds / _FRAME_SECONDS), 1), _MAX_FRAMES)


def band_edges(bands: int) -> list[float]:
    """Return the edges (Hz) of this many bands: 0, 125, 250, then thirds of octaves."""
    return [*_LOWEST_EDGES, *(_LOWEST_EDGES[-1] * 2.0 ** (third / 3) for third in range(1, bands - 1))]


def _squares(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Compute mean squares by frequency, `(frames, 2 bins)`: a real and an imaginary part for each bin above 0 Hz.

    Arrays are reused, because allocating memory takes longer than the arithmetic.
    """
    length = round(_FRAME_SECONDS * sample_rate)
    if len(samples) < length:
        samples = np.pad(samples, (0, length - len(samples)))
    starts = np.linspace(0, len(samples) - length, frames_of(len(samples) / sample_rate)).astype(np.int64)
    framed = np.lib.stride_tricks.sliding_window_view(samples, length)[starts]  # (frames, length), a copy
    framed *= _window(length)
    # Any norm but the default keeps numpy in single precision, which takes a seventh of the time. "forward" divides by
    # the length.
    parts = np.fft.rfft(framed, axis=1, norm="forward").view(np.float32)  # (frames, length + 2)
    parts *= _scale(length)
    squares: NDArray[np.float32] = np.square(parts, out=parts)[:, 2:]
    return squares


@lru_cache(maxsize=4)
def _scale(length: int) -> np.float32:
    """Return the factor that turns squared parts of a length-normalized `rfft` into mean squares."""
    return np.float32(math.sqrt(2.0 * length / float(np.square(_window(length)).sum())))


@lru_cache(maxsize=4)
def _window(length: int) -> NDArray[np.float32]:
    return np.hanning(length + 1)[:-1].astype(np.float32)


@lru_cache(maxsize=4)
def _bands(sample_rate: int) -> NDArray[np.float32]:
    """Return the matrix `(2 bins, bands)` that sums the parts of bins by band."""
    length = round(_FRAME_SECONDS * sample_rate)
    bins = np.arange(1, length // 2 + 1) * sample_rate / length
    thirds = int(3 * math.log2(sample_rate / 2 / _LOWEST_EDGES[-1]) + 1e-9)  # bands that end below half the rate
    edges = band_edges(len(_LOWEST_EDGES) - 1 + thirds)
    within = [(bins > low) & (bins <= high) for low, high in pairwise(edges)]
    return np.repeat(np.stack(within, axis=1), 2, axis=0).astype(np.float32)


def _decibels(power: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """Convert a mean square, where 1 is 0 dBFS, to dB. Returns at least `SILENCE_DBFS`."""
    found: NDArray[np.float64] = np.maximum(10.0 * np.log10(np.asarray(power, np.float64) + _TINY), SILENCE_DBFS)
    return found
