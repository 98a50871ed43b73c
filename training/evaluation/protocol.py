"""The paper's protocol (arXiv 2510.25182, evaluation): machines in noise at a stated signal-to-noise ratio.

Every clip and every stretch of noise is brought to unit power, the clip is scaled to the ratio, and what comes out
is brought to one level: how loud a clip was recorded says nothing. Bank and tests hear noise of disjoint recordings.
What is drawn hangs on seed, machine, kind of noise and role alone. It is the same for every method and every ratio,
so that methods are compared on the same mixtures and a curve over ratios is one of the same noise, louder or softer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, Samples, decode
from training.data.catalog import DataError
from training.evaluation.noise import KINDS, Kind, Noise, Role, generator, unit_power
from training.evaluation.tree import JudgedClip, JudgedMachine

VERSION = 1  # of the protocol: what is kept on disk is of one version
LEVEL = 0.1  # RMS of everything that is heard; full scale is 1


@dataclass(frozen=True)
class Condition:
    """In which noise the bank is enrolled and in which the tests are heard. None is no noise."""

    name: str
    bank: Kind | None
    test: Kind | None

    @property
    def relation(self) -> Literal["clean", "matched", "mismatch"]:
        """How the two stand to each other."""
        if self.bank is None:
            return "clean"
        return "matched" if self.bank == self.test else "mismatch"


CLEAN = Condition("clean", None, None)
NOISY = tuple(
    Condition(bank if bank == test else f"{bank} to {test}", bank, test)
    for bank, test in (*((kind, kind) for kind in KINDS), KINDS, KINDS[::-1])
)


@dataclass(frozen=True)
class Sound:
    """What is heard of the clips of one split.

    `clean` is the clips alone, `noise` the stretches that were drawn for them alone (for the oracle), `mixture` both.
    """

    part: Literal["clean", "noise", "mixture"]
    role: Role
    kind: Kind | None = None
    snr_db: float | None = None
    seed: int | None = None

    def key(self, machine: JudgedMachine, noise: Noise) -> str:
        """What the waveforms hang on, by content: equal keys are equal waveforms."""
        drawn = None
        if self.kind is not None:
            drawn = [machine.name, self.kind, self.role, self.snr_db, self.seed, noise.sha256(self.kind, self.role)]
        clips = [clip.sha256 for clip in clips_of(machine, self.role)]
        return sha256(json.dumps([VERSION, self.part, clips, drawn]).encode()).hexdigest()

    def heard(self, machine: JudgedMachine, noise: Noise, sample_rate: int) -> Iterator[Samples]:
        """The waveform `(samples,)` of each clip of the split, in its order.

        Raises:
            DataError: a clip or a stretch of noise is not usable.
        """
        clips = (_read(clip, sample_rate) for clip in clips_of(machine, self.role))
        if self.kind is None:
            yield from (at_level(unit_power(clip)) for clip in clips)
            return
        assert self.seed is not None
        draws = noise.draws(self.kind, self.role, generator(self.seed, machine.name, self.kind, self.role))
        for clip in clips:
            stretch = draws.take(len(clip))
            if self.snr_db is None:
                yield at_level(unit_power(stretch))
            else:
                yield mix(clip, stretch, self.snr_db)


def sounds(snrs: tuple[float, ...], seeds: int, *, oracle: bool) -> Iterator[Sound]:
    """Everything that is heard of a machine in an experiment; for the oracle the noise alone, else the mixtures."""
    for role in ("bank", "test"):
        if not oracle:
            yield Sound("clean", role)
        for kind in KINDS:
            for seed in range(seeds):
                if oracle:
                    yield Sound("noise", role, kind, None, seed)
                else:
                    yield from (Sound("mixture", role, kind, snr, seed) for snr in snrs)


def clips_of(machine: JudgedMachine, role: Role) -> tuple[JudgedClip, ...]:
    """The clips that a bank or a test is made of."""
    return machine.train if role == "bank" else machine.test


def mix(clip: Samples, noise: Samples, snr_db: float) -> Samples:
    """Noise of unit power plus the clip scaled to the ratio, at `LEVEL`.

    Args:
        clip: `(samples,)`, at any level.
        noise: `(samples,)`, at any level.
        snr_db: power of the clip over power of the noise, dB.
    """
    return at_level(10 ** (snr_db / 20) * unit_power(clip) + unit_power(noise))


def at_level(samples: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Samples:
    """The waveform at `LEVEL`."""
    scaled: Samples = (LEVEL * samples / np.sqrt(np.mean(samples**2))).astype(np.float32)
    return scaled


def _read(clip: JudgedClip, sample_rate: int) -> Samples:
    try:
        return decode(clip.path.read_bytes(), sample_rate=sample_rate, limits=AudioLimits()).samples
    except OffkeyError as error:
        raise DataError(f"{clip.path}: {error.detail}") from error
