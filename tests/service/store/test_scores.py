"""Recent scores: written in batches, limited in number, deleted with their machine."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.store import Store
from service.store.score_buffer import ScoreBuffer
from service.store.scores import RECENT_SCORES, RecentScore, RecentScores

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def put(store: Store, machine_id: str = "fan-1") -> int:
    """Create a machine and return its key."""
    with store.begin() as tx:
        return tx.put_machine(machine_id, "")[0].machine_key


def score(machine_key: int, value: float, generation: int = 1, domain: Domain = Domain.SOURCE) -> RecentScore:
    return RecentScore(machine_key, NOON, generation, "nearest", domain, value)


def stored(store: Store, key: int, generation: int = 1, backend: str = "nearest") -> list[float]:
    return [one.anomaly_score for one in store.scores.recent_scores(key, generation, backend)]


def test_scores_come_back_as_they_were(store: Store) -> None:
    key = put(store)
    written = [score(key, 0.1, domain=Domain.TARGET), score(key, -2.5)]
    store.scores.add_scores(written)
    assert store.scores.recent_scores(key, 1, "nearest") == written


def test_the_newest_of_each_machine_are_stored(store: Store) -> None:
    keys = [put(store, name) for name in ("fan-1", "fan-2")]
    for batch in range(3):
        numbers = range(batch * 250, batch * 250 + 250)
        store.scores.add_scores([score(keys[0], float(number)) for number in numbers])
    store.scores.add_scores([score(keys[1], 1.0)])
    assert stored(store, keys[0]) == [float(number) for number in range(750 - RECENT_SCORES, 750)]
    assert stored(store, keys[1]) == [1.0]


def test_scores_of_another_bank_or_backend_are_not_mixed_in(store: Store) -> None:
    key = put(store)
    store.scores.add_scores([score(key, 1.0, generation=1), score(key, 2.0, generation=2)])
    assert (stored(store, key, 1), stored(store, key, 2), stored(store, key, 2, "fusion")) == ([1.0], [2.0], [])


def test_scores_are_deleted_with_their_machine(store: Store) -> None:
    key = put(store)
    store.scores.add_scores([score(key, 1.0)])
    with store.begin("fan-1") as tx:
        tx.delete_machine()
    assert stored(store, key) == []
    store.scores.add_scores([score(key, 1.0)])  # buffered while the machine was deleted
    assert (stored(store, key), store.scores.machine_id(key)) == ([], None)


def test_buffered_scores_are_written_at_the_end(store: Store) -> None:
    key = put(store)
    buffer = ScoreBuffer(store.scores)
    buffer.start(lambda machines: None)
    buffer.add(score(key, 1.0))
    assert stored(store, key) == []
    buffer.close()
    assert stored(store, key) == [1.0]


def test_the_thread_writes_and_reports_the_machines(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.score_buffer.WRITE_SECONDS", 0.01)
    key = put(store)
    reported, done = [], threading.Event()

    def written(machines: set[int]) -> None:
        reported.append(machines)
        if machines:
            done.set()
            raise RuntimeError("the next scores are written all the same")

    buffer = ScoreBuffer(store.scores)
    buffer.start(written)
    for value in (1.0, 2.0):
        done.clear()
        buffer.add(score(key, value))
        assert done.wait(10)
    buffer.close()
    assert stored(store, key) == [1.0, 2.0]
    assert [machines for machines in reported if machines] == [{key}, {key}]


def test_nothing_is_lost_while_the_store_cannot_be_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    key = put(store)
    buffer = ScoreBuffer(store.scores)
    buffer.add(score(key, 1.0))

    def full(scores: object) -> None:
        buffer.add(score(key, 2.0))  # scored meanwhile
        raise OffkeyError(ErrorKind.STORAGE_FULL, "The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(RecentScores, "add_scores", lambda _, scores: full(scores))
        with pytest.raises(OffkeyError, match="full"):
            buffer.write()
    buffer.write()
    assert stored(store, key) == [1.0, 2.0]


def test_the_buffer_is_bounded_while_the_store_is_unusable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.score_buffer._MAX_SCORES", 3)
    key = put(store)
    buffer = ScoreBuffer(store.scores)
    for value in range(5):
        buffer.add(score(key, float(value)))
    buffer.write()
    assert stored(store, key) == [2.0, 3.0, 4.0]


def test_a_damaged_score_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="scores nan"):
        score(1, float("nan"))
