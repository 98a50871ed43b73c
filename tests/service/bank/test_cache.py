"""The bank cache: as new as the store, built once, never partly."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.bank import (
    Bank,
    BankCache,
    BankChangedError,
    BankRows,
    Calibration,
    CalibrationCache,
    CalibrationRows,
    calibration_cache,
)

MakeRows = Callable[..., BankRows]
SIX_CLIPS = 6 * 8 * 4  # bytes, without what a backend fits


class RowsInMemory:
    """Store of banks in memory. Counts the reads of both kinds by machine."""

    def __init__(self, make_rows: MakeRows, *, clips: int = 6) -> None:
        self.generation = 1
        self.clips = clips
        self.reads: list[int] = []
        self.calibration_reads: list[int] = []
        self.snapshots: list[int] = []
        self.after_read: Callable[[], object] = lambda: None
        self._make_rows = make_rows

    def bank_rows(self, machine_key: int) -> BankRows:
        self.reads.append(machine_key)
        rows = self._make_rows(self.generation, self.clips)
        self.after_read()
        return replace(rows, has_spectrogram=frozenset(range(self.clips)))

    def calibration_rows(self, machine_key: int, generation: int) -> CalibrationRows:
        self.calibration_reads.append(machine_key)
        if generation != self.generation:
            raise BankChangedError
        return self._calibration_rows()

    def all_rows(self, machine_key: int) -> tuple[BankRows, CalibrationRows]:
        self.snapshots.append(machine_key)
        rows = replace(self._make_rows(self.generation, self.clips), has_spectrogram=frozenset(range(self.clips)))
        return rows, self._calibration_rows()

    def _calibration_rows(self) -> CalibrationRows:
        spectrograms = {row: np.full((2, 3), row + self.generation, np.float32) for row in range(self.clips)}
        return CalibrationRows(spectrograms=spectrograms)


@pytest.fixture
def source(make_rows: MakeRows) -> RowsInMemory:
    return RowsInMemory(make_rows)


@pytest.fixture
def banks() -> BankCache:
    return BankCache(exact_limit=100, max_bytes=10**7)


def test_a_bank_is_read_once_per_generation(banks: BankCache, source: RowsInMemory) -> None:
    for generation in (1, 1, 2, 1, 2):
        source.generation = max(source.generation, generation)
        assert banks.get(source, 7, generation).generation >= generation
    assert source.reads == [7, 7]


def test_many_readers_of_a_stale_bank_build_it_once(banks: BankCache, source: RowsInMemory) -> None:
    barrier = threading.Barrier(8)

    def read() -> int:
        barrier.wait()
        return banks.get(source, 1, 1).generation

    with ThreadPoolExecutor(8) as pool:
        assert [f.result() for f in [pool.submit(read) for _ in range(8)]] == [1] * 8
    assert len(source.reads) == 1
    assert not banks._builds


def test_an_older_bank_is_returned_if_it_is_fresh_enough_also_after_waiting_for_its_build(
    banks: BankCache, source: RowsInMemory
) -> None:
    building = threading.Event()
    source.generation = 5

    def pause() -> None:
        building.set()
        threading.Event().wait(0.1)  # the other requests arrive in the meantime

    source.after_read = pause
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(banks.get, source, 1, 5)
        assert building.wait(10)
        others = [pool.submit(banks.get, source, 1, newer, lambda bank: bank.generation >= 5) for newer in (6, 7, 8)]
        assert [one.result(10).generation for one in (first, *others)] == [5] * 4
    assert len(source.reads) == 1
    source.generation = 6
    assert banks.get(source, 1, 6, lambda bank: bank.generation >= 6).generation == 6


def test_readers_during_changes_always_get_one_whole_generation(
    banks: BankCache, source: RowsInMemory, make_rows: MakeRows
) -> None:
    """Each generation has other vectors: a score from a mixture of two would equal none of the true ones."""
    generations = range(1, 30)
    query = make_rows(99).vectors[:1]
    expected = {}
    for generation in generations:
        rows = make_rows(generation)
        bank = Bank.of(rows, Calibration.fit(rows, CalibrationRows()), exact_limit=100)
        expected[generation] = bank.score(query, 1)[0].score

    def read(_: int) -> bool:
        at_least = source.generation
        bank = banks.get(source, 1, at_least)
        return bank.generation >= at_least and bank.score(query, 1)[0].score == expected[bank.generation]

    def write() -> None:
        for generation in generations:
            source.generation = generation

    with ThreadPoolExecutor(8) as pool:
        writer = pool.submit(write)
        assert all(pool.map(read, range(2_000)))
        writer.result()


def test_a_bank_that_changes_between_the_two_reads_is_read_as_of_one_moment(
    banks: BankCache, source: RowsInMemory, make_rows: MakeRows
) -> None:
    """Without end, as while a large folder is enrolled: to repeat the two reads would load the bank never."""
    source.after_read = lambda: setattr(source, "generation", source.generation + 1)
    bank = banks.get(source, 7, 1)
    assert bank.generation == 2
    assert source.reads == source.calibration_reads == source.snapshots == [7]
    expected = Calibration.fit(make_rows(2), source.calibration_rows(7, 2))
    window = np.zeros((2, 3), np.float32)
    assert repr(bank.reference.locate(window)) == repr(expected.reference.locate(window))


def test_calibration_rows_are_read_only_if_the_calibration_is_not_cached(
    source: RowsInMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_cache, "_MIN_FIT_SECONDS", 0.0)
    for _ in range(2):  # a new process, with the same folder
        banks = BankCache(CalibrationCache(tmp_path), exact_limit=100, max_bytes=10**7)
        assert banks.get(source, 7, 1).clips_in_reference == 6
    assert source.reads == [7, 7]
    assert source.calibration_reads == [7]
    banks.evict(7)
    assert not list(tmp_path.iterdir())


def test_an_evicted_machine_is_read_again(banks: BankCache, source: RowsInMemory) -> None:
    banks.get(source, 1, 1)
    banks.evict(1)
    assert banks.cached(1) is None
    source.generation = 3
    assert banks.get(source, 1, 1).generation == 3


def test_a_bank_that_is_evicted_during_its_build_is_not_cached(banks: BankCache, source: RowsInMemory) -> None:
    source.after_read = lambda: banks.evict(1)  # another request deletes the machine
    assert banks.get(source, 1, 1).generation == 1
    assert banks.cached(1) is None
    source.after_read = lambda: None
    banks.get(source, 1, 1)
    assert source.reads == [1, 1]
    assert banks.cached(1) is not None


def test_the_least_recently_used_bank_is_evicted_first(source: RowsInMemory) -> None:
    banks = BankCache(exact_limit=100, max_bytes=3 * SIX_CLIPS, backend="nearest")
    for machine_key in (1, 2, 3, 1, 4):  # 4 replaces 2
        banks.get(source, machine_key, 1)
    assert source.reads == [1, 2, 3, 4]
    for machine_key in (1, 3, 4, 2):
        banks.get(source, machine_key, 1)
    assert source.reads == [1, 2, 3, 4, 2]
    source.clips = 2 * 6
    banks.get(source, 5, 1)  # as large as two: 3 and 4 are evicted, 2 stays
    source.clips = 6
    for machine_key in (2, 3):
        banks.get(source, machine_key, 1)
    assert source.reads == [1, 2, 3, 4, 2, 5, 3]


def test_banks_that_were_evicted_or_replaced_take_no_room(source: RowsInMemory) -> None:
    banks = BankCache(exact_limit=100, max_bytes=3 * SIX_CLIPS, backend="nearest")
    for generation in range(1, 6):  # of one machine
        source.generation = generation
        banks.get(source, 1, generation)
    banks.get(source, 2, 1)
    banks.evict(2)
    banks.evict(2)
    for machine_key in (3, 4, 1, 3, 4):
        banks.get(source, machine_key, 1)
    assert source.reads == [1] * 5 + [2, 3, 4]
    for machine_key in (5, 1):  # 1 was evicted for 5
        banks.get(source, machine_key, 1)
    assert source.reads == [1] * 5 + [2, 3, 4, 5, 1]


def test_a_bank_over_the_limit_is_cached_alone(source: RowsInMemory) -> None:
    banks = BankCache(exact_limit=100, max_bytes=1)
    for machine_key in (1, 1, 2, 2, 1):
        banks.get(source, machine_key, 1)
    assert source.reads == [1, 2, 1]


def test_an_empty_bank_is_refused_and_not_cached(banks: BankCache, source: RowsInMemory) -> None:
    source.clips = 0
    with pytest.raises(OffkeyError) as refused:
        banks.get(source, 1, 0)
    assert refused.value.kind is ErrorKind.EMPTY_BANK
    source.clips = 6
    assert banks.get(source, 1, 1).generation == 1
