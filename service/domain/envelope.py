"""Envelopes: the acoustic measurements of a domain's enrolled clips, and the clips outside of them.

A level, level difference or bandwidth is outside if its distance from the range of the enrolled clips exceeds a margin.
The margin grows with the differences between enrolled clips and shrinks with their number. A spectrum is outside if it
differs more from that of the nearest enrolled clip than enrolled recordings differ from each other. The rate of healthy
clips outside is measured in docs/reference/shift.md, not promised.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Measure
from service.domain.acoustics import Acoustics, band_edges, frames_of

Values = NDArray[np.float64]

_FEWEST_CLIPS = 2
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_DEVIATIONS = 3.0
_SPECTRUM_DB = 1.0  # difference between two recordings of one condition
_SPECTRUM_FACTOR = 2.0
_LEFT_OUT_QUANTILE = 0.9  # robust against a few outliers
_LEFT_OUT_CLIPS = 500  # evenly spaced sample of a larger bank
_FRAME_DB = 1.5  # error of the spectrum of noise in a single frame
_CLIPPED = 0.001  # share of samples, inaudible
# The range and the differences of n recordings are underestimated by about this / n.
_FEW_RANGE = 4.0
_FEW_SPECTRUM = 2.0
_CANCELED_DB = 7.0  # over the 3 dB of two independent channels
_OUT_OF_BAND = 0.5  # share of the power
_UNRELIABLE = "The score is not reliable."
_BANDWIDTH = 2  # index among the measurements with a range


@dataclass(frozen=True)
class Difference:
    """A measurement of a clip outside of the envelope.

    Attributes:
        measure: measurement that is outside.
        excess: distance from the enrolled clips over the largest distance that is inside, above 1; infinite if the
            latter is 0.
        detail: sentence with the numbers, for a person.
    """

    measure: Measure
    excess: float
    detail: str


@dataclass(frozen=True)
class Envelope:
    """Ranges of the acoustic measurements over the enrolled clips of one domain.

    Attributes:
        clips: number of measured clips.
        recordings: number of their recordings.
        low: minimum over clips, `(3,)`: level (dBFS), level over the quietest tenth (dB), bandwidth (octaves of Hz).
        high: maximum over clips, `(3,)`.
        margins: largest distance from `low` and `high` that is inside, `(3,)`.
        spectra: levels by band relative to the level of each clip, `(clips, bands)`, dB.
        spectrum_tolerance: 0.9 quantile over clips of the RMS difference (dB) from the nearest spectrum of another
            recording, 0 with one recording.
        clipped: largest share of samples at full scale.
        sample_rates: sample rates of the files, Hz.
        channels: numbers of channels in the files.
        codecs: lossy codecs of the files, empty for none. No codecs at all if one is unknown.
    """

    clips: int
    recordings: int
    low: Values
    high: Values
    margins: Values
    spectra: Values
    spectrum_tolerance: float
    clipped: float
    sample_rates: frozenset[int]
    channels: frozenset[int]
    codecs: frozenset[str]

    @classmethod
    def of(cls, found: Sequence[Acoustics], recordings: Sequence[Hashable]) -> Self | None:
        """Fit to clips and the recording of each. Returns None if there are too few clips."""
        if len(found) < _FEWEST_CLIPS:
            return None
        ranged = np.array([_ranged(one) for one in found])  # (clips, 3)
        spectra = np.array([one.spectrum for one in found])
        numbers = {recording: number for number, recording in enumerate(dict.fromkeys(recordings))}
        count = len(numbers)
        known = [one.codec for one in found if one.codec is not None]
        spread = _MAD * np.median(np.abs(ranged - np.median(ranged, axis=0)), axis=0)
        least = np.array([one.margin for one in _RANGES])
        return cls(
            clips=len(found),
            recordings=count,
            low=ranged.min(axis=0),
            high=ranged.max(axis=0),
            margins=np.maximum(least, _DEVIATIONS * spread) * (1 + _FEW_RANGE / count),
            spectra=spectra,
            spectrum_tolerance=_spectrum_tolerance(spectra, np.array([numbers[recording] for recording in recordings])),
            clipped=max(one.clipped for one in found),
            sample_rates=frozenset(one.sample_rate for one in found),
            channels=frozenset(one.channels for one in found),
            codecs=frozenset(known) if len(known) == len(found) else frozenset(),
        )

    def differences(self, clip: Acoustics, seconds: float) -> list[Difference]:
        """Return the measurements in which a clip of this length (seconds) is outside."""
        return [*self._of_ranges(clip), *self._of_spectrum(clip, seconds), *self._of_file(clip)]

    def _of_ranges(self, clip: Acoustics) -> Iterator[Difference]:
        values = _ranged(clip)
        excess = np.maximum(values - self.high, self.low - values) / self.margins
        for at, one in enumerate(_RANGES):
            if excess[at] > 1:
                detail = one.message(values[at], float(self.low[at]), float(self.high[at]), self.clips)
                yield Difference(one.measure, float(excess[at]), detail)

    def _of_spectrum(self, clip: Acoustics, seconds: float) -> Iterator[Difference]:
        off = clip.spectrum - self.spectra  # (clips, bands)
        distances = np.sqrt(np.mean(np.square(off), axis=1))
        nearest = int(distances.argmin())
        limit = max(_SPECTRUM_DB, _SPECTRUM_FACTOR * self.spectrum_tolerance) * (1 + _FEW_SPECTRUM / self.recordings)
        limit += _FRAME_DB / math.sqrt(frames_of(seconds))
        if distances[nearest] <= limit:
            return
        band = int(np.abs(off[nearest]).argmax())
        edges = band_edges(off.shape[1])
        yield Difference(
            Measure.SPECTRUM,
            float(distances[nearest] / limit),
            f"The spectrum differs by {distances[nearest]:.1f} dB from the nearest of {self.clips} enrolled clips, "
            f"most at {edges[band]:,.0f} to {edges[band + 1]:,.0f} Hz ({off[nearest, band]:+.0f} dB); up to "
            f"{limit:.1f} dB is normal. Possible causes: other noise, another microphone, another load, or a fault.",
        )

    def _of_file(self, clip: Acoustics) -> Iterator[Difference]:
        if clip.clipped > max(_CLIPPED, 2 * self.clipped):
            yield Difference(
                Measure.CLIPPING,
                clip.clipped / max(_CLIPPED, 2 * self.clipped),
                f"{clip.clipped:.1%} of the samples are at full scale, in the {self.clips} enrolled clips at most "
                f"{self.clipped:.1%}. Lower the recorder's gain. {_UNRELIABLE}",
            )
        reach = 2.0 ** float(self.low[_BANDWIDTH])
        if clip.sample_rate not in self.sample_rates and clip.sample_rate / 2 < reach:
            yield Difference(
                Measure.SAMPLE_RATE,
                math.inf,
                f"The file has {clip.sample_rate:,} Hz, so nothing above {clip.sample_rate / 2:,.0f} Hz; all "
                f"{self.clips} enrolled clips reach {reach:,.0f} Hz. Record at {min(self.sample_rates):,} Hz or more. "
                f"{_UNRELIABLE}",
            )
        if clip.codec is not None and self.codecs and clip.codec not in self.codecs:
            enrolled = " or ".join(codec or "no lossy codec" for codec in sorted(self.codecs))
            yield Difference(
                Measure.CODEC,
                math.inf,
                f"The file was coded with {clip.codec or 'no lossy codec'}, the {self.clips} enrolled clips with "
                f"{enrolled}. A codec changes quiet sounds most. Send clips as they were enrolled. {_UNRELIABLE}",
            )
        if clip.channels not in self.channels:
            enrolled = " or ".join(str(count) for count in sorted(self.channels))
            yield Difference(
                Measure.CHANNELS,
                math.inf,
                f"Channels in the file: {clip.channels}, in the {self.clips} enrolled clips: {enrolled}. Channels are "
                "averaged, which may change the sound. Send as many channels as were enrolled.",
            )


def recording_faults(clip: Acoustics) -> list[Difference]:
    """Return what is wrong with a recording by itself, whatever is enrolled."""
    found = []
    limit = 10 * math.log10(clip.channels) + _CANCELED_DB
    if clip.canceled_db > limit:
        found.append(
            Difference(
                Measure.POLARITY,
                clip.canceled_db / limit,
                f"The {clip.channels} channels cancel each other: their mean is {clip.canceled_db:.0f} dB below them. "
                "Some have opposite polarity, and little of the machine is left. Wire the channels alike, or send one.",
            )
        )
    if clip.out_of_band > _OUT_OF_BAND:
        found.append(
            Difference(
                Measure.OUT_OF_BAND,
                clip.out_of_band / _OUT_OF_BAND,
                f"{clip.out_of_band:.0%} of the sound's power is above {clip.limit_hz:,.0f} Hz, which the model does "
                "not receive. A fault there raises no alarm.",
            )
        )
    return found


def closest_differences(envelopes: Sequence[Envelope], clip: Acoustics, seconds: float) -> list[Difference]:
    """Return the differences of a clip of this length (seconds) from the envelope that it fits best, if any."""
    found = [one.differences(clip, seconds) for one in envelopes]
    return min(found, key=lambda own: max((one.excess for one in own), default=0.0), default=[])


@dataclass(frozen=True)
class _Range:
    """A measurement with a range: its smallest margin, and the message for a clip outside."""

    measure: Measure
    margin: float
    message: Callable[[float, float, float, int], str]  # value, low, high, enrolled clips


def _level_message(value: float, low: float, high: float, clips: int) -> str:
    off, side = (low - value, "below") if value < low else (value - high, "above")
    return (
        f"The level is {off:.0f} dB {side} all {clips} enrolled clips ({value:.0f} against {low:.0f} to {high:.0f} "
        f"dBFS): the microphone was moved or muted, or its gain was changed. {_UNRELIABLE}"
    )


def _pauses_message(value: float, low: float, high: float, clips: int) -> str:
    return (
        f"The quietest tenth is {value:.0f} dB below the level, in the {clips} enrolled clips {low:.0f} to {high:.0f} "
        "dB. Possible causes: other noise, or another operating condition of the machine."
    )


def _bandwidth_message(value: float, low: float, high: float, clips: int) -> str:
    return (
        f"The sound reaches up to {2**value:,.0f} Hz, that of the {clips} enrolled clips to {2**low:,.0f} to "
        f"{2**high:,.0f} Hz: the recorder, its sample rate or the codec has changed. {_UNRELIABLE}"
    )


_RANGES = (
    _Range(Measure.LEVEL, 3.0, _level_message),
    _Range(Measure.PAUSES, 4.0, _pauses_message),
    _Range(Measure.BANDWIDTH, 0.5, _bandwidth_message),
)


def _ranged(clip: Acoustics) -> tuple[float, float, float]:
    return clip.level_dbfs, clip.level_dbfs - clip.noise_floor_dbfs, math.log2(clip.bandwidth_hz)


def _spectrum_tolerance(spectra: Values, recordings: NDArray[np.int64]) -> float:
    """Compute how much spectra `(clips, bands)` differ from the nearest of another recording (RMS, dB), 0 if none."""
    if len(spectra) > _LEFT_OUT_CLIPS:
        spread = np.linspace(0, len(spectra) - 1, _LEFT_OUT_CLIPS).astype(np.int64)
        spectra, recordings = spectra[spread], recordings[spread]
    squares = np.square(spectra).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * spectra @ spectra.T, 0.0) / spectra.shape[1]
    distances[recordings[:, None] == recordings] = np.inf
    nearest = np.sqrt(distances.min(axis=1))
    return float(np.quantile(nearest, _LEFT_OUT_QUANTILE)) if np.isfinite(nearest).all() else 0.0
