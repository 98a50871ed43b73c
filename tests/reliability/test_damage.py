"""A service with a damaged, deleted, read-only or full database reports it, and gives no wrong answer."""

import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain, JobKind, JobState, Rule, Scope
from service.bank import calibration_cache
from service.http.problems import PROBLEM_JSON, TYPE_PREFIX
from service.settings import Settings
from service.store import Action, BankChangedError, BankLimits, Enrolled, NewClip, Store, Transaction, machines
from service.store.database.sqlite import DATABASE_FILE
from service.store.jobs import JobOverError
from service.store.noise import NewNoise
from service.store.snapshot.check import check_database
from torture import scaled

MUTATIONS = scaled(10_000, 150)
SHARD = 150  # mutations in one test, so that tests can run side by side
MACHINES = ("fan-1", "fan-2", "fan-3")


def kind(answer: httpx2.Response) -> str:
    assert answer.headers["content-type"] == PROBLEM_JSON, answer.text
    assert len(answer.json()["detail"]) > 30
    return str(answer.json()["type"]).removeprefix(TYPE_PREFIX)


@pytest.fixture
def fans_api(api: TestClient, fan: Callable[..., bytes]) -> TestClient:
    """Three machines of four clips each."""
    for number, machine in enumerate(MACHINES):
        api.put(f"/machines/{machine}")
        files = [("clips", (f"{clip}.wav", fan(10 * number + clip, seconds=1.0))) for clip in range(4)]
        assert api.post("/enroll", params={"machine_id": machine}, files=files).status_code == 201
    return api


def restart(api: TestClient) -> None:
    """Close every connection and drop every bank, as if the service had just been started."""
    service = api.app.state.service
    database = service.store._database
    database.engine.dispose()
    database._watcher.close()
    database._watcher = sqlite3.connect(database._path, timeout=0, check_same_thread=False, isolation_level=None)
    service.store._cache._cached = (None, {})
    service.banks._banks.clear()


