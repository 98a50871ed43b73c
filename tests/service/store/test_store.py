"""The store: durable, transactional, and honest about what changed."""

import dataclasses
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain, Rule
from service.domain.acoustics import measure
from service.store import Action, BankChangedError, BankLimits, Enrolled, MachineRecord, NewClip, Store
from service.store.database.sqlite import DATABASE_FILE, MIGRATIONS, open_engine
from service.store.schema import metadata
from service.store.snapshot.check import check_database

SPACE = "test-space"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path)
    put(store)
    yield store
    store.close()


def new_clip(sha256: str, domain: Domain = Domain.SOURCE, windows: int = 2) -> NewClip:
    rng = np.random.default_rng(int(sha256, 16))
    vectors = rng.standard_normal((windows, 4)).astype(np.float32)
    return NewClip(sha256, f"{sha256}.wav", None, domain, 10.0 * windows, 16_000, 1, vectors, 10.0 * np.arange(windows))


def add(
    store: Store, new: Sequence[NewClip], *, space: str = SPACE, clips: int = 10, windows: int = 1_000
) -> tuple[list[Enrolled], MachineRecord]:
    """Enroll into fan-1. Returns the results and the machine afterwards."""
    with store.begin("fan-1") as tx:
        tx.require_space(space)
        return tx.add_clips(new, space, BankLimits(clips, windows), Action.ENROLL), tx.machine


def put(store: Store, machine_id: str = "fan-1", description: str = "") -> tuple[MachineRecord, bool]:
    """Create a machine or change its description."""
    with store.begin() as tx:
        return tx.put_machine(machine_id, description)


def delete_machine(store: Store, machine_id: str = "fan-1") -> MachineRecord:
    with store.begin(machine_id) as tx:
        return tx.delete_machine()


def delete_clip(store: Store, clip_id: int, machine_id: str = "fan-1") -> MachineRecord:
    with store.begin(machine_id) as tx:
        return tx.delete_clip(clip_id)


@contextmanager
def refused(kind: ErrorKind) -> Iterator[pytest.ExceptionInfo[OffkeyError]]:
    with pytest.raises(OffkeyError) as error:
        yield error
    assert error.value.kind is kind


def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    with open_engine(tmp_path).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_commit_is_on_disk(tmp_path: Path) -> None:
    with open_engine(tmp_path).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_what_was_added_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    clips = [new_clip("a1"), new_clip("b2", Domain.TARGET, windows=1)]
    add(store, clips)
    store.close()

    reopened = Store.open(tmp_path)
    record = reopened.machine("fan-1")
    assert (record.source_clips, record.target_clips, record.generation) == (1, 1, 1)
    assert record.embedding_space_id == SPACE
    rows = reopened.bank_rows(record.machine_key)
    np.testing.assert_array_equal(rows.vectors, np.concatenate([clip.vectors for clip in clips]))
    assert rows.domains == (Domain.SOURCE, Domain.SOURCE, Domain.TARGET)
    assert rows.starts.tolist() == [0.0, 10.0, 0.0]
    assert [clip.windows for clip in reopened.clips("fan-1", after=0, limit=10)] == [2, 1]
    reopened.close()


def test_the_same_content_is_added_once(store: Store) -> None:
    first, record = add(store, [new_clip("a1")])
    again, after = add(store, [new_clip("a1")])
    assert again[0].duplicate
    assert again[0].clip_id == first[0].clip_id
    assert after.generation == record.generation
    assert after.clips == 1


def test_the_same_content_under_the_other_domain_is_a_conflict(store: Store) -> None:
    add(store, [new_clip("a1")])
    with refused(ErrorKind.DOMAIN_CONFLICT):
        add(store, [new_clip("b2"), new_clip("a1", Domain.TARGET)])
    assert store.machine("fan-1").clips == 1  # all or none


def test_a_bank_belongs_to_one_embedding_space_until_it_is_empty(store: Store) -> None:
    enrolled, _ = add(store, [new_clip("a1")])
    with pytest.raises(BankChangedError):
        add(store, [new_clip("b2")], space="another-space")
    assert delete_clip(store, enrolled[0].clip_id).embedding_space_id is None
    _, record = add(store, [new_clip("b2")], space="another-space")
    assert record.embedding_space_id == "another-space"


def test_a_full_bank_takes_nothing_of_the_request(store: Store) -> None:
    add(store, [new_clip("a1")], clips=2)
    with refused(ErrorKind.BANK_FULL):
        add(store, [new_clip("b2"), new_clip("c3")], clips=2)
    assert store.machine("fan-1").clips == 1


