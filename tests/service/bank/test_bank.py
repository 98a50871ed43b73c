"""Banks: as new as the store, built once, never half."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.bank import Bank, BankCache, BankRows, Known
from service.bank import bank as bank_module


def rows(generation: int, clips: int = 6) -> BankRows:
    rng = np.random.default_rng(generation)
    vectors = rng.standard_normal((clips, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(clips, dtype=np.int64)
    return BankRows(
        generation,
        "a-space",
        vectors,
        ids,
        ids,
        np.zeros(clips),
        (Domain.SOURCE,) * clips,
        {i: f"{i}.wav" for i in range(clips)},
    )


def test_a_bank_is_loaded_once_per_generation() -> None:
    banks, loads = BankCache(exact_limit=100, max_values=10**6), []

    for generation in (1, 1, 2, 1, 2):

        def load(_: Known, generation: int = generation) -> BankRows:
            loads.append(generation)
            return rows(generation)

        assert banks.get(7, generation, load).generation >= generation
    assert loads == [1, 2]


def test_many_readers_of_a_stale_bank_build_it_once() -> None:
    banks, loads = BankCache(exact_limit=100, max_values=10**6), []
    barrier = threading.Barrier(8)

    def load(_: Known) -> BankRows:
        loads.append(1)
        return rows(5)

    def read() -> int:
        barrier.wait()
        return banks.get(1, 5, load).generation

    with ThreadPoolExecutor(8) as pool:
        assert [f.result() for f in [pool.submit(read) for _ in range(8)]] == [5] * 8
    assert len(loads) == 1


def test_an_older_bank_does_where_it_is_enough_also_for_those_that_waited_for_it() -> None:
    banks, loads, building = BankCache(exact_limit=100, max_values=10**6), [], threading.Event()

    def load(_: Known) -> BankRows:
        loads.append(1)
        building.set()
        threading.Event().wait(0.1)  # the others come meanwhile
        return rows(5)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(banks.get, 1, 5, load)
        assert building.wait(10)
        others = [pool.submit(banks.get, 1, newer, load, lambda bank: bank.generation >= 5) for newer in (6, 7, 8)]
        assert [one.result(10).generation for one in (first, *others)] == [5] * 4
    assert len(loads) == 1
    assert banks.get(1, 6, lambda _: rows(6), lambda bank: bank.generation >= 6).generation == 6


def test_readers_beside_changes_always_see_one_whole_generation() -> None:
    """Each generation has other vectors: a score from a mixture of two would equal none of the true ones."""
    truth = {generation: Bank.build(rows(generation), exact_limit=100) for generation in range(1, 30)}
    query = rows(99).vectors[:1]
    expected = {generation: bank.score(query, 1)[0][0] for generation, bank in truth.items()}
    banks, newest = BankCache(exact_limit=100, max_values=10**6), [1]

    def read(_: int) -> bool:
        at_least = newest[0]
        bank = banks.get(1, at_least, lambda _: rows(newest[0]))
        return bank.generation >= at_least and bank.score(query, 1)[0][0] == expected[bank.generation]

    def write() -> None:
        for generation in range(1, 30):
            newest[0] = generation

    with ThreadPoolExecutor(8) as pool:
        writer = pool.submit(write)
        assert all(pool.map(read, range(2_000)))
        writer.result()


def test_a_forgotten_machine_is_loaded_anew() -> None:
    banks = BankCache(exact_limit=100, max_values=10**6)
    banks.get(1, 1, lambda _: rows(1))
    banks.forget(1)
    assert banks.get(1, 1, lambda _: rows(3)).generation == 3


def test_a_bank_that_is_forgotten_while_it_is_built_is_not_kept() -> None:
    banks, loads = BankCache(exact_limit=100, max_values=10**6), []

    def load(forget: bool) -> BankRows:
        loads.append(forget)
        if forget:
            banks.forget(1)  # another request deletes the machine
        return rows(1)

    assert banks.get(1, 1, lambda _: load(True)).generation == 1
    banks.get(1, 1, lambda _: load(False))
    assert loads == [True, False]


def test_the_least_recently_used_bank_leaves_first() -> None:
    banks, loads = BankCache(exact_limit=100, max_values=3 * 6 * 8, backend="nearest"), []  # three of six clips

    def get(machine_key: int) -> None:
        banks.get(machine_key, 1, lambda _: loads.append(machine_key) or rows(1))

    for machine_key in (1, 2, 3, 1, 4):  # 4 takes the place of 2
        get(machine_key)
    assert loads == [1, 2, 3, 4]
    for machine_key in (1, 3, 4, 2):
        get(machine_key)
    assert loads == [1, 2, 3, 4, 2]
    banks.get(5, 1, lambda _: rows(1, clips=2 * 6))  # as large as two: 3 and 4 leave, 2 stays
    for machine_key in (2, 3):
        get(machine_key)
    assert loads == [1, 2, 3, 4, 2, 3]


def test_what_left_or_was_replaced_takes_no_room() -> None:
    banks, loads = BankCache(exact_limit=100, max_values=3 * 6 * 8, backend="nearest"), []  # three of six clips

    def get(machine_key: int, generation: int = 1) -> None:
        banks.get(machine_key, generation, lambda _: loads.append(machine_key) or rows(generation))

    for generation in range(1, 6):  # of one machine
        get(1, generation)
    get(2)
    banks.forget(2)
    banks.forget(2)
    for machine_key in (3, 4):
        get(machine_key)
    assert loads == [1] * 5 + [2, 3, 4]
    for machine_key in (1, 3, 4):
        get(machine_key)
    assert loads == [1] * 5 + [2, 3, 4]
    get(5)
    get(1)  # left for it
    assert loads == [1] * 5 + [2, 3, 4, 5, 1]


def test_a_bank_over_the_limit_is_kept_alone() -> None:
    banks, loads = BankCache(exact_limit=100, max_values=1), []
    for machine_key in (1, 1, 2, 2, 1):
        banks.get(machine_key, 1, lambda _, key=machine_key: loads.append(key) or rows(1))
    assert loads == [1, 2, 1]


def test_the_threshold_needs_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = bank_module.build_index
    monkeypatch.setattr(bank_module, "build_index", lambda *a, **k: built.append(1) or build(*a, **k))
    bank = Bank.build(rows(1), exact_limit=3)
    assert bank.detector.self_scores[Domain.SOURCE].recordings == 6
    assert not built
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: bank.score(rows(2).vectors[:1], 1), range(8)))
    assert len(built) == 1


@pytest.mark.parametrize(
    ("domains", "coreset_windows", "copied"),
    [("SSSSSSSSTTTT", 0, False), ("TTTTSSSSSSSS", 0, False), ("SSSSSTTTTSSS", 0, True), ("SSSSSSSSTTTT", 5, True)],
)
def test_every_domain_has_its_vectors_and_no_more_stay_in_memory(
    domains: str, coreset_windows: int, copied: bool
) -> None:
    order = tuple(Domain.SOURCE if letter == "S" else Domain.TARGET for letter in domains)
    whole = replace(rows(1, clips=12), domains=order)
    bank = Bank.build(whole, exact_limit=100, backend="nearest", coreset_windows=coreset_windows)
    clips = [clip for clip in whole.clips.tolist() if bank.compares_with(clip)]
    assert len(clips) == (9 if coreset_windows else 12)
    for clip in clips:
        np.testing.assert_array_equal(bank.vectors_of(clip), whole.vectors[[clip]])
        assert bank._enrolled(clip)[0] is order[clip]
    for own in bank._domains.values():
        assert np.shares_memory(own.index.vectors(slice(None)), whole.vectors) != copied


def test_an_empty_bank_is_refused_and_not_kept() -> None:
    banks = BankCache(exact_limit=100, max_values=10**6)
    with pytest.raises(OffkeyError) as refused:
        banks.get(1, 0, lambda _: rows(0, clips=0))
    assert refused.value.kind is ErrorKind.EMPTY_BANK
    assert banks.get(1, 1, lambda _: rows(1)).generation == 1
