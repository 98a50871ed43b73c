"""One machine's bank. It never changes: when the store has moved on, another takes its place."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.bank.calibration import Calibration
from service.bank.index import Index, build_index, index_values
from service.bank.rows import BankRows
from service.domain.backends import DEFAULT_BACKEND
from service.domain.detector import Detector
from service.domain.distance import Vectors
from service.domain.envelope import Envelope
from service.domain.localization import Reference


@dataclass(frozen=True)
class Neighbor:
    """An enrolled window near to a scored one."""

    clip_id: int
    name: str
    start_s: float
    domain: Domain
    distance: float


class _DomainBank:
    """The windows of one domain. The first search builds a graph of many: who asks for the threshold needs none."""

    def __init__(self, rows: BankRows, at: NDArray[np.int64], vectors: Vectors, exact_limit: int, half: bool) -> None:
        """Of the rows `at` `(n,)`, with their vectors `(n, dim)`."""
        self.values = index_values(len(at), rows.vectors.shape[1], exact_limit=exact_limit, half=half)
        self.clips = rows.clips[at]  # (n,)
        self.starts = rows.starts[at]  # (n,)
        self._index: Index | None = None
        self._lock = threading.Lock()
        self._build = partial(build_index, vectors, exact_limit=exact_limit, half=half)
        if len(at) <= exact_limit:
            self._index = self._build()
            del self._build  # and the vectors with it, where the index has them in 16 bits

    @property
    def index(self) -> Index:
        with self._lock:
            if self._index is None:
                self._index = self._build()
                del self._build
            return self._index


@dataclass(frozen=True)
class Bank:
    """Source and target banks of one machine at one generation.

    Attributes:
        generation: of the store.
        embedding_space_id: of its embeddings; what is held against it must be of the same.
        clips: enrolled ones, per enrolled domain.
        compared: those among them that scores compare with; fewer where there is a coreset.
        detector: scores windows.
        reference: tells what stands out in one.
        clips_in_reference: how many of the compared clips it knows; those enrolled before there were spectrograms have
            none.
        envelopes: the conditions of each domain of which enough clips were measured.
        noise: `(m, dim)`, the background without the machine; None: it is not known.
    """

    generation: int
    embedding_space_id: str
    clips: Mapping[Domain, int]
    compared: Mapping[Domain, int]
    detector: Detector
    envelopes: Mapping[Domain, Envelope]
    reference: Reference
    clips_in_reference: int
    noise: Vectors | None = field(repr=False)
    _domains: Mapping[Domain, _DomainBank] = field(repr=False)
    _names: Mapping[int, str] = field(repr=False)

    @classmethod
    def build(
        cls,
        rows: BankRows,
        *,
        exact_limit: int,
        backend: str = DEFAULT_BACKEND,
        coreset_windows: int = 0,
        half: bool = False,
    ) -> Self:
        """Calibrate a machine's rows with a backend, one of `BACKENDS`.

        Args:
            rows: all that is enrolled.
            exact_limit: windows of a domain up to which search is exact.
            backend: its name.
            coreset_windows: most windows of a domain to compare with; 0: all.
            half: keep embeddings in 16 bits.

        Raises:
            OffkeyError: there is no row, or too few to know how much healthy recordings differ.
        """
        return cls.of(rows, Calibration.fit(rows, backend, coreset_windows), exact_limit=exact_limit, half=half)

    @classmethod
    def of(cls, rows: BankRows, calibration: Calibration, *, exact_limit: int, half: bool = False) -> Self:
        """Put rows together with what was learned from them. Arguments as of `build`."""
        assert rows.embedding_space_id is not None  # of an empty bank nothing is learned
        members = calibration.members
        clips, compared = (
            {domain: len(np.unique(rows.clips[at])) for domain, at in own.items()} for own in (rows.by_domain, members)
        )
        return cls(
            generation=rows.generation,
            embedding_space_id=rows.embedding_space_id,
            clips=clips,
            compared=compared,
            detector=calibration.detector,
            envelopes=calibration.envelopes,
            reference=calibration.reference,
            clips_in_reference=calibration.clips_in_reference,
            noise=rows.noise,
            _domains={
                domain: _DomainBank(rows, at, vectors, exact_limit, half)
                for (domain, at), vectors in zip(members.items(), _parts(rows.vectors, members), strict=True)
            },
            _names=rows.names,
        )

    @property
    def values(self) -> int:
        """Values of 4 bytes that it holds: windows times dimensions, and what the backend knows of them."""
        return sum(bank.values for bank in self._domains.values()) + self.detector.values

    def score(self, windows: Vectors, neighbors: int) -> tuple[NDArray[np.float64], list[list[Neighbor]]]:
        """Score the windows of a clip.

        Args:
            windows: `(m, dim)` unit embeddings.
            neighbors: how many enrolled windows to name for each.

        Returns:
            `(m,)` scores, and for each window its nearest enrolled windows, nearest first.

        Raises:
            OffkeyError: more neighbors are asked for than windows are enrolled.
        """
        enrolled = sum(len(bank.clips) for bank in self._domains.values())
        if neighbors > enrolled:
            raise OffkeyError(
                ErrorKind.TOO_MANY_NEIGHBORS,
                f"{neighbors} neighbors were asked for, but only {enrolled} windows are enrolled.",
                neighbors=neighbors,
                enrolled_windows=enrolled,
            )
        wanted = max(neighbors, self.detector.neighbors)
        found = {domain: bank.index.search(windows, wanted) for domain, bank in self._domains.items()}
        scores = self.detector.window_scores(windows, found)
        named = []
        for window in range(len(windows)):
            near = [
                self._neighbor(domain, int(row), float(distance))
                for domain, (distances, rows) in found.items()
                for distance, row in zip(distances[window, :neighbors], rows[window, :neighbors], strict=True)
            ]
            named.append(sorted(near, key=lambda neighbor: neighbor.distance)[:neighbors])
        return scores, named

    def compares_with(self, clip_id: int) -> bool:
        """Whether a clip is in the bank; a coreset leaves some out that are enrolled."""
        return any((bank.clips == clip_id).any() for bank in self._domains.values())

    def is_background(self, windows: Vectors, neighbors: Sequence[Sequence[Neighbor]]) -> bool:
        """Whether a clip sounds like the background alone: most of its windows are nearer to it than to the bank.

        Args:
            windows: `(m, dim)` unit embeddings.
            neighbors: of each window the nearest enrolled ones, nearest first.
        """
        if self.noise is None or not len(self.noise):
            return False
        to_noise = 1.0 - (windows @ self.noise.T).max(axis=1)
        to_bank = np.array([near[0].distance for near in neighbors])
        return bool(np.mean(to_noise < to_bank) > 0.5)

    def vectors_of(self, clip_id: int) -> Vectors:
        """The embeddings `(windows, dim)` of an enrolled clip.

        Raises:
            OffkeyError: the clip is not in the bank.
        """
        domain, rows = self._enrolled(clip_id)
        return self._domains[domain].index.vectors(rows)

    def self_score(self, clip_id: int) -> float:
        """The score of an enrolled clip with its own recording left out.

        Raises:
            OffkeyError: the clip is not in the bank.
        """
        domain, _ = self._enrolled(clip_id)
        position = np.searchsorted(np.unique(self._domains[domain].clips), clip_id)
        return float(self.detector.self_scores[domain].scores[position])

    def _enrolled(self, clip_id: int) -> tuple[Domain, NDArray[np.int64]]:
        """The domain that a clip is enrolled under, and its rows in that domain's bank."""
        for domain, bank in self._domains.items():
            rows = np.flatnonzero(bank.clips == clip_id)
            if len(rows):
                return domain, rows
        raise OffkeyError(ErrorKind.UNKNOWN_CLIP, f"Clip {clip_id} was deleted meanwhile. Send it again.")

    def _neighbor(self, domain: Domain, row: int, distance: float) -> Neighbor:
        bank = self._domains[domain]
        clip_id = int(bank.clips[row])
        return Neighbor(clip_id, self._names[clip_id], float(bank.starts[row]), domain, distance)


def _parts(vectors: Vectors, members: Mapping[Domain, NDArray[np.int64]]) -> list[Vectors]:
    """The vectors of each domain.

    They are not copied where each domain's lie side by side and none is left over, as of a machine whose clips were
    enrolled domain by domain: a view would otherwise hold the whole in memory for a part.
    """
    together = all(at[-1] - at[0] + 1 == len(at) for at in members.values())
    if together and sum(map(len, members.values())) == len(vectors):
        return [vectors[at[0] : at[-1] + 1] for at in members.values()]
    return [vectors[at] for at in members.values()]