def test_every_change_of_the_bank_moves_the_generation(store: Store) -> None:
    enrolled, one = add(store, [new_clip("a1"), new_clip("b2")])
    two = delete_clip(store, enrolled[0].clip_id)
    three, created = put(store, description="moved")
    assert [record.generation for record in (one, two, three)] == [1, 2, 2]  # settings are no bank
    assert not created
    assert three.description == "moved"


def test_a_deleted_machine_takes_its_rows_along_and_its_key_is_not_used_again(store: Store, tmp_path: Path) -> None:
    add(store, [new_clip("a1")])
    key = delete_machine(store).machine_key
    with refused(ErrorKind.UNKNOWN_MACHINE):
        store.bank_rows(key)
    again, created = put(store)
    assert created
    assert again.machine_key > key
    assert again.clips == 0
    with sqlite3.connect(tmp_path / DATABASE_FILE) as raw:
        assert raw.execute("SELECT count(*) FROM embedding").fetchone() == (0,)
    raw.close()


def test_the_generation_of_a_machine_id_never_goes_back(store: Store) -> None:
    add(store, [new_clip("a1")])
    seen = [store.machine("fan-1").generation]
    for _ in range(3):
        delete_machine(store)
        seen.append(put(store)[0].generation)
        seen.append(add(store, [new_clip("a1")])[1].generation)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert put(store, "fan-2")[0].generation == 0


def test_clips_for_a_machine_that_was_made_again_meanwhile_are_refused(store: Store) -> None:
    seen = store.machine("fan-1")
    delete_machine(store)
    put(store)
    with refused(ErrorKind.UNKNOWN_MACHINE), store.begin(seen) as tx:
        tx.add_clips([new_clip("a1")], SPACE, BankLimits(10, 10), Action.ENROLL)
    assert store.machine("fan-1").clips == 0


def test_nothing_is_written_if_a_known_clip_has_gone_or_changed(store: Store) -> None:
    enrolled, _ = add(store, [new_clip("a1")])
    seen, known = store.enrolled("fan-1", ["a1", "b2"])

    def enroll_another() -> None:
        with store.begin(seen) as tx:
            tx.add_clips([new_clip("b2")], SPACE, BankLimits(10, 10), Action.ENROLL)
            tx.require_clips(known)  # afterwards: what was written is rolled back

    assert known == {"a1": Enrolled(enrolled[0].clip_id, Domain.SOURCE, None, duplicate=True, has_audio=False)}
    delete_clip(store, enrolled[0].clip_id)
    with pytest.raises(BankChangedError):
        enroll_another()
    add(store, [new_clip("a1", Domain.TARGET)])
    with pytest.raises(BankChangedError):
        enroll_another()
    assert store.machine("fan-1").clips == 1


def test_windows_are_counted_too(store: Store) -> None:
    add(store, [new_clip("a1", windows=3)], windows=5)
    with refused(ErrorKind.BANK_FULL) as error:
        add(store, [new_clip("b2", windows=3)], windows=5)
    assert error.value.values == {"windows": 6, "max_windows_per_machine": 5}
    _, record = add(store, [new_clip("a1", windows=3), new_clip("c3")], windows=5)
    assert record.clips == 2


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shutil.copytree(MIGRATIONS, tmp_path / "first")
    for later in (first / "versions").glob("*.py"):
        if not later.name.startswith("0001"):
            later.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("service.store.database.sqlite.MIGRATIONS", first)
        Store.open(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as raw:
        raw.execute("INSERT INTO machine VALUES (7, 'fan-1', '', NULL, 'a-space', 4, '2026-01-01 00:00:00.000000')")
        raw.execute(
            "INSERT INTO clip VALUES (3, 7, 'a1', 'a.wav', 'source', 10, 16000, 1, '2026-01-01 00:00:00.000000')"
        )
        raw.execute("INSERT INTO embedding VALUES (3, 0, 0, ?)", (np.ones(4, np.float32).tobytes(),))
    raw.close()
    store = Store.open(tmp_path)
    record = store.machine("fan-1")
    assert (record.generation, record.threshold_rule, record.decision_threshold) == (4, Rule.CONFORMAL, None)
    assert [one.recording for one in store.clips("fan-1", after=0, limit=9)] == [None]
    assert store.bank_rows(7).recordings.tolist() == [3]
    delete_machine(store)
    assert put(store)[0].generation == 5
    store.close()


def test_noise_that_was_kept_without_checksums_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shutil.copytree(MIGRATIONS, tmp_path / "before")
    for later in (before / "versions").glob("*.py"):
        if later.name >= "0009":
            later.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("service.store.database.sqlite.MIGRATIONS", before)
        Store.open(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as raw:
        raw.execute(
            "INSERT INTO machine (machine_key, machine_id, description, generation, created_at) "
            "VALUES (7, 'fan-1', '', 4, '2026-01-01 00:00:00.000000')"
        )
        raw.execute(
            "INSERT INTO noise VALUES (3, 7, 'a-space', 'a1', 'hall', 10, 1, ?, '2026-01-01 00:00:00.000000')",
            (np.ones(4, np.float32).tobytes(),),
        )
    raw.close()
    Store.open(tmp_path).close()
    assert check_database(tmp_path / DATABASE_FILE).damage == ()


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.machine("ghost"),
        lambda store: delete_machine(store, "ghost"),
        lambda store: store.clips("ghost", after=0, limit=1),
        lambda store: delete_clip(store, 1, "ghost"),
        lambda store: store.enrolled("ghost", ["a1"]),
    ],
)
def test_an_unknown_machine_is_named(store: Store, ask: object) -> None:
    with pytest.raises(OffkeyError, match="ghost") as error:
        ask(store)
    assert error.value.kind is ErrorKind.UNKNOWN_MACHINE


