"""Scores of late: written in batches, kept to a number, gone with their machine."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.store import Store
from service.store.score_buffer import ScoreBuffer
from service.store.scores import RECENT_SCORES, RecentScore, Shift

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def score(machine_key: int, value: float, generation: int = 1, domain: Domain = Domain.SOURCE) -> RecentScore:
    return RecentScore(machine_key, NOON, generation, "nearest", domain, value)


def kept(store: Store, key: int, generation: int = 1, backend: str = "nearest") -> list[float]:
    return [one.anomaly_score for one in store.scores.recent_scores(key, generation, backend)]


def test_scores_come_back_as_they_were(store: Store) -> None:
    record, _ = store.put_machine("fan-1", description="")
    written = [score(record.machine_key, 0.1, domain=Domain.TARGET), score(record.machine_key, -2.5)]
    store.scores.add_scores(written)
    assert store.scores.recent_scores(record.machine_key, 1, "nearest") == written


def test_the_newest_of_each_machine_are_kept(store: Store) -> None:
    keys = [store.put_machine(name, description="")[0].machine_key for name in ("fan-1", "fan-2")]
    for batch in range(3):
        numbers = range(batch * 250, batch * 250 + 250)
        store.scores.add_scores([score(keys[0], float(number)) for number in numbers])
    store.scores.add_scores([score(keys[1], 1.0)])
    assert kept(store, keys[0]) == [float(number) for number in range(750 - RECENT_SCORES, 750)]
    assert kept(store, keys[1]) == [1.0]


def test_scores_of_another_bank_or_backend_are_not_mixed_in(store: Store) -> None:
    key = store.put_machine("fan-1", description="")[0].machine_key
    store.scores.add_scores([score(key, 1.0, generation=1), score(key, 2.0, generation=2)])
    assert (kept(store, key, 1), kept(store, key, 2), kept(store, key, 2, "fusion")) == ([1.0], [2.0], [])


def test_a_deleted_machine_takes_its_scores_along(store: Store) -> None:
    key = store.put_machine("fan-1", description="")[0].machine_key
    store.scores.add_scores([score(key, 1.0)])
    store.delete_machine("fan-1")
    assert kept(store, key) == []
    store.scores.add_scores([score(key, 1.0)])  # was on the way
    assert (kept(store, key), store.scores.machine_id(key)) == ([], None)


def test_what_is_pending_is_written_at_the_end(store: Store) -> None:
    key = store.put_machine("fan-1", description="")[0].machine_key
    pending = ScoreBuffer(store.shift)
    pending.start(lambda machines: None)
    pending.add(score(key, 1.0))
    assert kept(store, key) == []
    pending.close()
    assert kept(store, key) == [1.0]


def test_the_thread_writes_and_tells_whose(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.score_buffer.WRITE_SECONDS", 0.01)
    key = store.put_machine("fan-1", description="")[0].machine_key
    told, done = [], threading.Event()

    def written(machines: set[int]) -> None:
        told.append(machines)
        if machines:
            done.set()
            raise RuntimeError("the next scores are written all the same")

    pending = ScoreBuffer(store.shift)
    pending.start(written)
    for value in (1.0, 2.0):
        done.clear()
        pending.add(score(key, value))
        assert done.wait(10)
    pending.close()
    assert kept(store, key) == [1.0, 2.0]
    assert [machines for machines in told if machines] == [{key}, {key}]


def test_nothing_is_lost_while_the_store_cannot_be_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store.put_machine("fan-1", description="")[0].machine_key
    pending = ScoreBuffer(store.shift)
    pending.add(score(key, 1.0))

    def full(scores: object) -> None:
        pending.add(score(key, 2.0))  # scored meanwhile
        raise OffkeyError(ErrorKind.STORAGE_FULL, "The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(Shift, "add_scores", lambda _, scores: full(scores))
        with pytest.raises(OffkeyError, match="full"):
            pending.write()
    pending.write()
    assert kept(store, key) == [1.0, 2.0]


def test_a_store_that_is_never_back_costs_no_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.score_buffer._MOST", 3)
    key = store.put_machine("fan-1", description="")[0].machine_key
    pending = ScoreBuffer(store.shift)
    for value in range(5):
        pending.add(score(key, float(value)))
    pending.write()
    assert kept(store, key) == [2.0, 3.0, 4.0]


def test_a_damaged_score_is_told(store: Store) -> None:
    with pytest.raises(ValueError, match="scores nan"):
        score(1, float("nan"))
