"""The memory bank of a machine: its enrolled normal embeddings, searchable and calibrated.

A bank never changes. The store is the truth; `Banks` builds a new bank when the store's generation has moved
on and swaps the reference, so that readers never see a half-built one.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.domain.backends import DEFAULT_BACKEND
from service.domain.conditions import Conditions
from service.domain.coreset import coreset
from service.domain.detector import Detector
from service.domain.distance import Vectors
from service.domain.envelope import Envelope
from service.domain.errors import ErrorKind, OffkeyError
from service.domain.localization import Reference
from service.domain.machine import Domain
from service.domain.spectrogram import Spectrogram
from service.index import Index, build_index


@dataclass(frozen=True)
class BankRows:
    """A machine's enrolled windows as the store has them at one generation, in order of enrollment."""

    generation: int
    embedding_space_id: str | None  # None: nothing is enrolled
    vectors: Vectors  # (n, dim)
    clips: NDArray[np.int64]  # (n,) clip id
    recordings: NDArray[np.int64]  # (n,) number of the recording that the clip was cut from
    starts: NDArray[np.float64]  # (n,) seconds
    domains: tuple[Domain, ...]  # (n,)
    names: Mapping[int, str]  # by clip id
    conditions: Mapping[int, Conditions] = field(default_factory=dict)  # by clip id, of those that were measured
    spectrograms: Mapping[int, Spectrogram] = field(default_factory=dict)  # by row; not of clips that have none
    noise: Vectors | None = None  # (m, dim), of the background without the machine


@dataclass(frozen=True)
class Neighbor:
    """An enrolled window near to a scored one."""

    clip_id: int
    name: str
    start_s: float
    domain: Domain
    distance: float


class _DomainBank:
    """The windows of one domain. Their index is built by the first search: who asks for the threshold needs none."""

    def __init__(self, rows: BankRows, at: NDArray[np.int64], exact_limit: int) -> None:
        self.vectors = rows.vectors[at]  # (n, dim)
        self.clips = rows.clips[at]  # (n,)
        self.starts = rows.starts[at]  # (n,)
        self._exact_limit = exact_limit
        self._index: Index | None = None
        self._lock = threading.Lock()

    @property
    def index(self) -> Index:
        with self._lock:
            if self._index is None:
                self._index = build_index(self.vectors, exact_limit=self._exact_limit)
            return self._index


@dataclass(frozen=True)
class MemoryBank:
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
        cls, rows: BankRows, *, exact_limit: int, backend: str = DEFAULT_BACKEND, coreset_windows: int = 0
    ) -> Self:
        """Calibrate a machine's rows with a backend, one of `BACKENDS`.

        Args:
            rows: all that is enrolled.
            exact_limit: windows of a domain up to which search is exact.
            backend: its name.
            coreset_windows: most windows of a domain to compare with; 0: all.

        Raises:
            OffkeyError: there is no row, or too few to know how much healthy recordings differ.
        """
        if len(rows.vectors) == 0 or rows.embedding_space_id is None:
            raise OffkeyError(
                ErrorKind.EMPTY_BANK,
                "No clip is enrolled for this machine. POST normal clips to /enroll first.",
            )
        domains = np.array(rows.domains)
        enrolled = {d: np.flatnonzero(domains == d) for d in Domain if (domains == d).any()}
        members = enrolled
        if coreset_windows:
            members = {
                d: at[coreset(rows.vectors[at], rows.clips[at], rows.recordings[at], coreset_windows)]
                for d, at in enrolled.items()
            }
        detector = Detector.fit(
            {d: rows.vectors[at] for d, at in members.items()},
            {d: rows.clips[at] for d, at in members.items()},
            {d: rows.recordings[at] for d, at in members.items()},
            backend,
        )
        banks = {d: _DomainBank(rows, at, exact_limit) for d, at in members.items()}
        clips, compared = (
            {domain: len(np.unique(rows.clips[at])) for domain, at in own.items()} for own in (enrolled, members)
        )
        envelopes = {d: found for d, at in enrolled.items() if (found := _envelope(rows, at)) is not None}
        reference, heard = _reference(rows, members)
        return cls(
            generation=rows.generation,
            embedding_space_id=rows.embedding_space_id,
            clips=clips,
            compared=compared,
            detector=detector,
            envelopes=envelopes,
            reference=reference,
            clips_in_reference=heard,
            noise=rows.noise,
            _domains=banks,
            _names=rows.names,
        )

    @property
    def values(self) -> int:
        """Values of 4 bytes that it holds: windows times dimensions, and what the backend knows of them."""
        return sum(bank.vectors.size for bank in self._domains.values()) + self.detector.values

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
        enrolled = sum(len(bank.vectors) for bank in self._domains.values())
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
        return self._domains[domain].vectors[rows]

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


