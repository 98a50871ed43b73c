"""Both clients against a service in a process of its own."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launch import as_process
from offkey import Domain, JobState, ProblemError, Scope, ThresholdSettings

Connect = Callable[..., Any]
Fan = Callable[..., bytes]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with as_process(tmp_path_factory.mktemp("store") / "data") as running:
        yield running.url


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> str:
    """A machine id for this test only."""
    return f"m-{abs(hash(request.node.name)):x}"


def test_a_machine_from_its_creation_to_its_deletion(
    connect: Connect, url: str, machine: str, fan: Fan, tmp_path: Path
) -> None:
    client = connect(url)
    assert client.alive()
    assert client.ready()
    assert client.put_machine(machine, description="Hall 2").threshold is None
    chosen = client.put_threshold(machine, ThresholdSettings(false_alarm_rate=0.2))
    assert chosen.threshold_settings.false_alarm_rate == 0.2
    assert client.reset_threshold(machine).threshold_settings.false_alarm_rate == 0.05

    file = tmp_path / "a.wav"
    file.write_bytes(fan(0))
    enrolled = client.enroll(machine, [file, fan(1), ("c.wav", fan(2)), io.BytesIO(fan(3))], domain=Domain.TARGET)
    assert enrolled.bank.target == 4
    names = ["a.wav", "clip-1", "c.wav", "clip-3"]
    assert [clip.name for clip in client.clips(machine)] == names
    assert client.enroll(machine, str(file), domain=Domain.TARGET).clips[0].status == "duplicate"
    assert client.delete_clip(machine, enrolled.clips[0].clip_id).clips.target == 3
    assert client.threshold(machine).rule == "conformal"

    assert client.score(machine, file, neighbors=2).clips[0].name == "a.wav"
    scored = client.score(machine, [file, file], localize=True)
    assert scored.clips[1].windows[0].localization is not None
    assert client.score(machine, file, localize=False).clips[0].windows[0].localization is None
    assert client.feedback(machine, ("false alarm.wav", fan(4))).clips[0].status == "enrolled"
    assert client.drift(machine).machine_id == machine

    assert client.add_noise(machine, ("hall.wav", fan(9))).added == 1
    (noise,) = client.noise(machine)
    client.delete_noise(machine, noise.noise_id)
    assert not client.noise(machine)

    assert machine in [each.machine_id for each in client.machines()]
    client.delete_machine(machine)
    with pytest.raises(ProblemError, match=machine) as refused:
        client.machine(machine)
    assert refused.value.kind == "unknown-machine"
    assert refused.value.problem.status == 404


def test_an_archive_becomes_a_job_with_entries(
    connect: Connect, url: str, machine: str, fan: Fan, tmp_path: Path
) -> None:
    client = connect(url)
    client.put_machine(machine)
    file = tmp_path / "clips.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(2):
            archive.writestr(f"{number}.wav", fan(number))
        archive.writestr("notes.wav", "no sound")
    job = client.wait(client.enroll_archive(machine, file, idempotency_key=machine), timeout=60)
    assert job.state is JobState.DONE
    assert [entry.status for entry in client.job_entries(job.job_id)] == ["enrolled", "enrolled", "refused"]
    assert client.enroll_archive(machine, file, idempotency_key=machine).job_id == job.job_id
    assert job.job_id in [each.job_id for each in client.jobs()]
    with pytest.raises(ProblemError) as over:
        client.cancel_job(job.job_id)
    assert over.value.kind == "job-over"


def test_a_snapshot_is_made_downloaded_and_deleted(connect: Connect, url: str, tmp_path: Path) -> None:
    client = connect(url)
    name = client.wait(client.start_snapshot(), timeout=60).result
    assert name in [snapshot.name for snapshot in client.snapshots()]
    for target in (tmp_path, tmp_path / "backup.tar"):
        file = client.download_snapshot(name, target)
        assert file == (tmp_path / name if target == tmp_path else target)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with tarfile.open(file) as tar:
            assert tar.getmembers()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "backup.tar"])
    client.delete_snapshot(name)
    with pytest.raises(ProblemError) as gone:
        client.download_snapshot(name, tmp_path / "gone.tar")
    assert gone.value.kind == "unknown-snapshot"
    assert not (tmp_path / "gone.tar").exists()


def test_what_operators_call(connect: Connect, url: str) -> None:
    client = connect(url)
    info = client.info()
    assert [model.bundle for model in client.models() if model.current] == [info.bundle]
    assert client.wait(client.reembed(), timeout=60).state is JobState.DONE
    assert "# TYPE offkey_" in client.metrics()


def test_keys_and_the_audit_log(
    connect: Connect, serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(tmp_path / "data")
    key = connect(url).create_key("ops", [Scope.ADMIN])
    with pytest.raises(ProblemError) as refused:
        connect(url).info()
    assert refused.value.kind == "unauthenticated"
    monkeypatch.setenv("OFFKEY_KEY", key.key)
    client = connect(url)
    assert [each.name for each in client.api_keys()] == ["ops"]
    reader = connect(url, key=client.create_key("line 3", [Scope.SCORE]).key)
    with pytest.raises(ProblemError) as forbidden:
        reader.put_machine("fan-1")
    assert forbidden.value.kind == "forbidden"
    client.revoke_key(next(each.key_id for each in client.api_keys() if each.name == "line 3"))
    assert [entry.action for entry in client.audit()] == ["revoke-key", "create-key", "create-key"]
