"""The losses as a table, a picture and TensorBoard events."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from training.config import Config
from training.logs import PLOT_FILE, Logs
from training.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "tiny", Config(), {})


def fill(run: Run, first: int, last: int) -> None:
    logs = Logs(run, first - 1)
    for step in range(first, last + 1):
        loss = {"total": 2.0 / step, "alignment": 1.0 / step, "tagging": 1.0 / step}
        logs.add(step, {**loss, "learning_rate": 1e-4})
    logs.plot()
    logs.close()


def test_steps_behind_the_checkpoint_are_taken_back(run: Run) -> None:
    fill(run, 1, 9)
    fill(run, 5, 6)
    steps = [line.split(",")[0] for line in run.log_file.read_text().splitlines()]
    assert steps == ["step", "1", "2", "3", "4", "5", "6"]
    Logs(run, 0).close()
    assert not run.log_file.exists()


@pytest.mark.parametrize("steps", [1, 200])
def test_the_picture_shows_both_losses(run: Run, steps: int) -> None:
    fill(run, 1, steps)
    pixels = matplotlib.image.imread(run.folder / PLOT_FILE)[..., :3]
    assert pixels.shape == (600, 960, 3)
    for color in ((0x21, 0x66, 0xAC), (0xB2, 0x18, 0x2B)):
        near = np.abs(pixels - np.array(color) / 255).max(axis=2) < 0.02
        assert near.any(), "a line is missing"


def test_nothing_logged_draws_nothing(run: Run) -> None:
    logs = Logs(run, 0)
    logs.plot()
    logs.close()
    assert not (run.folder / PLOT_FILE).exists()


def test_tensorboard_has_the_same_rows(run: Run) -> None:
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fill(run, 1, 9)
    fill(run, 5, 6)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("total")] == [1, 2, 3, 4, 5, 6]


def test_without_tensorboard_the_table_is_enough(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    fill(run, 1, 2)
    assert run.log_file.exists()
    assert not (run.folder / "tensorboard").exists()
