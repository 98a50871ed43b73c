"""Loads recordings to compose from, and draws excerpts of their audible parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, decode
from training.composition.shaping import FRAME, SAMPLE_RATE, SAMPLES, Sound, log_uniform, roll
from training.data.catalog import Clip, DataError

_STEADY = 0.2  # level of the quiet frames of a steady clip, as a share of its RMS
_ACTIVE = 0.3  # level of a frame that can start a grain, as a share of the clip's RMS
_SHORTEST_GRAIN, _LONGEST_GRAIN = 0.02, 0.4  # seconds
_LEAST_GRAIN = 64  # samples


@dataclass(frozen=True)
class Excerpt:
    """A sound and the clip that it was taken from."""

    sound: Sound
    clip: Clip


class Recordings:
    """Clips of one length in memory.

    A clip that cannot be decoded or is silent is left out; `refused` has the reason.
    """

    def __init__(self, clips: Sequence[Clip], progress: Callable[[int], None] = lambda _: None) -> None:
        """Decode clips; shorter ones are repeated, longer ones are cut.

        Raises:
            DataError: no clip is steady enough for a machine.
        """
        self.refused: dict[str, str] = {}
        self._clips: list[Clip] = []
        self._sounds: list[Sound] = []
        self._active: list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = []
        steady = []
        for number, clip in enumerate(clips, start=1):
            progress(number)
            try:
                sound = _read(clip)
            except (OffkeyError, OSError) as error:
                self.refused[clip.name] = str(error)
                continue
            whole = np.sqrt(np.mean(sound**2))
            frames = np.sqrt(np.mean(sound.reshape(-1, FRAME) ** 2, axis=1))  # (frames,)
            if np.quantile(frames, 0.1) > _STEADY * whole:
                steady.append(len(self._clips))
            self._clips.append(clip)
            self._sounds.append(sound)
            self._active.append(np.flatnonzero(frames > _ACTIVE * whole))
        if not steady:
            raise DataError(
                f"None of {len(clips)} clips is steady, so no machine can be composed of them. "
                f"{len(self.refused)} clips could not be used{_first(self.refused)}."
            )
        self._steady = np.array(steady)

    def draw(self, rng: np.random.Generator, *, steady: bool) -> Excerpt:
        """Draw a recording with a random start; `steady` selects recordings without pauses."""
        index = int(rng.choice(self._steady) if steady else rng.integers(len(self._clips)))
        return Excerpt(roll(self._sounds[index], rng), self._clips[index])

    def grain(self, rng: np.random.Generator) -> Excerpt:
        """Draw a short piece `(n,)` of the loud part of a recording, faded in and out."""
        index = int(rng.integers(len(self._clips)))
        begin = int(rng.choice(self._active[index])) * FRAME
        length = max(int(SAMPLE_RATE * log_uniform(rng, _SHORTEST_GRAIN, _LONGEST_GRAIN)), _LEAST_GRAIN)
        piece = self._sounds[index][begin : begin + length]
        return Excerpt(piece * np.hanning(len(piece)).astype(np.float32) ** 0.5, self._clips[index])


def _read(clip: Clip) -> Sound:
    samples = decode(clip.path.read_bytes(), sample_rate=SAMPLE_RATE, limits=AudioLimits()).samples
    return np.resize(samples, SAMPLES).astype(np.float32)


def _first(refused: dict[str, str]) -> str:
    return next((f"; the first is {name}: {reason}" for name, reason in refused.items()), "").removesuffix(".")
