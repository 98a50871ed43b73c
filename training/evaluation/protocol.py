"""The evaluation protocol of arXiv 2510.25182: machines in noise at given signal-to-noise ratios.

Clips and segments of noise are scaled to unit power, the clip is scaled to the ratio, and the mixture is scaled to one
level, so that the loudness of a recording has no effect. Bank and tests use disjoint recordings of noise. Draws depend
on seed, machine, kind of noise and role alone. So all methods are compared on the same mixtures, and a curve over
ratios uses the same noise at different levels.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np

from offkey.errors import OffkeyError
from service.audio.decode import AudioLimits, Samples, decode
from service.domain import nuisance
from training.data.catalog import DataError
from training.evaluation.noise import KINDS, Kind, Noise, Role, generator, unit_power
from training.evaluation.tree import JudgedClip, JudgedMachine, longest_seconds

VERSION = 3  # version of the protocol, in the keys of the cache
LEVEL = 0.1  # RMS of all waveforms; full scale is 1


@dataclass(frozen=True)
class Condition:
    """The noise of the bank and the noise of the tests; None for no noise."""

    name: str
    bank: Kind | None
    test: Kind | None

    @property
    def relation(self) -> Literal["clean", "matched", "mismatch"]:
        """Relation of both noises."""
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
    """The waveforms of one split.

    `clean` is the clips without noise, `noise` the segments that were drawn for them (for the oracle), `mixture` both.
    """

    part: Literal["clean", "noise", "mixture"]
    role: Role
    kind: Kind | None = None
    snr_db: float | None = None
    seed: int | None = None

    def key(self, machine: JudgedMachine, noise: Noise) -> str:
        """Hash everything that determines the waveforms: equal keys mean equal waveforms."""
        drawn = None
        if self.kind is not None:
            drawn = [machine.name, self.kind, self.role, self.snr_db, self.seed, noise.sha256(self.kind, self.role)]
        # Enrolled clips also have pieces, by their domain; a clip to score is cut by the length of the enrolled ones.
        clips = [(clip.sha256, clip.domain.value) for clip in clips_of(machine, self.role)]
        pieces = nuisance.VERSION if self.role == "bank" else None
        longest = longest_seconds(machine) if self.role == "test" else 0.0
        return sha256(json.dumps([VERSION, self.part, self.role, clips, pieces, longest, drawn]).encode()).hexdigest()

    def waveforms(self, machine: JudgedMachine, noise: Noise, sample_rate: int) -> Iterator[Samples]:
        """Yield the waveform `(samples,)` of each clip of the split, in order.

        Raises:
            DataError: a clip or a segment of noise cannot be used.
        """
        clips = (_read(clip, sample_rate) for clip in clips_of(machine, self.role))
        if self.kind is None:
            yield from (at_level(unit_power(clip)) for clip in clips)
            return
        assert self.seed is not None
        draws = noise.draws(self.kind, self.role, generator(self.seed, machine.name, self.kind, self.role))
        for clip in clips:
            segment = draws.take(len(clip))
            if self.snr_db is None:
                yield at_level(unit_power(segment))
            else:
                yield mix(clip, segment, self.snr_db)


def sounds(snrs: tuple[float, ...], seeds: int, *, oracle: bool) -> Iterator[Sound]:
    """List the sounds of a machine in an experiment: noise for the oracle, otherwise clips and mixtures."""
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
    """Return the clips of a bank or a test."""
    return machine.train if role == "bank" else machine.test


def mix(clip: Samples, noise: Samples, snr_db: float) -> Samples:
    """Mix a clip with noise at a ratio, and scale the mixture to `LEVEL`.

    Args:
        clip: samples `(samples,)` at any level.
        noise: samples `(samples,)` at any level.
        snr_db: power of the clip over power of the noise, in dB.
    """
    return at_level(10 ** (snr_db / 20) * unit_power(clip) + unit_power(noise))


def at_level(samples: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Samples:
    """Scale a waveform to `LEVEL`."""
    scaled: Samples = (LEVEL * samples / np.sqrt(np.mean(samples**2))).astype(np.float32)
    return scaled


def _read(clip: JudgedClip, sample_rate: int) -> Samples:
    try:
        return decode(clip.path.read_bytes(), sample_rate=sample_rate, limits=AudioLimits()).samples
    except OffkeyError as error:
        raise DataError(f"{clip.path}: {error.detail}") from error
