"""What another process commits is seen by the next read: no cache of the store is the source of truth."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection

from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token
from offkey.vocabulary import Domain, Scope
from service.store import Action, BankLimits, NewClip, Store
from service.store.database.base import Database, VersionedCache
from service.store.database.sqlite import SqliteDatabase
from service.store.keys import Keys

Execute = Callable[..., None]
OpenStore = Callable[[], Store]
REVOKE = "UPDATE api_key SET revoked_at = '2026-01-01 00:00:00.000000' WHERE revoked_at IS NULL"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def create_key(store: Store) -> Token:
    with store.begin() as tx:
        return tx.create_key("ops", [Scope.ADMIN], machine_prefix=None, rate_per_minute=None)[1]


def enroll(store: Store, machine_id: str, *names: str) -> list[int]:
    """Create a machine and enroll clips with random embeddings. Returns their ids."""
    rng = np.random.default_rng(len(names))
    with store.begin() as tx:
        tx.put_machine(machine_id, "")
    new = [
        NewClip(
            sha256=name,
            name=name,
            recording=None,
            domain=Domain.SOURCE,
            seconds=10.0,
            sample_rate=16_000,
            channels=1,
            vectors=rng.standard_normal((1, 4)).astype(np.float32),
            starts=np.zeros(1),
        )
        for name in names
    ]
    with store.begin(machine_id) as tx:
        return [one.clip_id for one in tx.add_clips(new, "a-space", BankLimits(100, 100), Action.ENROLL)]


def clips_of(store: Store, machine_id: str) -> set[int]:
    """Return the ids of the clips in a machine's bank."""
    return set(store.bank_rows(store.machine(machine_id).machine_key).clips.tolist())


# -- keys


def test_a_key_that_another_process_revokes_is_refused_at_the_next_request(
    store: Store, execute_elsewhere: Execute
) -> None:
    token = create_key(store)
    assert store.keys.find(token) is not None
    assert store.keys.cached(token) is not None
    execute_elsewhere(REVOKE)
    assert store.keys.cached(token) is None
    assert store.keys.find(token) is None
    assert store.keys.cached(token) is None


def test_the_first_key_that_another_process_creates_ends_open_access(store: Store, other_store: OpenStore) -> None:
    other = other_store()
    assert not store.keys.exist()
    assert store.keys.none_exists
    token = create_key(other)
    assert not store.keys.none_exists
    assert store.keys.exist()
    assert store.keys.find(token) is not None


def test_a_commit_of_this_process_ends_what_was_cached_too(store: Store) -> None:
    token = create_key(store)
    assert store.keys.find(token) is not None
    key = store.keys.cached(token)
    assert key is not None
    with store.begin() as tx:
        tx.revoke_key(key.key_id)
    assert store.keys.cached(token) is None
    assert store.keys.find(token) is None


class InterruptedDatabase(Database):
    """A real database. Another process commits between two steps of a read that fills a cache.

    Args:
        database: the database.
        steps: number of steps after which the commit happens. A step is to read the version, or the rows.
        commit: the commit.
    """

    def __init__(self, database: SqliteDatabase, steps: int, commit: Callable[[], None]) -> None:
        self._database = database
        self._steps = steps
        self._commit = commit

    def _step(self) -> None:
        self._steps -= 1
        if self._steps == 0:
            self._commit()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._database.read() as connection:
            yield connection
        self._step()

    def version(self) -> object:
        version = self._database.version()
        self._step()
        return version

    def write(self) -> AbstractContextManager[Connection]:
        return self._database.write()

    def ping(self) -> None:
        self._database.ping()

    def close(self) -> None:
        self._database.close()


@pytest.mark.parametrize("steps", [1, 2])
def test_a_key_revoked_while_it_is_read_is_refused_at_the_next_request(
    store: Store, execute_elsewhere: Execute, steps: int
) -> None:
    """Between version and rows, and between rows and the entry in the cache. Fails if the version is read last."""
    token = create_key(store)
    database = InterruptedDatabase(store._database, steps, lambda: execute_elsewhere(REVOKE))
    keys = Keys(database, VersionedCache(database))
    keys.find(token)  # either answer is right: the revocation was committed during the read
    assert database._steps <= 0, "nothing was committed during the read"
    assert keys.cached(token) is None
    assert keys.find(token) is None


@pytest.mark.parametrize("steps", [1, 2])
def test_open_access_ends_though_the_first_key_is_created_while_keys_are_counted(
    store: Store, other_store: OpenStore, steps: int
) -> None:
    other = other_store()
    database = InterruptedDatabase(store._database, steps, lambda: create_key(other))
    keys = Keys(database, VersionedCache(database))
    keys.exist()
    assert database._steps <= 0, "nothing was committed during the read"
    assert not keys.none_exists
    assert keys.exist()


# -- machines and banks


def test_a_machine_that_another_process_changes_is_read_again(store: Store, execute_elsewhere: Execute) -> None:
    with store.begin() as tx:
        record, _ = tx.put_machine("fan-1", "")
    assert store.machine("fan-1") == store.machine("fan-1") == record
    execute_elsewhere("UPDATE machine SET generation = 7, guard_generation = 6, threshold_rule = 'gamma'")
    found = store.machine("fan-1")
    assert (found.generation, found.guard_generation, found.threshold_rule) == (7, 6, "gamma")
    execute_elsewhere("DELETE FROM machine")
    with pytest.raises(OffkeyError) as error:
        store.machine("fan-1")
    assert error.value.kind is ErrorKind.UNKNOWN_MACHINE


def test_a_machine_that_another_process_creates_again_is_another_machine(store: Store, other_store: OpenStore) -> None:
    enroll(store, "fan-1", "a1")
    seen, other = store.machine("fan-1"), other_store()
    with other.begin("fan-1") as tx:
        tx.delete_machine()
    enroll(other, "fan-1", "b2")
    assert store.machine("fan-1").machine_key != seen.machine_key
    with pytest.raises(OffkeyError) as error, store.begin(seen):
        pytest.fail("the machine of the earlier record is gone")
    assert error.value.kind is ErrorKind.UNKNOWN_MACHINE


def test_clip_counts_follow_what_another_process_enrolls_and_deletes(store: Store, other_store: OpenStore) -> None:
    """A stale count would report an intact bank as damaged."""
    first, second = enroll(store, "fan-1", "a1", "b2"), enroll(store, "fan-2", "c3", "d4")
    assert (clips_of(store, "fan-1"), clips_of(store, "fan-2")) == (set(first), set(second))
    other = other_store()
    first += enroll(other, "fan-1", "e5", "f6", "a7")
    with other.begin("fan-2") as tx:
        tx.delete_clip(second[0])
    third = enroll(other, "fan-3", "b8")
    for reader in (store, other):
        assert clips_of(reader, "fan-1") == set(first)
        assert clips_of(reader, "fan-2") == {second[1]}
        assert clips_of(reader, "fan-3") == set(third)


def test_a_clip_lost_by_another_process_is_noticed(store: Store, execute_elsewhere: Execute) -> None:
    """Not a change that Offkey makes: every change of a bank raises its generation."""
    clips = enroll(store, "fan-1", "a1", "b2", "c3")
    assert clips_of(store, "fan-1") == set(clips)
    execute_elsewhere(f"DELETE FROM clip WHERE clip_id = {clips[1]}")
    with pytest.raises(OffkeyError, match="3 clips are stored, 2 are found") as error:
        clips_of(store, "fan-1")
    assert error.value.kind is ErrorKind.MACHINE_DAMAGED