def test_an_unknown_clip_is_named(store: Store) -> None:
    with pytest.raises(OffkeyError, match="77"):
        delete_clip(store, 77)


def test_pages_follow_each_other(store: Store) -> None:
    for number in range(7):
        put(store, f"m{number}")
    first = store.machines(after="", limit=5)
    second = store.machines(after=first[-1].machine_id, limit=5)
    assert [record.machine_id for record in first + second] == ["fan-1", *(f"m{number}" for number in range(7))]


def test_concurrent_writers_lose_nothing(store: Store) -> None:
    def enroll(worker: int) -> None:
        for number in range(10):
            add(store, [new_clip(f"{worker}{number}")], clips=1_000)

    threads = [threading.Thread(target=enroll, args=(worker,)) for worker in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = store.machine("fan-1")
    assert record.clips == record.generation == 80


def test_a_full_disk_is_its_own_error_and_changes_nothing(store: Store) -> None:
    """SQLite's own page limit gives the very error of a full disk."""
    add(store, [new_clip("a1")])
    with store._database.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = NewClip("b2", "b2.wav", None, Domain.SOURCE, 10.0, 16_000, 1, np.ones((500, 512), np.float32), np.zeros(500))
    with refused(ErrorKind.STORAGE_FULL):
        add(store, [big])
    assert store.machine("fan-1").clips == 1


WRITES_AND_READS: list[Callable[[Store], object]] = [
    lambda store: put(store, "fan-2"),
    lambda store: store.machine("fan-1"),
    lambda store: store.machines(after="", limit=1),
]


@pytest.mark.parametrize("ask", WRITES_AND_READS)
def test_a_database_that_another_program_locks_is_busy_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Store], object]
) -> None:
    monkeypatch.setattr("service.store.database.sqlite._BUSY_MILLISECONDS", 50)
    store = Store.open(tmp_path)
    put(store)
    store.close()
    other = sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")  # keeps readers out too
    other.execute("BEGIN EXCLUSIVE")
    other.execute("DELETE FROM machine WHERE machine_key < 0")
    for _ in range(3):  # each time: the connection is given back
        with refused(ErrorKind.STORE_BUSY) as error:
            ask(store)
        assert error.value.values["retry_after"] == 1
    with refused(ErrorKind.STORE_BUSY):
        Store.open(tmp_path)
    other.close()
    assert ask(store)
    store.close()


def test_a_damaged_database_is_its_own_error(store: Store, tmp_path: Path) -> None:
    store.close()
    path = tmp_path / DATABASE_FILE
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 40_000)
    with refused(ErrorKind.STORE_UNUSABLE) as error:
        store.machine("fan-1")
    assert "is damaged" in error.value.detail
    store.close()
    path.write_bytes(b"this is no database, though it is long enough to be one" * 100)
    with refused(ErrorKind.STORE_UNUSABLE) as error:
        Store.open(tmp_path)
    assert "no database at all" in error.value.detail


def test_a_read_only_database_can_be_read(store: Store) -> None:
    with store._database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")  # gives the error of a read-only file, for root too
    assert store.machine("fan-1").clips == 0
    with refused(ErrorKind.STORE_UNUSABLE) as error:
        add(store, [new_clip("a1")])
    assert "read-only" in error.value.detail


