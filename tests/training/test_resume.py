"""An interrupted run resumes to the same losses, or raises an error with the reason."""

import csv
import dataclasses
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from training.cli import app
from training.config import Config
from training.loop import resume, train
from training.run import Run, RunError

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 10
SECTIONS: dict[str, dict[str, object]] = {
    "optim": {"steps": STEPS, "batch": 4, "learning_rate": 0.003, "ema_decay": 0.8},
    "loop": {"checkpoint_steps": 2, "keep_checkpoints": 2},
}


def columns(run: Run) -> dict[str, list[float]]:
    with run.losses.path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


def go_on(run: Run, config: Config | None = None) -> Run:
    with Progress(disable=True) as progress:
        return resume(run, config or run.config, progress)


@pytest.fixture(scope="module")
def trained(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("resume")
    with Progress(disable=True) as progress:
        return train(make_config(folder / "cache", **SECTIONS), "whole", folder / "runs", progress)


@pytest.fixture
def whole(trained: Run, tmp_path: Path) -> Run:
    """A copy of a finished run, which a test may change."""
    return Run(Path(shutil.copytree(trained.folder, tmp_path / "runs" / "whole")))


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """Let the kernel refuse to write files of more than `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_killed_run_goes_on_to_the_same_losses(
    whole: Run, tiny_config: Callable[..., Config], write_toml: Callable[[Config], Path], tmp_path: Path
) -> None:
    runs = tmp_path / "killed"
    config = tiny_config(**SECTIONS)
    process = subprocess.Popen(
        [sys.executable, "-m", "training", "train", str(write_toml(config)), "--runs", str(runs)],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(runs.glob("*/checkpoints/0*")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.wait(30)
    (folder,) = runs.iterdir()
    run = Run(folder)
    step = run.latest()[1]["step"]
    assert 0 < step < STEPS, "it was killed too late"
    with run.losses.path.open("a") as file:
        file.write("9,0.")  # half a row, as a killed process may leave it
    result = CliRunner().invoke(app, ["train", "--resume", str(run.folder)])
    assert result.exit_code == 0, result.output
    assert columns(run) == columns(whole)
    expected, found = (each.latest()[0] for each in (whole, run))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)


def test_a_run_killed_before_its_first_checkpoint_starts_over(whole: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "copy")
    shutil.copytree(whole.folder, run.folder)
    shutil.rmtree(run.folder / "checkpoints")
    with pytest.raises(RunError, match=r"`seed` was 0 when .* was started and is 1 now"):
        go_on(run, dataclasses.replace(run.config, seed=1))
    go_on(run)
    assert columns(run) == columns(whole)


def test_the_newest_checkpoints_are_kept_without_what_only_training_needs_in_the_last(whole: Run) -> None:
    assert [path.name for path in whole.checkpoints] == [f"{STEPS - 2:08d}", f"{STEPS:08d}"]
    assert {name.partition(".")[0] for name in whole.latest()[0]} == {"student", "head", "teacher"}
    teacher = [name for name in whole.latest()[0] if name.startswith("teacher.")]
    assert teacher == [f"teacher.student.readout.whitening.{part}" for part in ("matrix", "mean")], "its projection"


def test_what_has_changed_is_named(whole: Run) -> None:
    with pytest.raises(RunError, match="is finished: it made all 10 steps"):
        go_on(whole)
    shutil.rmtree(whole.checkpoints[-1])
    for words in (["optim.learning_rate=0.5"], ["objective.kind=denoise", "optim.steps=10"]):
        key, _, value = words[0].partition("=")
        result = CliRunner().invoke(app, ["train", "--resume", str(whole.folder), *words])
        assert result.exit_code == 1
        assert f"`{key}` was" in result.output
        assert value in result.output
    about = (whole.folder / "run.json").read_text()
    (whole.folder / "run.json").write_text(about.replace('"learning_rate": 0.003', '"learning_rate": 0.004'))
    with pytest.raises(RunError, match=r"`optim.learning_rate` was 0.003 when .* was started and is 0.004 now"):
        go_on(whole)
    fingerprint = whole.about["data_fingerprint"]
    (whole.folder / "run.json").write_text(about.replace(fingerprint, "0" * 64))
    with pytest.raises(RunError, match=r"The clips of .* have changed"):
        go_on(whole)


def test_a_full_disk_ends_the_run_and_spares_the_checkpoint_before(whole: Run) -> None:
    shutil.rmtree(whole.checkpoints[-1])
    with no_room(20_000), pytest.raises(RunError, match=rf"step {STEPS} could not be written: .*00000008 is intact"):
        go_on(whole)
    assert [path.name for path in (whole.folder / "checkpoints").iterdir()] == ["00000008"]
    go_on(whole)
    assert whole.latest()[1]["step"] == STEPS


def test_leftovers_of_a_killed_writer_go(whole: Run) -> None:
    shutil.rmtree(whole.checkpoints[-1])
    left = whole.folder / "checkpoints" / ".writing-abc"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    go_on(whole)
    assert not left.exists()
