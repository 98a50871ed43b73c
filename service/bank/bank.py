"""Bank of one machine. It is immutable: when the machine's generation changes, another bank replaces it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.bank.calibration import Calibration
from service.bank.index import Index, build_index, index_nbytes
from service.bank.rows import BankRows
from service.domain.detector import ClipScores, Detector
from service.domain.distance import Vectors
from service.domain.envelope import Envelope
from service.domain.localization import Reference
from service.domain.slices import Slices


@dataclass(frozen=True)
class Neighbor:
    """Enrolled window near a scored one."""

    clip_id: int
    name: str
    start_s: float
    domain: Domain
    distance: float


class _DomainBank:
    """Windows of one domain. A large index is built at the first search, because a threshold needs none."""

    def __init__(self, rows: BankRows, at: NDArray[np.int64], vectors: Vectors, exact_limit: int) -> None:
        """Hold the rows numbered `at` `(n,)` and their vectors `(n, dim)`."""
        self.nbytes = index_nbytes(*vectors.shape, exact_limit=exact_limit)
        self.clips = rows.clips[at]  # (n,)
        self.starts = rows.starts[at]  # (n,)
        self.vectors = vectors
        self._exact_limit = exact_limit
        self._lock = threading.Lock()
        self._index: Index | None = None

    @property
    def index(self) -> Index:
        with self._lock:
            if self._index is None:
                self._index = build_index(self.vectors, exact_limit=self._exact_limit)
            return self._index


@dataclass(frozen=True)
class Bank:
    """Source and target bank of one machine at one generation.

    Attributes:
        generation: generation of the machine in the store.
        embedding_space_id: embedding space of the vectors. Only vectors of the same space can be compared with them.
        clips: number of enrolled clips per enrolled domain.
        compared: number of clips that scores compare with, per enrolled domain. A coreset leaves some out.
        detector: scorer of windows.
        reference: level statistics for localization.
        clips_in_reference: number of compared clips in `reference`. Clips enrolled by a version without spectrograms
            are missing.
        envelopes: range of acoustics per domain. A domain with too few measured clips has none.
        lacks_pieces: whether no clip has variants and cuts: a version before these enrolled them.
        noise: background without the machine, `(m, dim)`, None if none is stored.
    """

    generation: int
    embedding_space_id: str
    clips: Mapping[Domain, int]
    compared: Mapping[Domain, int]
    detector: Detector
    envelopes: Mapping[Domain, Envelope]
    reference: Reference
    clips_in_reference: int
    lacks_pieces: bool
    noise: Vectors | None = field(repr=False)
    _domains: Mapping[Domain, _DomainBank] = field(repr=False)
    _names: Mapping[int, str] = field(repr=False)

    @classmethod
    def of(cls, rows: BankRows, calibration: Calibration, *, exact_limit: int) -> Self:
        """Combine rows with the calibration that was fitted to them.

        Args:
            rows: enrolled windows.
            calibration: calibration of these rows.
            exact_limit: number of windows of a domain up to which search is exact.
        """
        assert rows.embedding_space_id is not None  # an empty bank has no calibration
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
            lacks_pieces=not rows.pieces,
            noise=rows.noise,
            _domains={
                domain: _DomainBank(rows, at, vectors, exact_limit)
                for (domain, at), vectors in zip(members.items(), _parts(rows.vectors, members), strict=True)
            },
            _names=rows.names,
        )

    @property
    def nbytes(self) -> int:
        """Memory of the indexes and the detector, in bytes."""
        return sum(bank.nbytes for bank in self._domains.values()) + self.detector.nbytes

    def score(
        self,
        windows: Vectors,
        neighbors: int,
        slices: Sequence[Slices] | None = None,
        seconds: float | None = None,
        *,
        as_pieces: bool = False,
    ) -> tuple[ClipScores, list[list[Neighbor]]]:
        """Score a clip.

        Args:
            windows: `(m, dim)` unit embeddings.
            neighbors: number of nearest enrolled windows to return per window.
            slices: slices of each window; empty or None if the bundle has none.
            seconds: duration of the enrolled pieces to compare with, None if unknown.
            as_pieces: whether each window is compared with an enrolled piece; see `Detector.score`.

        Returns:
            Scores, and the nearest enrolled windows of each window, nearest first.

        Raises:
            OffkeyError: fewer windows are enrolled than neighbors are requested.
        """
        enrolled = sum(len(bank.clips) for bank in self._domains.values())
        if neighbors > enrolled:
            raise OffkeyError(
                ErrorKind.TOO_MANY_NEIGHBORS,
                f"{neighbors} neighbors were requested, but only {enrolled} windows are enrolled.",
                neighbors=neighbors,
                enrolled_windows=enrolled,
            )
        wanted = max(neighbors, self.detector.neighbors)
        found = {domain: bank.index.search(windows, wanted) for domain, bank in self._domains.items()}
        scores = self.detector.score(windows, found, slices, seconds, as_pieces=as_pieces)
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
        """Return whether scores compare with a clip. A coreset leaves enrolled clips out."""
        return any((bank.clips == clip_id).any() for bank in self._domains.values())

    def is_background(self, windows: Vectors, neighbors: Sequence[Sequence[Neighbor]]) -> bool:
        """Return whether a clip is background alone: most of its windows are nearer to the noise than to the bank.

        Args:
            windows: `(m, dim)` unit embeddings.
            neighbors: nearest enrolled windows of each window, nearest first.
        """
        if self.noise is None or not len(self.noise):
            return False
        to_noise = 1.0 - (windows @ self.noise.T).max(axis=1)
        to_bank = np.array([near[0].distance for near in neighbors])
        return bool(np.mean(to_noise < to_bank) > 0.5)

    def self_score(self, clip_id: int) -> float:
        """Return the score of an enrolled clip with its own recording left out.

        Raises:
            OffkeyError: the clip is not in the bank.
        """
        for domain, bank in self._domains.items():
            numbers = np.unique(bank.clips)
            if clip_id in numbers:
                return float(self.detector.self_scores[domain].scores[np.searchsorted(numbers, clip_id)])
        raise OffkeyError(ErrorKind.UNKNOWN_CLIP, f"Clip {clip_id} was deleted in the meantime. Send it again.")

    def _neighbor(self, domain: Domain, row: int, distance: float) -> Neighbor:
        bank = self._domains[domain]
        clip_id = int(bank.clips[row])
        return Neighbor(clip_id, self._names[clip_id], float(bank.starts[row]), domain, distance)


def _parts(vectors: Vectors, members: Mapping[Domain, NDArray[np.int64]]) -> list[Vectors]:
    """Split vectors by domain.

    The parts are views if the domains are contiguous and cover all vectors, as for a machine enrolled domain by domain.
    Otherwise they are copies, because a view of a part would keep the whole array in memory.
    """
    contiguous = all(at[-1] - at[0] + 1 == len(at) for at in members.values())
    if contiguous and sum(map(len, members.values())) == len(vectors):
        return [vectors[at[0] : at[-1] + 1] for at in members.values()]
    return [vectors[at] for at in members.values()]
