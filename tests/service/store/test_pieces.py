"""Slices and pieces in the store: what is written comes back, damage is found, and they go with their clip."""

import dataclasses
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.domain.enrolled import Piece, PieceKind
from service.store import Action, BankLimits, MachineRecord, NewClip, Store
from service.store.database.sqlite import DATABASE_FILE
from service.store.pieces import PieceRow, read_pieces, unpack_pieces
from service.store.snapshot.check import check_database

HALF = 1 / 1_024  # relative error of half precision, rounded up
SLICES = tuple(np.random.default_rng(at).standard_normal((3 + at, 6)).astype(np.float32) for at in range(2))
PIECES = (
    Piece(PieceKind.VARIANT, 10.0, np.array([0.6, 0.8, 0.0, 0.0], np.float32), SLICES[0]),
    Piece(PieceKind.CUT, 1.5, np.array([0.1, -0.7, 0.5, 0.5], np.float32), SLICES[1]),
    Piece(PieceKind.CUT, 2.0, np.array([0.0, 0.0, 1.0, 0.0], np.float32), None),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path)) as store:
        for machine_id in ("fan-1", "fan-2"):
            with store.begin() as tx:
                tx.put_machine(machine_id, "")
        yield store


def new_clip(sha256: str) -> NewClip:
    vectors = np.eye(2, 4, dtype=np.float32)
    return NewClip(sha256, f"{sha256}.wav", None, Domain.SOURCE, 20.0, 16_000, 1, vectors, np.array([0.0, 10.0]))


def with_pieces(sha256: str) -> NewClip:
    return dataclasses.replace(new_clip(sha256), slices=SLICES, pieces=PIECES)


def add(store: Store, *new: NewClip, machine_id: str = "fan-1") -> tuple[list[int], MachineRecord]:
    """Enroll clips. Returns their ids and the machine."""
    with store.begin(machine_id) as tx:
        found = tx.add_clips(new, "a-space", BankLimits(10, 100), Action.ENROLL)
        return [one.clip_id for one in found], tx.machine


def count(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw:
        (found,) = raw.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found)


