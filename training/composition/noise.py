"""Composes background noise."""

import numpy as np

from training.composition.generators import colored_noise
from training.composition.machine import Piece
from training.composition.recordings import Recordings
from training.composition.shaping import bumps, decibels, filter_by, to_unit_power, without_time
from training.data.catalog import Clip

SYNTHETIC = "colored_noise"  # label of a noise without recordings


def compose_noise(rng: np.random.Generator, recordings: Recordings) -> Piece:
    """Compose a recording, stationary noise with its spectrum, a mixture of two recordings, or colored noise."""
    kind = rng.random()
    if kind < 0.1:
        found = Piece(colored_noise(rng), SYNTHETIC, ())
    else:
        excerpt = recordings.draw(rng, steady=rng.random() < 0.5)
        sound = excerpt.sound
        added: tuple[Clip, ...] = ()
        if kind < 0.3:
            sound = without_time(sound, rng)
        elif kind < 0.45:
            other = recordings.draw(rng, steady=False)
            sound = to_unit_power(sound) + to_unit_power(other.sound) * decibels(rng.uniform(-10, 5))
            added = (other.clip,)
        found = Piece(sound, excerpt.clip.label, (excerpt.clip, *added))
    sound = filter_by(found.sound, bumps(rng, 2, 8, 0.3, 2)) if rng.random() < 0.3 else found.sound
    return Piece(to_unit_power(sound), found.label, found.clips)
