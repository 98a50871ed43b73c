"""A sound of a place, for a machine to be heard in."""

import numpy as np

from training.composition.generators import colored_noise
from training.composition.machine import Piece
from training.composition.recordings import Recordings
from training.composition.shaping import bumps, decibels, filter_by, to_unit_power, without_time
from training.data.catalog import Clip

MADE_UP = "colored_noise"  # the label of a noise that is made of no recording


def compose_noise(rng: np.random.Generator, recordings: Recordings) -> Piece:
    """A recording, its spectrum without its course in time, two recordings at once, or noise of a color."""
    kind = rng.random()
    if kind < 0.1:
        found = Piece(colored_noise(rng), MADE_UP, ())
    else:
        heard = recordings.draw(rng, steady=rng.random() < 0.5)
        sound = heard.sound
        beside: tuple[Clip, ...] = ()
        if kind < 0.3:
            sound = without_time(sound, rng)
        elif kind < 0.45:
            other = recordings.draw(rng, steady=False)
            sound = to_unit_power(sound) + to_unit_power(other.sound) * decibels(rng.uniform(-10, 5))
            beside = (other.clip,)
        found = Piece(sound, heard.clip.label, (heard.clip, *beside))
    sound = filter_by(found.sound, bumps(rng, 2, 8, 0.3, 2)) if rng.random() < 0.3 else found.sound
    return Piece(to_unit_power(sound), found.label, found.clips)
