"""Noise that machines are heard in: recordings for the bank and recordings for the tests, none for both."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from service.audio import AudioLimits, Samples, decode
from service.domain.errors import OffkeyError
from training.data.catalog import DataError
from training.data.layouts.collection import audio_files

Kind = Literal["stationary", "nonstationary"]
Role = Literal["bank", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ROLES: tuple[Role, ...] = get_args(Role)

_LIMITS = AudioLimits(max_seconds=3_600.0)


@dataclass(frozen=True)
class Recording:
    """One recording of noise, `(samples,)` at the rate of the bundles."""

    name: str
    sha256: str
    samples: Samples

    def cut(self, start: int, length: int) -> Samples:
        """`length` samples from `start`; a recording that is too short begins again."""
        repeated = np.resize(self.samples, max(len(self.samples), length))
        return repeated[start : start + length]


@dataclass(frozen=True)
class Noise:
    """Recordings by kind and role."""

    recordings: dict[tuple[Kind, Role], tuple[Recording, ...]]

    @classmethod
    def read(cls, folder: Path, sample_rate: int) -> "Noise":
        """Read `stationary/` and `nonstationary/`: of the sorted files every second one is for the bank.

        Raises:
            DataError: a folder is absent, has fewer than two recordings, or one that cannot be decoded, or a
                recording is there twice.
        """
        recordings: dict[tuple[Kind, Role], tuple[Recording, ...]] = {}
        seen: dict[str, Path] = {}
        for kind in KINDS:
            files = audio_files(folder / kind)
            if len(files) < 2:
                raise DataError(f"{folder / kind} needs two recordings at least, to keep those of bank and test apart.")
            read = [_read(path, sample_rate, seen) for path in files]
            recordings[kind, "bank"], recordings[kind, "test"] = tuple(read[::2]), tuple(read[1::2])
        return cls(recordings)

    def draws(self, kind: Kind, role: Role, rng: np.random.Generator) -> "Draws":
        """Stretches of noise of one kind and role, decided by `rng` alone."""
        return Draws(self.recordings[kind, role], rng)

    def sha256(self, kind: Kind, role: Role) -> list[str]:
        """Hashes of the recordings."""
        return [recording.sha256 for recording in self.recordings[kind, role]]


class Draws:
    """Stretches for clip after clip: recordings are drawn without replacement until all were heard, then all again."""

    def __init__(self, recordings: Sequence[Recording], rng: np.random.Generator) -> None:
        self._recordings = recordings
        self._rng = rng
        self._left: list[int] = []

    def take(self, length: int) -> Samples:
        """The next stretch, `(length,)`; where it begins is uniform over the recording."""
        self._left = self._left or self._rng.permutation(len(self._recordings)).tolist()
        recording = self._recordings[self._left.pop()]
        start = int(self._rng.integers(max(len(recording.samples) - length, 0) + 1))
        return recording.cut(start, length)


def _read(path: Path, sample_rate: int, seen: dict[str, Path]) -> Recording:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 in seen:
        raise DataError(f"{path} and {seen[sha256]} are the same recording, which bank and test must not share.")
    seen[sha256] = path
    try:
        return Recording(path.name, sha256, decode(data, sample_rate=sample_rate, limits=_LIMITS).samples)
    except OffkeyError as error:
        raise DataError(f"{path}: {error.detail}") from error


def generator(seed: int, *words: str) -> np.random.Generator:
    """A generator that hangs on a seed and words alone, so that one draw never moves another."""
    digest = hashlib.sha256("/".join(words).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def unit_power(samples: Samples) -> NDArray[np.float64]:
    """`(samples,)` without offset, of mean square 1. Raises `DataError` if there is nothing to be heard."""
    centered = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    power = float(np.mean(centered**2))
    if power < 1e-12:
        raise DataError("A stretch is silent, so no signal-to-noise ratio can be set. Leave silent recordings out.")
    scaled: NDArray[np.float64] = centered / np.sqrt(power)
    return scaled