def _envelope(rows: BankRows, at: NDArray[np.int64]) -> Envelope | None:
    recordings = dict(zip(rows.clips[at].tolist(), rows.recordings[at].tolist(), strict=True))
    measured = [clip for clip in recordings if clip in rows.conditions]
    return Envelope.of([rows.conditions[clip] for clip in measured], [recordings[clip] for clip in measured])


def _reference(rows: BankRows, members: Mapping[Domain, NDArray[np.int64]]) -> tuple[Reference, int]:
    """Of the windows whose spectrogram is kept, and of how many clips they are."""
    kept = {domain: [row for row in at.tolist() if row in rows.spectrograms] for domain, at in members.items()}
    reference = Reference.fit(
        {domain: [rows.spectrograms[row] for row in found] for domain, found in kept.items()},
        {domain: rows.recordings[found] for domain, found in kept.items()},
    )
    return reference, len(np.unique(rows.clips[[row for found in kept.values() for row in found]]))


class Banks:
    """The banks that were asked for last, each as new as the store when it was asked for."""

    def __init__(
        self, *, exact_limit: int, max_values: int, backend: str = DEFAULT_BACKEND, coreset_windows: int = 0
    ) -> None:
        """Hold banks of `max_values` values together, or a single one that is larger."""
        self._exact_limit = exact_limit
        self._backend = backend
        self._coreset_windows = coreset_windows
        self._max_values = max_values
        self._banks: OrderedDict[int, MemoryBank] = OrderedDict()  # least recently used first
        self._building: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()  # of both

    def get(self, machine_key: int, generation: int, load: Callable[[], BankRows]) -> MemoryBank:
        """Return a bank at `generation` or newer.

        Args:
            machine_key: the store's key of the machine, never used again for another one.
            generation: the store's generation of the machine when the request began.
            load: reads the machine's rows from the store; called only if the bank at hand is older.
        """
        with self._lock:
            bank = self._fresh(machine_key, generation)
            if bank is not None:
                return bank
            building = self._building.setdefault(machine_key, threading.Lock())
        with building:  # one build per machine; the others wait for it and use what it made
            with self._lock:
                bank = self._fresh(machine_key, generation)
            if bank is None:
                bank = self._build(machine_key, building, load)
            return bank

    def at_hand(self, machine_key: int) -> MemoryBank | None:
        """The bank of a machine that was built last, be it a generation or more behind; None: none is in memory."""
        with self._lock:
            return self._banks.get(machine_key)

    def forget(self, machine_key: int) -> None:
        """Drop the bank of a deleted machine, also one that is being built."""
        with self._lock:
            self._banks.pop(machine_key, None)
            self._building.pop(machine_key, None)

    def _fresh(self, machine_key: int, generation: int) -> MemoryBank | None:
        bank = self._banks.get(machine_key)
        if bank is None or bank.generation < generation:
            return None
        self._banks.move_to_end(machine_key)
        return bank

    def _build(self, machine_key: int, building: threading.Lock, load: Callable[[], BankRows]) -> MemoryBank:
        built: MemoryBank | None = None
        try:
            built = MemoryBank.build(
                load(),
                exact_limit=self._exact_limit,
                backend=self._backend,
                coreset_windows=self._coreset_windows,
            )
            return built
        finally:
            with self._lock:
                # Another lock or none: the machine was forgotten meanwhile, and nobody would drop its bank.
                if self._building.get(machine_key) is building:
                    if built is None:
                        del self._building[machine_key]
                    else:
                        self._keep(machine_key, built)

    def _keep(self, machine_key: int, bank: MemoryBank) -> None:
        self._banks[machine_key] = bank
        self._banks.move_to_end(machine_key)
        values = sum(kept.values for kept in self._banks.values())
        while values > self._max_values and len(self._banks) > 1:
            _, gone = self._banks.popitem(last=False)
            values -= gone.values
