"""The `offkey` command and the client, against a service in a process of its own."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from offkey import Client, __version__
from service.cli.server import unknown_settings
from service.store import Store
from service.store.database.sqlite import DATABASE_FILE
from service.synthetic import plan_tree, write_tree

Run = Callable[..., subprocess.CompletedProcess[str]]


def process(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    # Without its measurement of the machine, which is no matter here.
    own = {"PATH": "/usr/bin:/bin", "COLUMNS": "200", "OFFKEY_LIMITS": '{"run_threads": 1}', **environ}
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=own,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    write_tree(folder, plan_tree(["fan-synthetic"], train_source=4, train_target=2, test_each=2, severities=(100,)))
    return folder / "fan-synthetic"


def test_shift_is_reported(offkey: Run, serve: Callable[..., str], tree: Path, tmp_path: Path) -> None:
    url = serve(tmp_path / "data")
    offkey("enroll", tree / "train", "--machine", "fan-1", "--url", url)
    samples, rate = soundfile.read(next((tree / "test").glob("*source*normal*")))
    soundfile.write(tmp_path / "quiet.wav", samples / 30, rate)
    scored = offkey("score", tmp_path / "quiet.wav", "--machine", "fan-1", "--url", url)
    assert "quiet.wav: The level is " in scored.stdout
    noted = offkey("enroll", tmp_path / "quiet.wav", "--machine", "fan-1", "--url", url)
    assert "quiet.wav: The level is " in noted.stdout
    soundfile.write(tmp_path / "hall.wav", 0.01 * np.random.default_rng(0).standard_normal(48_000), rate)
    for expected in ("1 noise clips added, 0 were there already", "0 noise clips added, 1 were there already"):
        assert expected in offkey("noise", tmp_path / "hall.wav", "--machine", "fan-1", "--url", url).stdout
    drift = offkey("drift", "--machine", "fan-1", "--url", url)
    assert drift.returncode == 0, drift.stderr
    assert "last 100 clips" in drift.stdout
    assert "fan-1: unknown. Enroll 3 more recordings" in drift.stdout


def test_a_folder_is_enrolled_scored_and_listed(
    offkey: Run, serve: Callable[..., str], tree: Path, tmp_path: Path
) -> None:
    url = serve(tmp_path / "data")
    enrolled = offkey("enroll", tree / "train", "--machine", "fan-1", "--url", url)
    assert enrolled.returncode == 0, enrolled.stderr
    assert "6 clips enrolled, 0 were there already" in enrolled.stdout
    again = offkey("enroll", tree / "train", "--machine", "fan-1", OFFKEY_URL=url)
    assert "0 clips enrolled, 6 were there already" in again.stdout

    scored = offkey("score", tree / "test", "--machine", "fan-1", "--json", "--url", url)
    clips = [json.loads(line) for line in scored.stdout.splitlines()]
    assert len(clips) == 8
    healthy = [clip["anomaly_score"] for clip in clips if "_normal_" in clip["name"]]
    faulty = [clip["anomaly_score"] for clip in clips if "_anomaly_" in clip["name"]]
    assert min(faulty) > max(healthy)
    assert {"machine_id", "generation", "threshold", "windows"} <= set(clips[0])

    table = offkey("score", next((tree / "test").glob("*anomaly*")), "--machine", "fan-1", "--url", url)
    assert "ANOMALOUS" in table.stdout
    assert re.search(
        r"^Stands out: [\d.]+ to [\d.]+ s, \d+ to \d+ Hz, louder by \d+\.\d deviations", table.stdout, re.M
    )
    assert "fan-1" in offkey("machines", "--url", url).stdout
    assert json.loads(offkey("info", "--url", url).stdout)["version"] == __version__


def test_what_was_done_is_shown_before_the_error(
    offkey: Run, serve: Callable[..., str], tree: Path, tmp_path: Path
) -> None:
    url = serve(tmp_path / "data", max_clips_per_request=2)
    clips = sorted((tree / "train").glob("*source*"))
    bad = tmp_path / "zz[red].wav"
    bad.write_text("no sound")
    enrolled = offkey("enroll", *clips[:2], bad, "--machine", "fan-1", "--url", url)
    assert enrolled.returncode == 1
    assert "2 clips enrolled, 0 were there already" in enrolled.stdout
    assert "zz[red].wav" in enrolled.stderr
    assert "(request " in enrolled.stderr
    for option in ([], ["--json"]):
        scored = offkey("score", *clips[:2], bad, "--machine", "fan-1", "--url", url, *option)
        assert scored.returncode == 1
        assert all(clip.name in scored.stdout for clip in clips[:2])
        assert "zz[red].wav" in scored.stderr


def test_the_table_says_what_is_promised(offkey: Run, serve: Callable[..., str], tree: Path, tmp_path: Path) -> None:
    url = serve(tmp_path / "data")
    offkey("enroll", *(tree / "train").glob("*source*"), "--machine", "fan-1", "--url", url)
    target = sorted((tree / "train").glob("*target*"))
    offkey("enroll", target[0], "--domain", "target", "--machine", "fan-1", "--url", url)
    found = offkey("score", target[1], "--machine", "fan-1", "--url", url)
    assert "Promised false-alarm rate: source 20.0%, target none." in found.stdout
    assert "Enroll 15 more of the source domain." in found.stdout


def test_what_sounds_anomalous_is_held_back_and_alarms_are_taken_back(
    offkey: Run, serve: Callable[..., str], tmp_path: Path
) -> None:
    write_tree(tmp_path, plan_tree(["fan-synthetic"], train_source=20, train_target=0, test_each=1, severities=(100,)))
    fan, url = tmp_path / "fan-synthetic", serve(tmp_path / "data")
    faulty = next((fan / "test").glob("*source*anomaly*"))
    to = ("--machine", "fan-1", "--url", url)
    assert "20 clips enrolled, 0 were there already; the bank" in offkey("enroll", fan / "train", *to).stdout
    held = offkey("enroll", faulty, *to)
    assert held.returncode == 0, held.stderr
    assert f"{faulty.name}: held-back. It sounds anomalous" in held.stdout
    assert "0 clips enrolled, 0 were there already, 1 HELD BACK (--force enrolls them)" in held.stdout
    learned = offkey("feedback", faulty, *to)
    assert learned.returncode == 0, learned.stderr
    assert faulty.name in learned.stdout
    assert "1 clips enrolled" in offkey("enroll", next((fan / "test").glob("*normal*")), *to, "--force").stdout


def test_the_threshold_is_shown_and_changed(offkey: Run, serve: Callable[..., str], tree: Path, tmp_path: Path) -> None:
    to = ("--machine", "fan-1", "--url", serve(tmp_path / "data"))
    assert offkey("threshold", *to).returncode == 1  # there is no such machine
    offkey("enroll", *(tree / "train").glob("*source*"), *to)
    assert "(conformal, calibration 1:mahalanobis:conformal:0.05)" in offkey("threshold", *to).stdout
    assert "1:mahalanobis:conformal:0.3" in offkey("threshold", *to, "--false-alarm-rate", "0.3").stdout
    assert "1:mahalanobis:gamma:0.1" in offkey("threshold", *to, "--gamma").stdout
    assert "fan-1: 7.50 (manual" in offkey("threshold", *to, "--value", "7.5").stdout
    assert "manual" in offkey("threshold", *to).stdout
    assert "1:mahalanobis:conformal:0.05" in offkey("threshold", *to, "--default").stdout
    for options in (["--default", "--gamma"], ["--value", "1", "--gamma"], ["--false-alarm-rate", "1"]):
        assert offkey("threshold", *to, *options).returncode == 2
    taped = offkey("enroll", *(tree / "train").glob("*target*"), *to, "--domain", "target", "--recording", "tape-1")
    assert taped.returncode == 0, taped.stderr
    assert "1 target recording promises no false-alarm rate" in offkey("threshold", *to).stdout


def test_names_from_outside_are_no_markup(offkey: Run, serve: Callable[..., str], tree: Path, tmp_path: Path) -> None:
    url = serve(tmp_path / "data")
    clips = sorted((tree / "train").glob("*source*"))
    odd = tmp_path / "br[red]x[bold].wav"
    odd.write_bytes(clips[0].read_bytes())
    with Client(url) as client:
        client.put_machine("fan-1", description="[bold]Hall[/nowhere] \x1b[31m2")
        client.enroll("fan-1", clips)
    scored = offkey("score", odd, "--machine", "fan-1", "--url", url)
    assert scored.returncode == 0, scored.stderr
    assert odd.name in scored.stdout
    listed = offkey("machines", "--url", url)
    assert "[bold]Hall[/nowhere] \N{REPLACEMENT CHARACTER}[31m2" in listed.stdout


def test_errors_are_one_message_and_exit_status_1(offkey: Run, serve: Callable[..., str], tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("no sound")
    (tmp_path / "empty").mkdir()
    url = serve(tmp_path / "data")
    for arguments, message in (
        (("score", text, "--machine", "ghost", "--url", url), "no machine ghost"),
        (("enroll", text, "--machine", "fan-1", "--url", url), "not audio"),
        (("enroll", tmp_path / "nowhere", "--machine", "fan-1", "--url", url), "no file or folder"),
        (("enroll", tmp_path / "empty", "--machine", "fan-1", "--url", url), "holds no audio file"),
        (("info", "--url", "http://127.0.0.1:9"), "Is the service running?"),
        (("enroll", text, "--machine", "no/machine", "--url", url), "no/machine"),
        (("info", "--url", "nonsense"), "Is the service running?"),
    ):
        found = offkey(*arguments)
        assert found.returncode == 1, arguments
        assert message in found.stderr
        assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OFFKEY_BUNDLE": "/nowhere"}, "is not a model bundle"),
        ({"OFFKEY_DEVICE": "abacus"}, "OFFKEY_DEVICE"),
        ({"OFFKEY_FALSE_ALARM_RATE": "1.5"}, "OFFKEY_FALSE_ALARM_RATE"),
        ({"OFFKEY_DATA_DIR": "/proc/nowhere"}, "cannot be opened"),
    ],
)
def test_a_service_that_cannot_start_says_why(environ: dict[str, str], message: str, tmp_path: Path) -> None:
    found = process("serve", "--port", "0", **{"OFFKEY_DATA_DIR": str(tmp_path), **environ})
    assert found.returncode == 1
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_a_corrupt_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "offkey.sqlite3").write_bytes(b"this is no database, though it is long enough to be one" * 100)
    found = process("serve", "--port", "0", OFFKEY_DATA_DIR=str(tmp_path))
    assert found.returncode == 1
    assert str(tmp_path) in found.stderr
    assert "Traceback" not in found.stderr


def test_a_store_of_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    found = process("serve", "--port", "0", OFFKEY_DATA_DIR=str(tmp_path))
    assert found.returncode == 1
    assert "newer version of Offkey" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_mistyped_setting_is_pointed_out() -> None:
    messages = unknown_settings({"OFFKEY_PROT": "1", "OFFKEY_PORT": "2", "OFFKEY_URL": "", "PATH": ""})
    assert messages == ["OFFKEY_PROT is no setting and is ignored; did you mean OFFKEY_PORT?"]


def test_help_and_version() -> None:
    helped = process("--help")
    for command in ("serve", "enroll", "score", "machines", "info", "demo", "synthesize", "train", "export"):
        assert command in helped.stdout
    assert process("--version").stdout.strip() == f"offkey {__version__}"
