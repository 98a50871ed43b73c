"""The interface of backends, which measure how far windows are from a bank of healthy ones."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from offkey.vocabulary import Domain
from service.domain.distance import Near, Vectors
from service.domain.enrolled import Details

Measures = NDArray[np.float64]  # (windows,), larger is farther from the healthy windows
Recordings = NDArray[np.int64]  # (windows,), number of each window's recording
LeftOut = Mapping[Domain, Mapping[Domain, Measures]]  # by domain of the windows, then by bank

TINY = 1e-4  # cosine distance below which two windows are the same; identical clips are 0 apart


class Fit(NamedTuple):
    """A fitted backend, and what it measures with recordings left out.

    Attributes:
        backend: the backend.
        left_out: leave-one-recording-out measures of the enrolled windows: `[domain][bank]` is `(n of domain,)`,
            infinite where the bank holds no other recording.
        cuts: those of the cuts of each domain by its own bank, `(c,)`. A domain without cuts is absent.
    """

    backend: "Backend"
    left_out: LeftOut
    cuts: Mapping[Domain, Measures]


class Backend(Protocol):
    """One way to measure windows against a machine's banks. Fitted once per generation, then immutable.

    A window has one measure per enrolled domain. `Detector` standardizes the measures and takes the smallest. A
    measure is a function of the banks and of the window alone, never of other windows that are scored.
    """

    neighbors: ClassVar[int]  # number of nearest windows of each domain that `measure` uses, or 0
    sigma_floor: ClassVar[float]  # lowest deviation to standardize measures with; copies of one clip have none
    uses_details: ClassVar[bool]  # whether cuts, variants and the event view are used; published baselines use none

    @classmethod
    def fit(
        cls,
        banks: Mapping[Domain, Vectors],
        recordings: Mapping[Domain, Recordings],
        details: Mapping[Domain, Details] | None = None,
    ) -> Fit:
        """Fit to a machine's enrolled windows, which come from at least two recordings.

        Args:
            banks: unit embeddings `(n, dim)` per enrolled domain, n >= 1.
            recordings: recording numbers `(n,)` per enrolled domain, unique within the domain.
            details: cuts and variants per enrolled domain, None without.
        """

    def measure(self, windows: Vectors, near: Mapping[Domain, Near]) -> Mapping[Domain, Measures]:
        """Measure windows `(m, dim)` against each bank. Returns finite measures `(m,)` per bank.

        Args:
            windows: unit embeddings `(m, dim)`.
            near: the `neighbors` nearest enrolled windows per domain, or all of them if the domain has fewer.
        """

    @property
    def nbytes(self) -> int:
        """Memory of the fitted arrays, in bytes."""


def numbered(recordings: Mapping[Domain, Recordings]) -> dict[Domain, Recordings]:
    """Number recordings 0, 1, ... through all domains. Returns numbers that are unique over the domains."""
    own, first = {}, 0
    for domain, numbers in recordings.items():
        found, position = np.unique(numbers, return_inverse=True)
        own[domain] = position.astype(np.int64) + first
        first += len(found)
    return own
