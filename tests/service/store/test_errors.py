"""Damaged rows are reported as damage, and faults in the code of a use case are not."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain, JobKind
from service.store import Action, BankLimits, Enrolled, NewClip, Store, Transaction
from service.store.database.sqlite import DATABASE_FILE
from service.store.noise import NewNoise

VECTORS = np.ones((1, 4), np.float32)
CLIP = NewClip("a1", "a.wav", None, Domain.SOURCE, 10.0, 16_000, 1, VECTORS, np.zeros(1))
NOISE = NewNoise("b2", "hall", 10.0, VECTORS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a row in each table that a unit of work reads."""
    opened = Store.open(tmp_path)
    with opened.begin() as tx:
        tx.put_machine("fan-1", "")
        tx.create_key("ops", [], machine_prefix=None, rate_per_minute=None)
    with opened.begin("fan-1") as tx:
        tx.add_clips([CLIP], "a-space", BankLimits(10, 10), Action.ENROLL)
        tx.add_noise("a-space", [NOISE])
        tx.add_job(JobKind.ENROLL, {})
    yield opened
    opened.close()


def begun(machine_id: str | None, work: Callable[[Transaction], object]) -> Callable[[Store], object]:
    """Return a function that does the work in a unit of work of a store."""

    def run(store: Store) -> object:
        with store.begin(machine_id) as tx:
            return work(tx)

    return run


@pytest.mark.parametrize("fault", [ValueError, TypeError, AttributeError])
def test_a_fault_of_a_use_case_is_not_damage_and_rolls_back(store: Store, fault: type[Exception]) -> None:
    def delete_and_fail(tx: Transaction) -> None:
        tx.delete_clip(1)
        raise fault("a fault")

    with pytest.raises(fault, match="a fault"):
        begun("fan-1", delete_and_fail)(store)
    assert store.machine("fan-1").clips == 1


KNOWN = {"a1": Enrolled(1, Domain.SOURCE, None, duplicate=True, has_audio=False)}
READS: dict[str, tuple[str, Callable[[Store], object]]] = {
    "machine": ("UPDATE machine SET threshold_rule = 'x'", begun("fan-1", lambda tx: tx.machine)),
    "machine, read alone": ("UPDATE machine SET created_at = 'x'", lambda store: store.machine("fan-1")),
    "clip": ("UPDATE clip SET domain = 'x'", begun("fan-1", lambda tx: tx.require_clips(KNOWN))),
    "noise": (
        "UPDATE noise SET enrolled_at = 'x'", begun("fan-1", lambda tx: tx.add_noise("a-space", [NOISE])),
    ),
    "next job": ("UPDATE job SET parameters = '{'", begun(None, lambda tx: tx.next_job())),
    "canceled job": ("UPDATE job SET kind = 'x'", begun(None, lambda tx: tx.cancel_job(1))),
    "key": (
        "UPDATE api_key SET key_id = '0', created_at = 'x'",
        begun(None, lambda tx: tx.revoke_key("0")),
    ),
    "clip of a bank that moves": (
        "UPDATE clip SET domain = 'x'", begun("fan-1", lambda tx: tx.replace_embeddings("b", {}, {}, LIMITS)),
    ),
}  # fmt: skip
LIMITS = BankLimits(10, 10)


@pytest.mark.parametrize("case", READS)
def test_a_damaged_row_is_damage_wherever_it_is_read(store: Store, tmp_path: Path, case: str) -> None:
    statement, read = READS[case]
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as raw, raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        assert raw.execute(statement).rowcount == 1
    with pytest.raises(OffkeyError, match="is damaged") as error:
        read(store)
    assert error.value.kind is ErrorKind.STORE_UNUSABLE


def test_the_rows_that_are_damaged_here_can_be_read_otherwise(store: Store) -> None:
    with store.begin("fan-1") as tx:
        tx.require_clips(KNOWN)
        assert tx.add_noise("a-space", [NOISE])[0][1]
    with store.begin() as tx:
        assert tx.next_job() is not None
        assert tx.cancel_job(1).job_id == 1
        (key,) = store.keys.page(after="", limit=10)
        tx.revoke_key(key.key_id)
