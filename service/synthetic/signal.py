"""Building blocks of a synthetic machine sound: turning shafts, tones locked to them, noise, impacts.

Signals are float64 arrays of shape `(samples,)`. All random numbers come from the given generator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]  # (samples,)

Spectrum = tuple[tuple[float, float], ...]
"""Spectral density as `(Hz, dB)` points joined by straight lines over the logarithm of frequency."""

_WALK_RATE = 5.0  # points per second of a slow random walk
_WALK_SECONDS = 4.0  # correlation time, long enough for clips of 10 s to differ in their mean


def gain(db: float) -> float:
    """Convert a level in dB to an amplitude factor."""
    return float(10.0 ** (db / 20.0))


def rms(signal: Signal) -> float:
    """Compute the root mean square of a signal."""
    return math.sqrt(float(np.dot(signal, signal)) / len(signal))


def slow_walk(rng: np.random.Generator, samples: int, sample_rate: int) -> Signal:
    """Draw a stationary random walk of unit variance about zero (first-order autoregression)."""
    points = math.ceil(samples / sample_rate * _WALK_RATE) + 1
    memory = math.exp(-1.0 / (_WALK_RATE * _WALK_SECONDS))
    walk = rng.standard_normal(points)
    walk[1:] *= math.sqrt(1.0 - memory**2)
    for point in range(1, points):
        walk[point] += memory * walk[point - 1]
    seconds = np.arange(samples) / sample_rate
    return np.interp(seconds, np.arange(points) / _WALK_RATE, walk)


def shaft_angle(frequency_hz: float, wander: float, rng: np.random.Generator, samples: int, sample_rate: int) -> Signal:
    """Draw the angle of a shaft in rad, from a random start, at a speed that varies slowly.

    Args:
        frequency_hz: mean turns per second.
        wander: standard deviation of the speed over its mean.
        rng: source of the start angle and of the wander.
        samples: length in samples.
        sample_rate: sample rate, Hz.
    """
    start = rng.uniform(0.0, 2.0 * math.pi)
    speed = 1.0 + wander * slow_walk(rng, samples, sample_rate)
    return start + np.cumsum(speed) * (2.0 * math.pi * frequency_hz / sample_rate)


def harmonics(angle: Signal, levels_db: Sequence[float], rng: np.random.Generator, *, spread_db: float = 0.7) -> Signal:
    """Compute the sum over k = 1, 2, ... of `a_k cos(k angle + phase_k)` with random phases.

    A harmonic at or above half the sample rate is left out rather than folded back.

    Args:
        angle: angle of the first harmonic, rad.
        levels_db: RMS level of each harmonic, dB.
        rng: source of the phases and of the levels' clip-to-clip spread.
        spread_db: standard deviation of each level from clip to clip, dB.
    """
    levels = np.asarray(levels_db) + spread_db * rng.standard_normal(len(levels_db))
    phases = rng.uniform(0.0, 2.0 * math.pi, len(levels_db))
    coefficients = math.sqrt(2.0) * 10.0 ** (levels / 20.0) * np.exp(1j * phases)
    fastest = float(np.max(np.diff(angle)))  # rad per sample
    audible = [c for k, c in enumerate(coefficients, start=1) if k * fastest < math.pi]
    # Horner's rule on the phasor: one sine and one cosine, however many harmonics there are.
    phasor = np.empty(len(angle), dtype=np.complex128)
    phasor.real, phasor.imag = np.cos(angle), np.sin(angle)
    total = np.zeros_like(phasor)
    for coefficient in reversed(audible):
        total += coefficient
        total *= phasor
    return total.real


def modulation(angle: Signal, depth: float, rng: np.random.Generator) -> Signal:
    """Compute `1 + depth cos(angle + phase)`, the modulation by an eccentric or unbalanced shaft."""
    return 1.0 + depth * np.cos(angle + rng.uniform(0.0, 2.0 * math.pi))


def contact(angle: Signal, width_rad: float) -> Signal:
    """Compute a smooth pulse of height 1 once per turn: a von Mises bump of standard deviation `width_rad`."""
    pulse: Signal = np.exp((np.cos(angle) - 1.0) / width_rad**2)
    return pulse


@lru_cache(maxsize=4)
def _log_frequency(samples: int, sample_rate: int) -> Signal:
    frequencies = np.fft.rfftfreq(samples, 1.0 / sample_rate)[1:]  # (bins,), without 0 Hz
    logarithm: Signal = np.log(frequencies)
    logarithm.setflags(write=False)
    return logarithm


def noise(
    spectrum: Spectrum,
    rng: np.random.Generator,
    samples: int,
    sample_rate: int,
    *,
    stretch: float = 1.0,
    spread_db: float = 0.5,
) -> Signal:
    """Draw Gaussian noise of unit RMS and of a given spectral density.

    Args:
        spectrum: spectral density, flat beyond its first and last point, without a 0 Hz component.
        rng: source of the noise and of the spectrum's clip-to-clip spread.
        samples: length in samples.
        sample_rate: sample rate, Hz.
        stretch: factor on the spectrum's frequencies (a flow's spectrum moves with its speed).
        spread_db: standard deviation of each point of the spectrum from clip to clip, dB.
    """
    hertz, levels = np.asarray(spectrum).T  # (points,), (points,)
    levels = levels + spread_db * rng.standard_normal(len(levels))
    log_frequency = _log_frequency(samples, sample_rate)
    density = np.interp(log_frequency, np.log(hertz * stretch), levels * (math.log(10.0) / 20.0))
    bins = np.empty(len(log_frequency) + 1, dtype=np.complex128)
    bins[0] = 0.0
    bins[1:].real = rng.standard_normal(len(log_frequency))
    bins[1:].imag = rng.standard_normal(len(log_frequency))
    bins[1:] *= np.exp(density)
    signal = np.fft.irfft(bins, samples)
    return signal / rms(signal)


@dataclass(frozen=True)
class Mode:
    """A structural resonance: `hz`, damping ratio (1 = critical) and gain in dB."""

    hz: float
    damping: float
    gain_db: float = 0.0


def event_times(angle: Signal, per_turn: float, rng: np.random.Generator, *, slip: float = 0.0) -> Signal:
    """Draw the times, in samples, of events that occur `per_turn` times per turn of a shaft.

    Args:
        angle: angle of the shaft, rad.
        per_turn: events per turn; need not be whole.
        rng: source of the slip.
        slip: standard deviation of an interval over its mean. Intervals are independent, so the phase of the
            events wanders away from the shaft's, as rolling elements do.

    Returns:
        Times `(events,)`.
    """
    position = angle * (per_turn / (2.0 * math.pi))
    first, last = math.ceil(position[0]), float(position[-1])
    count = max(0, math.ceil((last - first) * (1.0 + 5.0 * slip))) + 1
    steps = 1.0 + slip * rng.standard_normal(count)
    events = first + np.cumsum(steps) - steps[0]
    events = events[events <= last]
    times: Signal = np.interp(events, position, np.arange(len(angle), dtype=np.float64))
    return times


def ring(times: Signal, strengths: Signal, modes: Sequence[Mode], samples: int, sample_rate: int) -> Signal:
    """Sum the responses of resonances to impacts: `exp(-2 pi f zeta t) sin(2 pi f t)` for every impact and mode.

    Impacts start at fractional samples. A mode at or above half the sample rate is silent.

    Args:
        times: times of impacts `(events,)`, in samples, not negative.
        strengths: amplitudes of impacts `(events,)`.
        modes: resonances that the impacts excite.
        samples: length in samples.
        sample_rate: sample rate, Hz.
    """
    out = np.zeros(samples)
    start = np.ceil(times).astype(np.int64)  # (events,)
    for mode in modes:
        if mode.hz >= sample_rate / 2:
            continue
        pole = 2.0 * math.pi * mode.hz * complex(-mode.damping, 1.0) / sample_rate  # per sample
        length = math.ceil(7.0 / -pole.real)  # -60 dB
        decay = np.exp(pole * np.arange(length))  # (length,)
        heads = gain(mode.gain_db) * strengths * np.exp(pole * (start - times))  # (events,)
        index = start[:, None] + np.arange(length)  # (events, length)
        wave = np.outer(heads.real, decay.imag) + np.outer(heads.imag, decay.real)  # (events, length)
        inside = index < samples
        out += np.bincount(index[inside], weights=wave[inside], minlength=samples)
    return out