def mutate(whole: bytes, rng: random.Random) -> bytes:
    """Spoil a byte, a few, or a page."""
    spoiled, page = bytearray(whole), 4_096
    at = rng.randrange(len(whole))
    start = at - at % page
    match rng.randrange(6):
        case 0 | 1:
            spoiled[at] ^= 1 << rng.randrange(8)
        case 2:
            spoiled[at : at + 64] = rng.randbytes(len(spoiled[at : at + 64]))
        case 3:
            spoiled[start : start + page] = bytes(page)
        case 4:
            spoiled[start : start + page] = rng.randbytes(page)
        case _:
            other = rng.randrange(len(whole) // page) * page
            spoiled[start : start + page] = whole[other : other + page]
    return bytes(spoiled)


@pytest.mark.parametrize("shard", range(MUTATIONS // SHARD))
def test_a_damaged_database_gives_no_wrong_score(
    fans_api: TestClient,
    settings: Settings,
    fan: Callable[..., bytes],
    shard: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, clip = settings.data_dir / DATABASE_FILE, fan(99, seconds=1.0)
    if shard % 2:  # every calibration is cached, so its rows are not read
        monkeypatch.setattr(calibration_cache, "_MIN_FIT_SECONDS", 0.0)

    def score(machine: str) -> httpx2.Response:
        return fans_api.post("/score", params={"machine_id": machine}, content=clip)

    right = {machine: score(machine).json()["clips"][0]["anomaly_score"] for machine in MACHINES}
    assert len(set(right.values())) == 3
    restart(fans_api)
    whole = path.read_bytes()
    rng, answers, alone = random.Random(shard), Counter[str](), 0
    for number in range(SHARD):
        spoiled = mutate(whole, rng)
        path.write_bytes(spoiled)
        kinds = [""] * 3
        for place, machine in enumerate(MACHINES):
            answer = score(machine)
            if answer.status_code == 200:
                assert answer.json()["clips"][0]["anomaly_score"] == right[machine], f"shard {shard}, {number}"
            else:
                assert answer.status_code in (404, 409, 503), answer.text
                kinds[place] = kind(answer)
        for ask in ("/machines", "/machines/fan-1", "/machines/fan-1/clips", "/readyz"):
            answer = fans_api.get(ask)
            assert answer.status_code in (200, 404, 503), answer.text
        answers.update(kinds)
        alone += kinds.count("machine-damaged") == 1 and kinds.count("") == 2
        restart(fans_api)
    path.write_bytes(whole)
    assert [score(machine).status_code for machine in MACHINES] == [200] * 3
    assert answers["machine-damaged"] > 10
    assert alone > 5


def new_clip(name: str) -> NewClip:
    vectors = np.full((1, 64), 0.125, np.float32)
    return NewClip(name, name, None, Domain.SOURCE, 10.0, 16_000, 1, vectors, np.zeros(1))


# Each in a unit of work on a machine, or on none.
CHANGES: list[tuple[str | None, Callable[[Transaction], object]]] = [
    ("m0", lambda tx: tx.add_clips([new_clip("a1")], "a-space", BankLimits(100, 100), Action.ENROLL)),
    ("m0", lambda tx: tx.require_clips({f"{0:032x}{0:032x}": Enrolled(1, Domain.TARGET, None, True, False)})),
    ("m0", lambda tx: tx.add_noise("a-space", [NewNoise("b2", "hall", 10.0, new_clip("b2").vectors)])),
    ("m1", lambda tx: tx.set_threshold(Rule.GAMMA, false_alarm_rate=0.01, decision_threshold=None)),
    ("m1", lambda tx: tx.delete_clip(6)),
    ("m2", lambda tx: tx.delete_machine()),
    (None, lambda tx: tx.put_machine("m1", "moved")),
    (None, lambda tx: tx.add_job(JobKind.SNAPSHOT, {})),
    (None, lambda tx: tx.next_job()),
    (None, lambda tx: tx.finish_job(1, JobState.DONE)),
    (None, lambda tx: tx.create_key("ops", [Scope.ADMIN], machine_prefix=None, rate_per_minute=None)),
    (None, lambda tx: tx.revoke_key("0" * 12)),
]


@pytest.mark.parametrize("shard", range(MUTATIONS // SHARD))
def test_a_change_of_a_damaged_database_is_made_or_refused(
    tmp_path: Path, fill: Callable[..., None], shard: int
) -> None:
    """Damage that a unit of work reads is reported as damage, not as a fault of its code."""
    fill(tmp_path)
    store = Store.open(tmp_path)
    with store.begin("m0") as tx:
        tx.add_noise("a-space", [NewNoise("b2", "hall", 10.0, new_clip("b2").vectors)])
        tx.add_job(JobKind.SNAPSHOT, {})
    store.close()
    path, rng, kinds = tmp_path / DATABASE_FILE, random.Random(shard), Counter[str]()
    whole = path.read_bytes()
    mutations = SHARD // 3
    for _ in range(mutations):
        for log in tmp_path.glob(f"{DATABASE_FILE}-*"):
            log.unlink()
        path.write_bytes(mutate(whole, rng))
        try:
            store = Store.open(tmp_path)
        except OffkeyError as error:
            kinds[f"not opened: {error.kind}"] += 1
            continue
        for machine, change in CHANGES:
            try:
                with store.begin(machine) as tx:
                    change(tx)
                kinds["done"] += 1
            except OffkeyError as error:
                kinds[error.kind] += 1
            except (BankChangedError, JobOverError, IntegrityError) as error:  # a constraint refuses to spread damage
                kinds[type(error).__name__] += 1
        store.close()
    assert kinds[ErrorKind.STORE_UNUSABLE] > 10
    assert kinds["done"] > 5 * mutations


def test_a_name_that_became_bytes_is_damage_and_no_failure(
    fans_api: TestClient, fan: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10,000 mutations found an index page that gave the bytes of another page for the id: no update leads there.
    made = machines.machine_record
    monkeypatch.setattr(machines, "machine_record", lambda row: made({**row, "machine_id": b"RIFF\xff"}))
    restart(fans_api)
    answer = fans_api.post("/score", params={"machine_id": "fan-2"}, content=fan(9))
    assert (answer.status_code, kind(answer)) == (503, "store-unusable")


def test_one_damaged_machine_is_named_and_the_others_serve(
    fans_api: TestClient, settings: Settings, fan: Callable[..., bytes]
) -> None:
    store = fans_api.app.state.service.store
    with store._database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE embedding SET vector = zeroblob(length(vector)) WHERE clip_id = 6")
    restart(fans_api)
    scores = [fans_api.post("/score", params={"machine_id": name}, content=fan(9)) for name in MACHINES]
    assert [answer.status_code for answer in scores] == [200, 503, 200]
    problem = scores[1].json()
    assert kind(scores[1]) == "machine-damaged"
    assert problem["machine_id"] == "fan-2"
    assert "offkey restore" in problem["detail"]
    assert "Retry-After" not in scores[1].headers  # waiting does not help
    assert fans_api.get("/machines/fan-2").status_code == 503
    assert fans_api.get("/readyz").status_code == 200
    (damage,) = check_database(settings.data_dir / DATABASE_FILE).damage
    assert damage.machine_id == "fan-2"
    assert fans_api.delete("/machines/fan-2").status_code == 204
    assert fans_api.put("/machines/fan-2").status_code == 201
    for number in range(2):
        fans_api.post("/enroll", params={"machine_id": "fan-2"}, content=fan(number))
    assert fans_api.post("/score", params={"machine_id": "fan-2"}, content=fan(9)).status_code == 200


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "deleted with its log": lambda path: [one.unlink() for one in path.parent.glob(f"{path.name}*")],
    "without its log": lambda path: path.with_name(f"{path.name}-wal").unlink(),
    "replaced": lambda path: shutil.copy(path, path.with_name("other")) and path.with_name("other").replace(path),
    "moved with its folder": lambda path: path.parent.rename(path.parent.with_name("moved")),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_acknowledged_by_a_database_that_is_gone(
    fans_api: TestClient, settings: Settings, fan: Callable[..., bytes], loss: str
) -> None:
    LOSSES[loss](settings.data_dir / DATABASE_FILE)
    for _ in range(2):
        answers = [
            fans_api.put("/machines/new"),
            fans_api.post("/enroll", params={"machine_id": "fan-1"}, content=fan(50)),
            fans_api.post("/score", params={"machine_id": "fan-1"}, content=fan(50)),
            fans_api.get("/machines"),
            fans_api.delete("/machines/fan-1/clips/1"),
            fans_api.delete("/machines/fan-1"),
        ]
        assert [answer.status_code for answer in answers] == [503] * 6
        assert {kind(answer) for answer in answers} == {"store-unusable"}
        assert fans_api.get("/readyz").status_code == 503
        assert fans_api.get("/livez").status_code == 200


def test_a_commit_into_a_file_that_is_deleted_meanwhile_is_not_acknowledged(
    fans_api: TestClient, settings: Settings
) -> None:
    """Deleted after the first look: the commit succeeds, into nothing."""
    engine = fans_api.app.state.service.store._database.engine
    event.listen(engine, "commit", lambda _: (settings.data_dir / DATABASE_FILE).unlink(missing_ok=True))
    answer = fans_api.put("/machines/new")
    assert answer.status_code == 503
    assert kind(answer) == "store-unusable"


def test_a_store_that_became_read_only_still_scores(fans_api: TestClient, fan: Callable[..., bytes]) -> None:
    """SQLite's own switch gives the very error of a file system that was mounted again after a failure."""
    engine = fans_api.app.state.service.store._database.engine
    engine.dispose()
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
    assert fans_api.post("/score", params={"machine_id": "fan-1"}, content=fan(50)).status_code == 200
    for answer in (
        fans_api.put("/machines/new"),
        fans_api.post("/enroll", params={"machine_id": "fan-1"}, content=fan(50)),
        fans_api.delete("/machines/fan-1"),
    ):
        assert answer.status_code == 503
        assert kind(answer) == "store-unusable"
        assert "read-only" in answer.json()["detail"]


def refused_start(data_dir: Path) -> str:
    """Return what `offkey serve` prints about a folder that it cannot use."""
    found = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--data-dir", str(data_dir)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    return found.stderr


def test_a_service_does_not_start_on_a_volume_that_cannot_be_written(
    small_disk: Callable[[int], Path], fill: Callable[..., None]
) -> None:
    disk = small_disk(2**20)
    fill(disk / "data", machines=1)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert "Read-only file system" in refused_start(disk / "data")
    assert check_database(disk / "data" / DATABASE_FILE).machines == 1


def test_a_second_service_in_a_folder_is_refused(serve: Callable[..., str], tmp_path: Path) -> None:
    url = serve(tmp_path / "data")
    assert "Another Offkey process uses the data folder" in refused_start(tmp_path / "data")
    assert httpx2.get(f"{url}/readyz").status_code == 200


def clips_of(fan: Callable[..., bytes]) -> Iterator[bytes]:
    """A clip of its own each time."""
    base = fan(0, seconds=1.0)
    for number in range(100_000):
        yield base[:-4] + number.to_bytes(4, "little")


def test_a_full_disk_is_507_while_scoring_goes_on_and_ends_by_itself(
    serve: Callable[..., str], small_disk: Callable[[int], Path], fan: Callable[..., bytes]
) -> None:
    disk = small_disk(10 * 2**20)
    url = serve(disk / "data")
    clips, enrolled = clips_of(fan), []
    fan_1 = {"machine_id": "fan-1"}

    def enroll() -> int:
        answer = httpx2.post(f"{url}/enroll", params=fan_1, content=next(clips), timeout=30)
        if answer.status_code == 507:
            assert kind(answer) == "storage-full"
        else:
            assert answer.status_code == 201, answer.text
            enrolled.append(answer.json()["clips"][0]["clip_id"])
        return int(answer.status_code)

    def score() -> int:
        return int(httpx2.post(f"{url}/score", params=fan_1, content=fan(50, seconds=1.0), timeout=30).status_code)

    httpx2.put(f"{url}/machines/fan-1")
    assert [enroll() for _ in range(3)] == [201] * 3
    filler = disk / "filler"
    for _ in range(2):
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(4_096)) == 4_096 and shutil.disk_usage(disk).free:
                pass
        statuses = [enroll() for _ in range(10)]
        assert 507 in statuses
        assert statuses[-1] == 507
        assert [score() for _ in range(3)] == [200] * 3
        assert httpx2.put(f"{url}/machines/new", json={"description": "x" * 500}).status_code == 507
        assert httpx2.get(f"{url}/readyz").status_code == 200
        filler.unlink()
        assert [enroll() for _ in range(3)] == [201] * 3
        assert score() == 200
    listed = httpx2.get(f"{url}/machines/fan-1/clips", params={"limit": 1_000}).json()["clips"]
    assert [clip["clip_id"] for clip in listed] == enrolled
