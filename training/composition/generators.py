"""Generates synthetic sound: colored noise, tones, impacts and envelopes."""

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
_WALK = SAMPLE_RATE // 100  # samples between two steps of a random walk
_RING_SECONDS = 0.08  # length of an impact


def colored_noise(rng: np.random.Generator) -> Sound:
    """Generate noise with a slope of -9 to 1 dB per octave, and resonances."""
    curve = rng.uniform(-9, 1) * OCTAVES + bumps(rng, int(rng.integers(0, 4)), 10, 0.2, 1.5)
    return filter_by(rng.standard_normal(SAMPLES), curve - curve.max())


def tones(rng: np.random.Generator, base: float, count: int) -> Sound:
    """Generate `count` harmonics of a slowly varying base in Hz, each with its own level."""
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
    """Generate `rate` impacts per second of periodic strength, each with up to three resonances."""
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
    """Generate an envelope between 0 and 1 with `rate` periods per second: a sine, a pulse or a decay."""
    time = np.arange(SAMPLES) / SAMPLE_RATE
    cycles = (rate * time + rng.uniform(0, 1) + _walk(rng, rng.uniform(0, 0.01), _WALK)) % 1
    kind = int(rng.integers(3))
    if kind == 0:
        shape = 0.5 + 0.5 * np.sin(2 * np.pi * cycles)
    elif kind == 1:
        width = rng.uniform(0.05, 0.5)
        shape = np.clip(np.minimum(cycles, width - cycles) * 40, 0, 1)
    else:
        shape = np.exp(-cycles * rng.uniform(3, 15))
    return shape.astype(np.float32)


def _walk(rng: np.random.Generator, step: float, every: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    points = np.cumsum(rng.standard_normal(SAMPLES // every + 1)) * step
    walk: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = np.interp(
        np.arange(SAMPLES), np.arange(len(points)) * every, points
    )
    return walk