@pytest.mark.parametrize("folder", ["da?ta", "da#ta", "da%ta", "da%20ta", "da ta&mode=memory", "d\u00e4ta"])
def test_the_store_is_in_the_folder_that_was_named(tmp_path: Path, folder: str) -> None:
    Store.open(tmp_path / folder).close()
    assert [path.name for path in tmp_path.iterdir()] == [folder]
    assert (tmp_path / folder / DATABASE_FILE).is_file()


def test_the_migrations_may_lie_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = shutil.copytree(MIGRATIONS, tmp_path / "100%" / "migrations")
    monkeypatch.setattr("service.store.database.sqlite.MIGRATIONS", installed)
    Store.open(tmp_path / "data").close()


def test_a_store_of_a_newer_version_is_refused(store: Store, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with refused(ErrorKind.STORE_UNUSABLE) as error:
        Store.open(tmp_path)
    assert "schema 9999" in error.value.detail
    assert "newer version" in error.value.detail


def test_spectrograms_come_back_with_their_windows_and_go_with_their_clip(store: Store) -> None:
    cells = [np.full((2 + number, 3), number + 0.5, np.float32) for number in range(2)]
    plain, with_spectrograms = new_clip("a1"), dataclasses.replace(new_clip("b2"), spectrograms=tuple(cells))
    (_, enrolled), record = add(store, [plain, with_spectrograms])
    rows = store.calibration_rows(record.machine_key, record.generation)
    assert sorted(rows.spectrograms) == [2, 3]  # windows of the second clip
    for row, expected in zip((2, 3), cells, strict=True):
        np.testing.assert_array_equal(rows.spectrograms[row], expected)
    delete_clip(store, enrolled.clip_id)
    with store._database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM spectrogram").scalar() == 0


def test_a_spectrogram_of_another_width_is_damage(store: Store) -> None:
    clips = [
        dataclasses.replace(new_clip(name, windows=1), spectrograms=(np.zeros((2, bands), np.float32),))
        for name, bands in (("a1", 3), ("b2", 4))
    ]
    _, record = add(store, clips)
    with refused(ErrorKind.MACHINE_DAMAGED):
        store.calibration_rows(record.machine_key, record.generation)


def test_the_rows_of_a_calibration_are_of_the_generation_of_the_bank(store: Store) -> None:
    acoustics = measure(np.ones(16_000, np.float32), 16_000, source_rate=16_000, channels=1, clipped=0.0)
    measured = dataclasses.replace(
        new_clip("b2"), acoustics=acoustics, spectrograms=tuple(np.full((2, 3), at, np.float32) for at in range(2))
    )
    (_, enrolled), record = add(store, [new_clip("a1"), measured])
    key = record.machine_key
    rows = store.bank_rows(key)
    found = store.calibration_rows(key, rows.generation)
    assert rows.generation == record.generation
    assert rows.measured == set(found.acoustics) == {enrolled.clip_id}
    assert rows.has_spectrogram == set(found.spectrograms) == {2, 3}
    assert found.acoustics[enrolled.clip_id].sample_rate == 16_000
    delete_clip(store, enrolled.clip_id)
    with pytest.raises(BankChangedError):
        store.calibration_rows(key, rows.generation)
    after = store.bank_rows(key)
    assert after.generation == record.generation + 1
    found = store.calibration_rows(key, after.generation)
    assert (len(after.vectors), len(found.spectrograms), len(found.acoustics)) == (2, 0, 0)
    assert (after.measured, after.has_spectrogram) == (set(), set())
    delete_machine(store)
    with refused(ErrorKind.UNKNOWN_MACHINE):
        store.calibration_rows(key, after.generation)


def test_damage_is_found_by_the_read_that_returns_it(store: Store) -> None:
    acoustics = measure(np.ones(16_000, np.float32), 16_000, source_rate=16_000, channels=1, clipped=0.0)
    cells = (np.zeros((2, 3), np.float32),) * 2
    _, record = add(
        store, [dataclasses.replace(new_clip(name), acoustics=acoustics, spectrograms=cells) for name in ("a1", "b2")]
    )
    key = record.machine_key
    with store._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE spectrogram SET cells = zeroblob(11) WHERE clip_id = 2")
    assert len(store.bank_rows(key).vectors) == 4
    with refused(ErrorKind.MACHINE_DAMAGED):
        store.calibration_rows(key, record.generation)
    with store._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE embedding SET vector = zeroblob(length(vector)) WHERE clip_id = 2")
    with refused(ErrorKind.MACHINE_DAMAGED):
        store.bank_rows(key)
