"""Made-up sound: noise of a color, tones, impacts, and what sets them going and stops them."""

import numpy as np

from training.composition.shaping import (
    OCTAVES,
    SAMPLE_RATE,
    SAMPLES,
    SECONDS,
    Sound,
    bumps,
    filter_by,
    log_uniform,
)

_HIGHEST_TONE = 7_800.0  # Hz
_WALK = SAMPLE_RATE // 100  # samples between the steps of a random walk
_RING_SECONDS = 0.08  # of an impact


def colored_noise(rng: np.random.Generator) -> Sound:
    """Noise that falls by up to 9 dB per octave, or rises by 1, with resonances."""
    curve = rng.uniform(-9, 1) * OCTAVES + bumps(rng, int(rng.integers(0, 4)), 10, 0.2, 1.5)
    return filter_by(rng.standard_normal(SAMPLES), curve - curve.max())


def tones(rng: np.random.Generator, base: float, count: int) -> Sound:
    """`count` harmonics of a base in Hz that wanders a little, each at a level of its own."""
    speed = 1 + _walk(rng, rng.uniform(0, 0.002), 10 * _WALK)
    phase = 2 * np.pi * base * np.cumsum(speed) / SAMPLE_RATE
    slope = rng.uniform(0, 1.5)
    found = np.zeros(SAMPLES)
    for harmonic in range(1, count + 1):
        if harmonic * base > _HIGHEST_TONE:
            break
        level = harmonic**-slope * np.exp(0.6 * rng.standard_normal())
        found += level * np.sin(harmonic * phase + rng.uniform(0, 2 * np.pi))
    return found.astype(np.float32)


def impacts(rng: np.random.Generator, rate: float) -> Sound:
    """Blows, `rate` a second, stronger and weaker in turn, each ringing at up to three frequencies."""
    jitter, depth = rng.uniform(0, 0.05), rng.uniform(0, 1)
    slow = rate / int(rng.integers(2, 10))
    blows = np.zeros(SAMPLES)
    moment = rng.uniform(0, 1 / rate)
    while moment < SECONDS:
        place = min(int(moment * SAMPLE_RATE), SAMPLES - 1)
        blows[place] += 1 + depth * np.sin(2 * np.pi * slow * moment) + 0.2 * rng.standard_normal()
        moment += max(1 / rate * (1 + jitter * rng.standard_normal()), 1e-3)
    time = np.arange(int(SAMPLE_RATE * _RING_SECONDS)) / SAMPLE_RATE
    ringing = np.zeros(len(time))
    for _ in range(int(rng.integers(1, 4))):
        frequency = log_uniform(rng, 150, 7_500)
        ringing += (
            rng.uniform(0.3, 1)
            * np.exp(-time * rng.uniform(60, 900))
            * np.sin(2 * np.pi * frequency * time + rng.uniform(0, 2 * np.pi))
        )
    rung = np.fft.irfft(np.fft.rfft(blows, 2 * SAMPLES) * np.fft.rfft(ringing, 2 * SAMPLES))
    return rung[:SAMPLES].astype(np.float32)


def envelope(rng: np.random.Generator, rate: float) -> Sound:
    """A course between 0 and 1 that comes again `rate` times a second: a swell, a pulse or a decay."""
    time = np.arange(SAMPLES) / SAMPLE_RATE
    turns = (rate * time + rng.uniform(0, 1) + _walk(rng, rng.uniform(0, 0.01), _WALK)) % 1
    kind = int(rng.integers(3))
    if kind == 0:
        course = 0.5 + 0.5 * np.sin(2 * np.pi * turns)
    elif kind == 1:
        width = rng.uniform(0.05, 0.5)
        course = np.clip(np.minimum(turns, width - turns) * 40, 0, 1)
    else:
        course = np.exp(-turns * rng.uniform(3, 15))
    return course.astype(np.float32)


def _walk(rng: np.random.Generator, step: float, every: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    points = np.cumsum(rng.standard_normal(SAMPLES // every + 1)) * step
    walk: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = np.interp(
        np.arange(SAMPLES), np.arange(len(points)) * every, points
    )
    return walk
