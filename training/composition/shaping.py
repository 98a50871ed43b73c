"""Changes the spectrum, speed and phase of sounds of `SECONDS`.

A sound is a float32 array `(SAMPLES,)` that is treated as a loop: its end continues at its beginning.
"""

import math

import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.float32]  # (SAMPLES,)
Curve = NDArray[np.float64]  # (SAMPLES // 2 + 1,), dB over frequency

SAMPLE_RATE = 16_000  # Hz
SECONDS = 5
SAMPLES = SECONDS * SAMPLE_RATE
FRAME = SAMPLE_RATE // 20  # 50 ms

_LOWEST = 20.0  # Hz
OCTAVES = np.log2(
    np.maximum(np.fft.rfftfreq(SAMPLES, 1 / SAMPLE_RATE), _LOWEST) / _LOWEST
)  # octaves above 20 Hz, per bin
_HIGHEST_OCTAVE = float(OCTAVES[-1])
_POWER_FLOOR = 1e-12


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number between two; every octave has the same probability."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def decibels(db: float) -> float:
    """Convert a level in dB to a factor of amplitude."""
    return float(10 ** (db / 20))


def to_unit_power(sound: NDArray[np.floating]) -> Sound:
    """Remove the mean and scale to an RMS of 1; silence stays silent."""
    centered = sound - sound.mean()
    unit: Sound = (centered / math.sqrt(float(np.mean(centered**2)) + _POWER_FLOOR)).astype(np.float32)
    return unit


def roll(sound: Sound, rng: np.random.Generator) -> Sound:
    """Rotate the loop by a random number of samples."""
    return np.roll(sound, rng.integers(SAMPLES))


def filter_by(sound: NDArray[np.floating], curve: Curve) -> Sound:
    """Filter a sound with a zero-phase filter of this gain in dB."""
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (curve / 20), SAMPLES).astype(np.float32)


def bumps(rng: np.random.Generator, count: int, gain_db: float, narrowest: float = 0.1, widest: float = 1.2) -> Curve:
    """Draw the gain of a room or housing: `count` peaks and dips of up to `gain_db`, between two widths in octaves."""
    curve: Curve = np.zeros_like(OCTAVES)
    for _ in range(count):
        center = rng.uniform(0.5, _HIGHEST_OCTAVE)
        width = log_uniform(rng, narrowest, widest)
        curve += rng.uniform(-gain_db, gain_db) * np.exp(-0.5 * ((OCTAVES - center) / width) ** 2)
    return curve


def at_speed(sound: Sound, speed: float) -> Sound:
    """Change the speed, and with it pitch and rhythm."""
    place = np.arange(SAMPLES) * speed
    whole = place.astype(np.int64)
    part = (place - whole).astype(np.float32)
    return sound[whole % SAMPLES] * (1 - part) + sound[(whole + 1) % SAMPLES] * part


def without_time(sound: Sound, rng: np.random.Generator) -> Sound:
    """Randomize the phases: the result is stationary noise with the same spectrum."""
    spectrum = np.abs(np.fft.rfft(sound))
    return np.fft.irfft(spectrum * np.exp(2j * np.pi * rng.random(len(spectrum))), SAMPLES).astype(np.float32)
