"""The conditions that a domain's clips were enrolled under, and where a clip is outside of them.

A measure is outside if it is farther from the range of the enrolled clips than a margin, which is wider the more they
differ and the fewer they are. A spectrum is outside if it differs more from the nearest enrolled clip's than enrolled
recordings differ from each other. How rarely healthy clips are outside is measured in docs/shift.md, not promised.
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
_MAD = 1.4826  # median absolute deviations of a normal distribution in its deviation
_DEVIATIONS = 3.0
_SPECTRUM_DB = 1.0  # that no two recordings of one condition can be held to
_SPECTRUM_FACTOR = 2.0
_LEFT_OUT_QUANTILE = 0.9  # a few odd clips do not widen it
_LEFT_OUT_CLIPS = 500  # of a larger bank, spread over it
_FRAME_DB = 1.5  # by which the spectrum of noise in a single frame is off
_CLIPPED = 0.001  # share of samples that no ear minds
# The range and the differences of n recordings are too small by about this / n.
_FEW_RANGE = 4.0
_FEW_SPECTRUM = 2.0


@dataclass(frozen=True)
class Difference:
    """A measure of a clip that is outside.

    Attributes:
        measure: which one.
        excess: distance from what is enrolled in units of what is let pass, above 1; infinite where nothing is.
        detail: a sentence with the numbers, for a person.
    """

    measure: Measure
    excess: float
    detail: str


@dataclass(frozen=True)
class Envelope:
    """What the enrolled clips of one domain have of each measure.

    Attributes:
        clips: that were measured.
        recordings: that they were cut from.
        low: least of the clips, `(3,)`: level (dBFS), level over the quietest tenth (dB), bandwidth (octaves of Hz).
        high: most of the clips, `(3,)`.
        margins: how far outside of these a clip may be, `(3,)`.
        spectra: `(clips, bands)`, dB relative to the level of each clip.
        unlike: RMS difference (dB) of a spectrum from the nearest of another recording, of nine clips in ten at most;
            0 where there is one recording.
        clipped: largest share of samples at full scale.
        sample_rates: of the files, Hz.
        channels: of the files.
    """

    clips: int
    recordings: int
    low: Values
    high: Values
    margins: Values
    spectra: Values
    unlike: float
    clipped: float
    sample_rates: frozenset[int]
    channels: frozenset[int]

    @classmethod
    def of(cls, found: Sequence[Acoustics], recordings: Sequence[Hashable]) -> Self | None:
        """The envelope of clips and the recording that each was cut from; None: they are too few for one."""
        if len(found) < _FEWEST_CLIPS:
            return None
        ranged = np.array([_ranged(one) for one in found])  # (clips, 3)
        spectra = np.array([one.spectrum for one in found])
        numbers = {recording: number for number, recording in enumerate(dict.fromkeys(recordings))}
        count = len(numbers)
        spread = _MAD * np.median(np.abs(ranged - np.median(ranged, axis=0)), axis=0)
        least = np.array([one.margin for one in _RANGES])
        return cls(
            clips=len(found),
            recordings=count,
            low=ranged.min(axis=0),
            high=ranged.max(axis=0),
            margins=np.maximum(least, _DEVIATIONS * spread) * (1 + _FEW_RANGE / count),
            spectra=spectra,
            unlike=_unlike(spectra, np.array([numbers[recording] for recording in recordings])),
            clipped=max(one.clipped for one in found),
            sample_rates=frozenset(one.sample_rate for one in found),
            channels=frozenset(one.channels for one in found),
        )

    def differences(self, clip: Acoustics, seconds: float) -> list[Difference]:
        """Where a clip of this length (seconds) is outside."""
        return [*self._of_ranges(clip), *self._of_spectrum(clip, seconds), *self._of_file(clip)]

    def _of_ranges(self, clip: Acoustics) -> Iterator[Difference]:
        values = _ranged(clip)
        excess = np.maximum(values - self.high, self.low - values) / self.margins
        for at, one in enumerate(_RANGES):
            if excess[at] > 1:
                told = one.say(values[at], float(self.low[at]), float(self.high[at]), self.clips)
                yield Difference(one.measure, float(excess[at]), told)

    def _of_spectrum(self, clip: Acoustics, seconds: float) -> Iterator[Difference]:
        off = clip.spectrum - self.spectra  # (clips, bands)
        distances = np.sqrt(np.mean(np.square(off), axis=1))
        nearest = int(distances.argmin())
        limit = max(_SPECTRUM_DB, _SPECTRUM_FACTOR * self.unlike) * (1 + _FEW_SPECTRUM / self.recordings)
        limit += _FRAME_DB / math.sqrt(frames_of(seconds))
        if distances[nearest] <= limit:
            return
        band = int(np.abs(off[nearest]).argmax())
        edges = band_edges(off.shape[1])
        yield Difference(
            Measure.SPECTRUM,
            float(distances[nearest] / limit),
            f"The spectrum differs by {distances[nearest]:.1f} dB from the nearest of {self.clips} enrolled clips, "
            f"most at {edges[band]:,.0f} to {edges[band + 1]:,.0f} Hz ({off[nearest, band]:+.0f} dB); {limit:.1f} dB "
            "would pass. There is other noise, the microphone or the machine's load is another, or this is the fault.",
        )

    def _of_file(self, clip: Acoustics) -> Iterator[Difference]:
        if clip.clipped > max(_CLIPPED, 2 * self.clipped):
            yield Difference(
                Measure.CLIPPING,
                clip.clipped / max(_CLIPPED, 2 * self.clipped),
                f"{clip.clipped:.1%} of the samples are at full scale, of the {self.clips} enrolled clips at most "
                f"{self.clipped:.1%}. Lower the recorder's gain. {_LITTLE}",
            )
        reach = 2.0 ** float(self.low[_BANDWIDTH])
        if clip.sample_rate not in self.sample_rates and clip.sample_rate / 2 < reach:
            yield Difference(
                Measure.SAMPLE_RATE,
                math.inf,
                f"The file has {clip.sample_rate:,} Hz and so nothing above {clip.sample_rate / 2:,.0f} Hz; all "
                f"{self.clips} enrolled clips reach {reach:,.0f} Hz. Record at {min(self.sample_rates):,} Hz or more. "
                f"{_LITTLE}",
            )
        if clip.channels not in self.channels:
            enrolled = " or ".join(str(count) for count in sorted(self.channels))
            yield Difference(
                Measure.CHANNELS,
                math.inf,
                f"Channels in the file: {clip.channels}, in the {self.clips} enrolled clips: {enrolled}. Channels are "
                "averaged, which may change the sound. Send what was enrolled.",
            )


def closest_differences(envelopes: Sequence[Envelope], clip: Acoustics, seconds: float) -> list[Difference]:
    """Where a clip of this length (seconds) is outside of the envelope that it fits best; none of no envelopes."""
    found = [one.differences(clip, seconds) for one in envelopes]
    return min(found, key=lambda own: max((one.excess for one in own), default=0.0), default=[])


@dataclass(frozen=True)
class _Range:
    """A measure that has a range: the margin that no recorder holds better, and what to say of a clip outside."""

    measure: Measure
    margin: float
    say: Callable[[float, float, float, int], str]  # value, low, high, enrolled clips


_LITTLE = "The score says little."
_BANDWIDTH = 2


def _say_level(value: float, low: float, high: float, clips: int) -> str:
    off, side = (low - value, "below") if value < low else (value - high, "above")
    return (
        f"The level is {off:.0f} dB {side} all {clips} enrolled clips ({value:.0f} against {low:.0f} to {high:.0f} "
        f"dBFS): the microphone was moved or muted, or its gain was turned. {_LITTLE}"
    )


def _say_pauses(value: float, low: float, high: float, clips: int) -> str:
    return (
        f"The quietest tenth is {value:.0f} dB below the level, in the {clips} enrolled clips {low:.0f} to {high:.0f} "
        "dB: there is other noise, or the machine does not run as it did."
    )


def _say_bandwidth(value: float, low: float, high: float, clips: int) -> str:
    return (
        f"The sound reaches up to {2**value:,.0f} Hz, that of the {clips} enrolled clips to {2**low:,.0f} to "
        f"{2**high:,.0f} Hz: the recorder, its sample rate or the file's coding is another. {_LITTLE}"
    )


_RANGES = (
    _Range(Measure.LEVEL, 3.0, _say_level),
    _Range(Measure.PAUSES, 4.0, _say_pauses),
    _Range(Measure.BANDWIDTH, 0.5, _say_bandwidth),
)


def _ranged(clip: Acoustics) -> tuple[float, float, float]:
    return clip.level_dbfs, clip.level_dbfs - clip.noise_floor_dbfs, math.log2(clip.bandwidth_hz)


def _unlike(spectra: Values, recordings: NDArray[np.int64]) -> float:
    """How much spectra `(clips, bands)` differ from the nearest of another recording (RMS, dB); 0: there is none."""
    if len(spectra) > _LEFT_OUT_CLIPS:
        spread = np.linspace(0, len(spectra) - 1, _LEFT_OUT_CLIPS).astype(np.int64)
        spectra, recordings = spectra[spread], recordings[spread]
    squares = np.square(spectra).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * spectra @ spectra.T, 0.0) / spectra.shape[1]
    distances[recordings[:, None] == recordings] = np.inf
    nearest = np.sqrt(distances.min(axis=1))
    return float(np.quantile(nearest, _LEFT_OUT_QUANTILE)) if np.isfinite(nearest).all() else 0.0
