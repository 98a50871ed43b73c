"""What a backend is: something that measures how far windows are from a bank of healthy ones."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.distance import Near, Vectors

Measures = NDArray[np.float64]  # (windows,), larger is farther from what is healthy
Recordings = NDArray[np.int64]  # (windows,), the number of the recording that each window is from
LeftOut = Mapping[Domain, Mapping[Domain, Measures]]  # by domain of the windows, then by bank

TINY = 1e-4  # cosine distance below which two windows are the same; identical clips are 0 apart


class Backend(Protocol):
    """A machine's banks as one method sees them. Fitted once per generation, and never changed.

    A window has a measure against each enrolled domain; `Detector` makes them comparable and takes the smallest.
    What a backend knows comes from the banks alone, and it measures a window by that window alone.
    """

    neighbors: ClassVar[int]  # how many nearest windows of each domain it looks at; 0: none
    sigma_floor: ClassVar[float]  # deviation that is ascribed to its measures at least: copies have none

    @classmethod
    def fit(cls, banks: Mapping[Domain, Vectors], recordings: Mapping[Domain, Recordings]) -> tuple[Self, LeftOut]:
        """Fit to a machine's enrolled windows, of two recordings at least.

        Args:
            banks: per enrolled domain `(n, dim)` unit embeddings, n >= 1.
            recordings: per enrolled domain `(n,)`; a number is of one recording within its domain.

        Returns:
            The backend, and the measures of the enrolled windows themselves with their own recording left out:
            `[domain][bank]` is `(n of domain,)`, infinite where the bank holds no other recording.
        """

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Measure windows `(m, dim)` against each bank: `(m,)`, finite.

        Args:
            windows: unit embeddings.
            near: per enrolled domain the `neighbors` nearest of its windows, or all of them if it has fewer.
        """

    @property
    def values(self) -> int:
        """Memory it takes, in values of 4 bytes."""


def numbered(recordings: Mapping[Domain, Recordings]) -> dict[Domain, Recordings]:
    """The same recordings numbered 0, 1, ... through all domains, so that no number is of two."""
    own, first = {}, 0
    for domain, numbers in recordings.items():
        found, position = np.unique(numbers, return_inverse=True)
        own[domain] = position.astype(np.int64) + first
        first += len(found)
    return own
