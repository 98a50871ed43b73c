"""Enrolled rows of a machine, and the interface to read them from a store.

A bank is loaded in two reads. The first returns what scoring needs. The second returns what only a calibration is
fitted to, and is skipped if the calibration is cached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.acoustics import Acoustics
from service.domain.distance import Vectors
from service.domain.enrolled import Piece
from service.domain.slices import Slices
from service.domain.spectrogram import Spectrogram


class BankChangedError(Exception):
    """The bank changed after it was read. Read it again."""


@dataclass(frozen=True)
class BankRows:
    """Enrolled windows of a machine at one generation, in order of enrollment."""

    generation: int
    embedding_space_id: str | None  # None if nothing is enrolled
    vectors: Vectors  # (n, dim)
    clips: NDArray[np.int64]  # (n,) clip ids
    recordings: NDArray[np.int64]  # (n,) recording numbers; clips cut from one recording share a number
    starts: NDArray[np.float64]  # (n,) seconds
    ends: NDArray[np.float64]  # (n,) seconds
    domains: tuple[Domain, ...]  # (n,)
    names: Mapping[int, str]  # clip names by clip id
    measured: frozenset[int] = frozenset()  # ids of clips with stored acoustics
    has_spectrogram: frozenset[int] = frozenset()  # row numbers with a stored spectrogram
    has_slices: frozenset[int] = frozenset()  # row numbers with stored slices
    pieces: Mapping[int, int] = field(default_factory=dict)  # number of stored pieces by clip id
    noise: Vectors | None = None  # (m, dim) background without the machine, None if none is stored

    @property
    def by_domain(self) -> Mapping[Domain, NDArray[np.int64]]:
        """Row numbers per enrolled domain."""
        domains = np.array(self.domains)
        return {d: np.flatnonzero(domains == d) for d in Domain if (domains == d).any()}


@dataclass(frozen=True)
class CalibrationRows:
    """What is stored of the same windows and only a calibration is fitted to."""

    acoustics: Mapping[int, Acoustics] = field(default_factory=dict)  # acoustics by clip id
    spectrograms: Mapping[int, Spectrogram] = field(default_factory=dict)  # spectrograms by row number
    slices: Mapping[int, Slices] = field(default_factory=dict)  # slices by row number
    pieces: Sequence[tuple[int, Piece]] = ()  # clip id and piece


class BankSource(Protocol):
    """Store that banks are read from."""

    def bank_rows(self, machine_key: int) -> BankRows:
        """Read a machine's rows at its current generation."""

    def all_rows(self, machine_key: int) -> tuple[BankRows, CalibrationRows]:
        """Read a machine's rows, and what their calibration is fitted to, as of one moment."""

    def calibration_rows(self, machine_key: int, generation: int) -> CalibrationRows:
        """Read what a calibration of the rows at `generation` is fitted to.

        Raises:
            BankChangedError: the machine is at another generation.
        """
