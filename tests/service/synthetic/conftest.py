"""The instruments with which synthetic sounds are examined."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

Signal = NDArray[np.float64]


class Analyzer:
    """Spectra of a signal `(samples,)` at `sample_rate` Hz, read at the frequencies of a machine."""

    sample_rate = 16_000
    samples = 160_000
    resolution_hz = sample_rate / samples  # 0.1 Hz

    def spectrum(self, signal: Signal) -> tuple[Signal, Signal]:
        """`(hertz, power)`, each `(bins,)`, Hann-windowed."""
        power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2
        return np.fft.rfftfreq(len(signal), 1 / self.sample_rate), power

    def peak_hz(self, signal: Signal, low: float, high: float) -> float:
        """Frequency of the strongest line between two frequencies."""
        hertz, power = self.spectrum(signal)
        inside = (hertz >= low) & (hertz <= high)
        return float(hertz[inside][np.argmax(power[inside])])

    def line_db(self, signal: Signal, hz: float) -> float:
        """How far the line within 0.15 Hz of `hz` stands above the median of the 8 Hz around it, dB."""
        hertz, power = self.spectrum(signal)
        distance = np.abs(hertz - hz)
        return 10 * math.log10(power[distance < 0.15].max() / np.median(power[distance < 4.0]))

    def band(self, signal: Signal, low: float, high: float) -> Signal:
        """The analytic signal of a band, `(samples,)` complex: what lies outside is cut off."""
        bins = np.fft.fft(signal)
        hertz = np.fft.fftfreq(len(signal), 1 / self.sample_rate)
        bins[(hertz < low) | (hertz > high)] = 0
        return 2 * np.fft.ifft(bins)

    def envelope(self, signal: Signal, low: float, high: float) -> Signal:
        """Envelope of a band (Hilbert), without its mean."""
        envelope = np.abs(self.band(signal, low, high))
        return envelope - envelope.mean()

    def share(self, signal: Signal, low: float, high: float) -> float:
        """Share of the energy that lies in a band."""
        hertz, power = self.spectrum(signal)
        return float(power[(hertz >= low) & (hertz <= high)].sum() / power.sum())

    def kurtosis(self, signal: Signal, low: float, high: float) -> float:
        """Kurtosis of a band; 3 for Gaussian noise."""
        part = self.band(signal, low, high).real
        return float(np.mean(part**4) / np.mean(part**2) ** 2)


@pytest.fixture
def analyzer() -> Analyzer:
    return Analyzer()
