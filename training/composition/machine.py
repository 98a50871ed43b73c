"""Composes machine-like sounds: steady or periodic."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.composition.generators import colored_noise, envelope, impacts, tones
from training.composition.recordings import Recordings
from training.composition.shaping import (
    SAMPLE_RATE,
    SAMPLES,
    SECONDS,
    Sound,
    at_speed,
    bumps,
    decibels,
    filter_by,
    log_uniform,
    roll,
    to_unit_power,
)
from training.data.catalog import Clip

SYNTHETIC = "rotor"  # label of a sound without recordings


@dataclass(frozen=True)
class Piece:
    """A composed sound of unit power."""

    sound: Sound
    label: str
    clips: tuple[Clip, ...]  # recordings that it is composed of


def compose_machine(rng: np.random.Generator, recordings: Recordings) -> Piece:
    """Compose a steady recording, a rhythm of grains, or a rotor of tones, noise and impacts, with a random filter."""
    first = _KINDS[int(rng.choice(len(_KINDS), p=_SHARES))](rng, recordings)
    sound, clips = first.sound, first.clips
    if rng.random() < 0.35:
        second = recordings.draw(rng, steady=True)
        sound = sound + to_unit_power(second.sound) * decibels(rng.uniform(-12, 0))
        clips = (*clips, second.clip)
    sound = filter_by(sound, bumps(rng, int(rng.integers(0, 4)), 6, 0.1, 0.6))
    return Piece(to_unit_power(sound), first.label, clips)


def _steady(rng: np.random.Generator, recordings: Recordings) -> Piece:
    excerpt = recordings.draw(rng, steady=True)
    sound = excerpt.sound
    if rng.random() < 0.4:
        sound = filter_by(sound, bumps(rng, 3, 8))
    if rng.random() < 0.3:
        sound = at_speed(sound, float(np.exp(rng.uniform(-0.4, 0.4))))
    return Piece(to_unit_power(sound), excerpt.clip.label, (excerpt.clip,))


def _rhythm(rng: np.random.Generator, recordings: Recordings) -> Piece:
    grains = [recordings.grain(rng) for _ in range(int(rng.integers(1, 4)))]
    rate = log_uniform(rng, 1.5, 35)
    time_jitter, level_jitter = rng.uniform(0, 0.03), rng.uniform(0, 0.2)
    sound = np.zeros(SAMPLES + SAMPLE_RATE, dtype=np.float32)
    for grain in grains:
        offset, level = rng.random(), float(np.exp(0.5 * rng.standard_normal()))
        for moment in np.arange(rng.uniform(0, 1) / rate, SECONDS, 1 / rate):
            late = (offset + time_jitter * abs(rng.standard_normal())) / rate
            place = min(int((moment + late) * SAMPLE_RATE), SAMPLES)
            piece = grain.sound[: len(sound) - place]
            sound[place : place + len(piece)] += piece * level * (1 + level_jitter * rng.standard_normal())
    return Piece(to_unit_power(sound[:SAMPLES]), grains[0].clip.label, tuple(grain.clip for grain in grains))


def _rotor(rng: np.random.Generator, recordings: Recordings) -> Piece:
    rate = log_uniform(rng, 12, 300)
    hum = to_unit_power(tones(rng, rate, int(rng.integers(3, 40)))) * rng.uniform(0, 1)
    shape = envelope(rng, rate / int(rng.integers(1, 4))) ** rng.uniform(0, 1)
    sound = hum + to_unit_power(colored_noise(rng)) * rng.uniform(0.1, 1) * shape
    if rng.random() < 0.4:
        sound = sound + to_unit_power(impacts(rng, rate / 2)) * rng.uniform(0.1, 0.8)
    return Piece(to_unit_power(roll(sound.astype(np.float32), rng)), SYNTHETIC, ())


_KINDS: tuple[Callable[[np.random.Generator, Recordings], Piece], ...] = (_steady, _rhythm, _rotor)
_SHARES = (0.45, 0.3, 0.25)
