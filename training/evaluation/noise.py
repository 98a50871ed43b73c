"""Background noise: recordings for the bank and recordings for the tests, none for both."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, Samples, decode
from training.data.catalog import DataError
from training.data.layouts.collection import audio_files
from training.evaluation.tree import RECORDING

Kind = Literal["stationary", "nonstationary"]
Role = Literal["bank", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ROLES: tuple[Role, ...] = get_args(Role)

SILENCE = 1e-12  # variance below which samples are silent; full scale is 1

_LIMITS = AudioLimits(max_seconds=3_600.0)


@dataclass(frozen=True)
class Recording:
    """A recording of noise, `(samples,)` at the sample rate of the bundles."""

    name: str
    sha256: str
    samples: Samples

    def cut(self, start: int, length: int) -> Samples:
        """Cut `length` samples from `start`; a recording that is too short is repeated."""
        repeated = np.resize(self.samples, max(len(self.samples), length))
        return repeated[start : start + length]


@dataclass(frozen=True)
class Noise:
    """Recordings by kind and role.

    Attributes:
        recordings: recordings by kind and role, without overlap.
        left_out: notes on repeated recordings.
    """

    recordings: dict[tuple[Kind, Role], tuple[Recording, ...]]
    left_out: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path, sample_rate: int) -> "Noise":
        """Read `stationary/` and `nonstationary/`; every second of the sorted recordings is for the bank.

        Files with the same recording in their names (`..._rec_1_...`) have one role. A file with the same decoded
        samples as an earlier one, of either kind, is left out.

        Args:
            folder: folder of both kinds.
            sample_rate: sample rate of the samples, in Hz.

        Raises:
            DataError: a folder is missing, has fewer than two recordings, or has one that cannot be decoded.
        """
        absent = [kind for kind in KINDS if not (folder / kind).is_dir()]
        if absent:
            raise DataError(f"The folder of noise {folder} has no {absent[0]}/; it needs {' and '.join(KINDS)}.")
        recordings: dict[tuple[Kind, Role], tuple[Recording, ...]] = {}
        seen: dict[bytes, str] = {}
        left_out = []
        for kind in KINDS:
            pieces: dict[object, list[Recording]] = {}
            for path in audio_files(folder / kind):
                recording, name = _read(path, sample_rate), path.relative_to(folder).as_posix()
                first = seen.setdefault(hashlib.sha256(recording.samples.tobytes()).digest(), name)
                if first != name:
                    left_out.append(f"Noise {name} repeats {first} and was left out.")
                    continue
                match = RECORDING.search(path.stem)
                pieces.setdefault((path.parent, match.group(1)) if match else path, []).append(recording)
            if len(pieces) < 2:
                raise DataError(
                    f"{folder / kind} needs at least two recordings, one for the bank and one for the tests."
                )
            for offset, role in enumerate(ROLES):
                recordings[kind, role] = tuple(one for own in [*pieces.values()][offset::2] for one in own)
        return cls(recordings, tuple(left_out))

    def check(self, length: int) -> None:
        """Raise `DataError` if a segment of `length` samples is silent, so that it cannot be scaled to unit power."""
        for (kind, _), recordings in self.recordings.items():
            for one in recordings:
                start = _silent(one.samples.astype(np.float64), length)
                if start is not None:
                    raise DataError(
                        f"The noise {kind}/{one.name} is silent for the length of a clip, {length} samples from sample "
                        f"{start} on, so no signal-to-noise ratio can be set. Remove the silence, or the file."
                    )

    def draws(self, kind: Kind, role: Role, rng: np.random.Generator) -> "Draws":
        """Create the draws of noise segments of one kind and role, which depend on `rng` alone."""
        return Draws(self.recordings[kind, role], rng)

    def sha256(self, kind: Kind, role: Role) -> list[str]:
        """Return the hashes of the recordings."""
        return [recording.sha256 for recording in self.recordings[kind, role]]


class Draws:
    """Draws segments of noise; recordings are drawn without replacement, then all again."""

    def __init__(self, recordings: Sequence[Recording], rng: np.random.Generator) -> None:
        self._recordings = recordings
        self._rng = rng
        self._left: list[int] = []

    def take(self, length: int) -> Samples:
        """Draw the next segment `(length,)`; its start is uniform over the recording."""
        self._left = self._left or self._rng.permutation(len(self._recordings)).tolist()
        recording = self._recordings[self._left.pop()]
        start = int(self._rng.integers(max(len(recording.samples) - length, 0) + 1))
        return recording.cut(start, length)


def _read(path: Path, sample_rate: int) -> Recording:
    try:
        data = path.read_bytes()
        samples = decode(data, sample_rate=sample_rate, limits=_LIMITS).samples
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except OffkeyError as error:
        raise DataError(f"{path}: {error.detail}") from error
    return Recording(path.name, hashlib.sha256(data).hexdigest(), samples)


def _silent(samples: NDArray[np.float64], length: int) -> int | None:
    """Return the start of the first silent segment; None if there is none. A shorter recording is one segment."""
    length = min(length, len(samples))
    sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (samples, samples**2))
    mean, power = ((whole[length:] - whole[:-length]) / length for whole in (sums, squares))
    found = np.flatnonzero(power - mean**2 < SILENCE)
    return int(found[0]) if len(found) else None


def generator(seed: int, *words: str) -> np.random.Generator:
    """Create a generator that depends on a seed and words alone, so that draws are independent of each other."""
    digest = hashlib.sha256("/".join(words).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def unit_power(samples: Samples) -> NDArray[np.float64]:
    """Remove the mean of `(samples,)` and scale it to unit power. Raises `DataError` if it is silent."""
    centered = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    power = float(np.mean(centered**2))
    if power < SILENCE:
        raise DataError("A segment is silent, so no signal-to-noise ratio can be set. Remove silent recordings.")
    scaled: NDArray[np.float64] = centered / np.sqrt(power)
    return scaled