def spoil(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw, raw:
        assert raw.execute(statement).rowcount


def test_slices_come_back_in_half_precision(store: Store) -> None:
    _, record = add(store, new_clip("a1"), with_pieces("b2"))
    found = store.calibration_rows(record.machine_key, record.generation).slices
    assert sorted(found) == [2, 3]  # windows of the second clip
    for row, expected in zip((2, 3), SLICES, strict=True):
        assert found[row].dtype == np.float32
        np.testing.assert_allclose(found[row], expected, rtol=HALF, atol=1e-6)
        np.testing.assert_array_equal(found[row], expected.astype(np.float16).astype(np.float32))
    assert store.bank_rows(record.machine_key).has_slices == {2, 3}


def test_pieces_come_back_in_half_precision_and_in_order(store: Store) -> None:
    (_, clip_id), record = add(store, new_clip("a1"), with_pieces("b2"))
    found = store.calibration_rows(record.machine_key, record.generation).pieces
    assert [one for one, _ in found] == [clip_id] * 3
    for (_, piece), expected in zip(found, PIECES, strict=True):
        assert (piece.kind, piece.seconds) == (expected.kind, expected.seconds)
        np.testing.assert_array_equal(piece.vector, expected.vector.astype(np.float16).astype(np.float32))
        assert piece.vector.dtype == np.float32
        if expected.slices is None:
            assert piece.slices is None
        else:
            np.testing.assert_array_equal(piece.slices, expected.slices.astype(np.float16).astype(np.float32))
    assert store.bank_rows(record.machine_key).pieces == {clip_id: 3}


def test_each_machine_has_its_own_pieces(store: Store) -> None:
    (first,), one = add(store, with_pieces("a1"))
    (second,), other = add(store, with_pieces("b2"), machine_id="fan-2")
    for record, clip_id in ((one, first), (other, second)):
        rows = store.calibration_rows(record.machine_key, record.generation)
        assert {number for number, _ in rows.pieces} == {clip_id}
        assert sorted(rows.slices) == [0, 1]


def test_the_deletion_of_a_clip_deletes_its_slices_and_pieces(store: Store, tmp_path: Path) -> None:
    (first, second), _ = add(store, with_pieces("a1"), with_pieces("b2"))
    assert (count(tmp_path, "slices"), count(tmp_path, "piece")) == (4, 6)
    with store.begin("fan-1") as tx:
        record = tx.delete_clip(first)
    assert (count(tmp_path, "slices"), count(tmp_path, "piece")) == (2, 3)
    rows = store.calibration_rows(record.machine_key, record.generation)
    assert {number for number, _ in rows.pieces} == {second}
    with store.begin("fan-1") as tx:
        tx.delete_machine()
    assert (count(tmp_path, "slices"), count(tmp_path, "piece")) == (0, 0)


DAMAGES = {
    "UPDATE slices SET cells = zeroblob(length(cells)) WHERE clip_id = 2": "the slices of window 0 of clip 2",
    'UPDATE slices SET bands = 3 WHERE clip_id = 2 AND "window" = 1': "the slices of window 1 of clip 2",
    "UPDATE slices SET checksum = checksum + 1 WHERE clip_id = 2": "the slices of window 0 of clip 2",
    "UPDATE piece SET vector = zeroblob(length(vector)) WHERE clip_id = 2": "piece 0 of clip 2",
    "UPDATE piece SET cells = zeroblob(length(cells)) WHERE clip_id = 2 AND number = 1": "piece 1 of clip 2",
    "UPDATE piece SET kind = 'cut' WHERE clip_id = 2 AND number = 0": "piece 0 of clip 2",
    "UPDATE piece SET seconds = 2.5 WHERE clip_id = 2 AND number = 2": "piece 2 of clip 2",
    "UPDATE piece SET bands = 0 WHERE clip_id = 2 AND number = 0": "piece 0 of clip 2",
    "UPDATE piece SET checksum = 0 WHERE clip_id = 2 AND number = 2": "piece 2 of clip 2",
}


@pytest.mark.parametrize("statement", DAMAGES)
def test_damage_isolates_the_machine_and_is_reported(store: Store, tmp_path: Path, statement: str) -> None:
    _, healthy = add(store, with_pieces("a1"))
    _, damaged = add(store, with_pieces("b2"), machine_id="fan-2")
    assert check_database(tmp_path / DATABASE_FILE).damage == ()
    spoil(tmp_path, statement)
    with pytest.raises(OffkeyError) as error:
        store.calibration_rows(damaged.machine_key, damaged.generation)
    assert error.value.kind is ErrorKind.MACHINE_DAMAGED
    assert len(store.calibration_rows(healthy.machine_key, healthy.generation).pieces) == 3  # not its fault
    (damage,) = check_database(tmp_path / DATABASE_FILE).damage
    assert damage.machine_id == "fan-2"
    assert damage.what.startswith(DAMAGES[statement])
    assert damage.what.endswith("does not fit its checksum")


def test_the_command_that_verifies_a_store_reports_a_damaged_piece(
    store: Store, tmp_path: Path, offkey: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    add(store, with_pieces("a1"))
    store.close()
    assert offkey("verify", tmp_path).returncode == 0
    spoil(tmp_path, "UPDATE piece SET vector = zeroblob(length(vector)) WHERE number = 0")
    found = offkey("verify", tmp_path)
    assert found.returncode != 0
    assert "machine fan-1: piece 0 of clip 1" in found.stdout + found.stderr


def test_every_flipped_byte_of_a_piece_is_noticed(store: Store) -> None:
    add(store, with_pieces("a1"))
    with store._database.engine.connect() as connection:
        key = store.machine("fan-1").machine_key
        assert len(read_pieces(connection, key)) == 3
        row = PieceRow(*connection.exec_driver_sql(
            "SELECT clip_id, number, kind, seconds, vector, bands, cells, checksum FROM piece WHERE number = 0"
        ).one())  # fmt: skip
    assert len(unpack_pieces([row])) == 1
    for name in ("vector", "cells"):
        whole = getattr(row, name)
        for at in range(len(whole)):
            changed = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
            with pytest.raises(ValueError, match="piece 0 of clip 1 does not fit its checksum"):
                unpack_pieces([row._replace(**{name: changed})])
