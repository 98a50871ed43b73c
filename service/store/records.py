"""Define the values that the store reads and writes."""

import math
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain, Rule
from service.domain.acoustics import Acoustics
from service.domain.distance import Vectors
from service.domain.enrolled import Piece
from service.domain.slices import Slices
from service.domain.spectrogram import Spectrogram


@dataclass(frozen=True)
class MachineRecord:
    """One machine and the size of its bank."""

    machine_key: int
    machine_id: str
    description: str
    threshold_rule: Rule
    false_alarm_rate: float | None  # None for the service's default
    decision_threshold: float | None  # threshold of the manual rule
    embedding_space_id: str | None  # None if nothing is enrolled
    generation: int
    guard_generation: int  # oldest generation that the guard may compare with
    created_at: datetime
    source_clips: int
    target_clips: int

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for what only a damaged database can hold."""
        rate = self.false_alarm_rate
        if self.generation < 0 or not (rate is None or 0.0 < rate < 1.0):
            raise ValueError(f"machine {self.machine_id!r}: generation {self.generation}, false-alarm rate {rate}")

    @property
    def clips(self) -> int:
        """Enrolled clips of both domains."""
        return self.source_clips + self.target_clips


@dataclass(frozen=True)
class ClipRecord:
    """One enrolled clip."""

    clip_id: int
    name: str
    recording: str | None  # None if the clip is its own recording
    domain: Domain
    sha256: str
    seconds: float
    sample_rate: int
    channels: int
    windows: int
    enrolled_at: datetime
    acoustics: Acoustics | None  # None if they were not measured

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for what only a damaged database can hold."""
        if not math.isfinite(self.seconds):
            raise ValueError(f"clip {self.clip_id} lasts {self.seconds} s")


@dataclass(frozen=True)
class NewClip:
    """An embedded clip to be enrolled."""

    sha256: str
    name: str
    recording: str | None
    domain: Domain
    seconds: float
    sample_rate: int
    channels: int
    vectors: Vectors  # (windows, dim)
    starts: NDArray[np.float64]  # (windows,) seconds
    acoustics: Acoustics | None = None  # None if they were not measured
    spectrograms: tuple[Spectrogram, ...] = ()  # one for each window; empty if the bundle has none
    slices: tuple[Slices, ...] = ()  # one for each window; empty if the bundle has none
    pieces: tuple[Piece, ...] = ()  # variants and cuts
    audio: bytes | None = field(default=None, repr=False)  # posted file; None if it is not to be stored


@dataclass(frozen=True)
class BankLimits:
    """Limits of a machine's bank."""

    clips: int
    windows: int


@dataclass(frozen=True)
class Enrolled:
    """Result of enrolling one clip."""

    clip_id: int
    domain: Domain
    recording: str | None
    duplicate: bool
    has_audio: bool  # whether its file is stored
