"""Recordings to compose from, and the parts of them that sound."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, decode
from training.composition.shaping import FRAME, SAMPLE_RATE, SAMPLES, Sound, log_uniform, roll
from training.data.catalog import Clip, DataError

_STEADY = 0.2  # of a clip's RMS, that even its quiet frames reach
_ACTIVE = 0.3  # of a clip's RMS, that a frame worth a grain reaches
_SHORTEST_GRAIN, _LONGEST_GRAIN = 0.02, 0.4  # seconds
_LEAST_GRAIN = 64  # samples


@dataclass(frozen=True)
class Heard:
    """A sound, and the clip that it is from."""

    sound: Sound
    clip: Clip


class Recordings:
    """Clips of one length in memory, and which of them are steady.

    A clip that cannot be decoded, or in which nothing sounds, is named in `refused`, with the reason, and left out.
    """

    def __init__(self, clips: Sequence[Clip], progress: Callable[[int], None] = lambda _: None) -> None:
        """Decode clips; shorter ones are repeated, of longer ones the beginning counts.

        Raises:
            DataError: none of them is steady enough to be a machine.
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
                f"None of {len(clips)} clips sounds on and on, so no machine can be composed of them. "
                f"{len(self.refused)} were no use at all{_first(self.refused)}."
            )
        self._steady = np.array(steady)

    def draw(self, rng: np.random.Generator, *, steady: bool) -> Heard:
        """A recording, begun anywhere; `steady`: one that never pauses."""
        index = int(rng.choice(self._steady) if steady else rng.integers(len(self._clips)))
        return Heard(roll(self._sounds[index], rng), self._clips[index])

    def grain(self, rng: np.random.Generator) -> Heard:
        """A short piece `(n,)` out of the loud part of a recording, faded in and out."""
        index = int(rng.integers(len(self._clips)))
        begin = int(rng.choice(self._active[index])) * FRAME
        length = max(int(SAMPLE_RATE * log_uniform(rng, _SHORTEST_GRAIN, _LONGEST_GRAIN)), _LEAST_GRAIN)
        piece = self._sounds[index][begin : begin + length]
        return Heard(piece * np.hanning(len(piece)).astype(np.float32) ** 0.5, self._clips[index])


def _read(clip: Clip) -> Sound:
    samples = decode(clip.path.read_bytes(), sample_rate=SAMPLE_RATE, limits=AudioLimits()).samples
    return np.resize(samples, SAMPLES).astype(np.float32)


def _first(refused: dict[str, str]) -> str:
    return next((f", the first: {name}: {reason}" for name, reason in refused.items()), "").removesuffix(".")
