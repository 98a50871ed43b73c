"""Clips that a damaged index hides are noticed. All machines are counted in one pass, not one pass for each bank."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from offkey.errors import ErrorKind, OffkeyError
from service.store import Store, clip_counts


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    times, count = list[int](), clip_counts._count
    monkeypatch.setattr(clip_counts, "_count", lambda connection: times.append(1) or count(connection))
    return times


def test_all_machines_are_counted_at_once_and_again_after_a_change(
    tmp_path: Path, fill: Callable[..., None], counted: list[int]
) -> None:
    fill(tmp_path, machines=4, clips=3)
    store = Store.open(tmp_path)
    try:
        keys = [store.machine(f"m{number}").machine_key for number in range(4)]
        for key in (*keys, *keys):
            assert len(set(store.bank_rows(key).clips.tolist())) == 3
        assert len(counted) == 1
        record = store.machine("m1")
        with store.begin("m1") as tx:
            tx.delete_clip(int(store.bank_rows(record.machine_key).clips[0]))
        for key in (*keys, *keys):
            assert len(set(store.bank_rows(key).clips.tolist())) == (2 if key == record.machine_key else 3)
        assert len(counted) == 2
    finally:
        store.close()


def test_a_clip_that_the_index_hides_is_noticed(
    tmp_path: Path, fill: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, machines=2, clips=3)
    count = clip_counts._count
    store = Store.open(tmp_path)
    try:
        key = store.machine("m0").machine_key

        def one_more(connection: Connection) -> dict[int, tuple[int, int]]:
            found = count(connection)
            return {**found, key: (found[key][0], found[key][1] + 1)}

        monkeypatch.setattr(clip_counts, "_count", one_more)
        with pytest.raises(OffkeyError, match="m0") as refused:
            store.bank_rows(key)
        assert refused.value.kind is ErrorKind.MACHINE_DAMAGED
        assert len(store.bank_rows(store.machine("m1").machine_key).vectors)
    finally:
        store.close()
