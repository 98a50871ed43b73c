"""The losses as a table, a picture and TensorBoard events."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from training.config import Config
from training.logs import PLOT_FILE, Logs
from training.retention import Retention
from training.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "tiny", Config(), {})


def fill(run: Run, first: int, last: int, every: int = 0) -> None:
    """Log steps `first` to `last`, and a held-out distance that falls from 0.8 after every `every` of them."""
    logs = Logs(run, first - 1)
    for step in range(first, last + 1):
        loss = {"total": 2.0 / step, "alignment": 1.0 / step, "tagging": 1.0 / step}
        due = every and step % every == 0
        measured = [Retention(0.0, 0.8 / (1 + step), 0.5, 0.8, 0.4), Retention(5.0, 9.0, 0.5, 9.0, 0.4)] if due else []
        logs.add(step, {**loss, "learning_rate": 1e-4}, measured)
    logs.plot()
    logs.close()


def test_steps_behind_the_checkpoint_are_taken_back(run: Run) -> None:
    fill(run, 1, 9, every=3)
    fill(run, 5, 6, every=3)
    assert [row["step"] for row in run.retention.rows()] == [3, 3, 6, 6]
    steps = [line.split(",")[0] for line in run.losses.path.read_text().splitlines()]
    assert steps == ["step", "1", "2", "3", "4", "5", "6"]
    Logs(run, 0).close()
    assert not run.losses.path.exists()


@pytest.mark.parametrize("steps", [1, 200])
def test_the_picture_shows_both_losses(run: Run, steps: int) -> None:
    fill(run, 1, steps)
    pixels = matplotlib.image.imread(run.folder / PLOT_FILE)[..., :3]
    assert pixels.shape == (600, 960, 3)
    for color in ((0x21, 0x66, 0xAC), (0xB2, 0x18, 0x2B)):
        near = np.abs(pixels - np.array(color) / 255).max(axis=2) < 0.02
        assert near.any(), "a line is missing"


def test_the_picture_shows_the_held_out_distance_beside_the_frozen_encoders(run: Run) -> None:
    fill(run, 1, 40, every=5)
    pixels = matplotlib.image.imread(run.folder / PLOT_FILE)[..., :3]
    assert pixels.shape == (900, 960, 3)
    student, frozen = (
        (np.abs(pixels[600:] - np.array(color) / 255).max(axis=2) < 0.02).sum(axis=1)
        for color in ((0x1B, 0x78, 0x37), (0x77, 0x77, 0x77))
    )  # pixels of each color in the rows of the lowest panel
    line = int(frozen.argmax())
    assert frozen[line] > 200, "the line of the frozen encoder is missing"
    assert np.flatnonzero(student).max() > line + 50, "the student falls far below the frozen encoder"


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
    assert run.losses.path.exists()
    assert not (run.folder / "tensorboard").exists()
