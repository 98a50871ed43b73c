"""What the store knows of a machine, as a bank is made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.acoustics import Acoustics
from service.domain.distance import Vectors
from service.domain.spectrogram import Spectrogram


@dataclass(frozen=True)
class BankRows:
    """A machine's enrolled windows as the store has them at one generation, in order of enrollment.

    Conditions and spectrograms serve only to learn from; where that is done already they are `Unread`.
    """

    generation: int
    embedding_space_id: str | None  # None: nothing is enrolled
    vectors: Vectors  # (n, dim)
    clips: NDArray[np.int64]  # (n,) clip id
    recordings: NDArray[np.int64]  # (n,) number of the recording that the clip was cut from
    starts: NDArray[np.float64]  # (n,) seconds
    domains: tuple[Domain, ...]  # (n,)
    names: Mapping[int, str]  # by clip id
    acoustics: Mapping[int, Acoustics] = field(default_factory=dict)  # by clip id, of those that were measured
    spectrograms: Mapping[int, Spectrogram] = field(default_factory=dict)  # by row; not of clips that have none
    noise: Vectors | None = None  # (m, dim), of the background without the machine

    @property
    def by_domain(self) -> Mapping[Domain, NDArray[np.int64]]:
        """The rows of each enrolled domain."""
        domains = np.array(self.domains)
        return {d: np.flatnonzero(domains == d) for d in Domain if (domains == d).any()}


Known = Callable[[BankRows], bool]  # whether there is nothing left to learn of rows, some of which may be unread
