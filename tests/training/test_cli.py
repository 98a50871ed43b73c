"""The commands: quick to load, clear when something is missing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import app
from training.config import Config
from training.int8 import Int8
from training.run import Run

runner = CliRunner()


def test_importing_the_commands_leaves_torch_out() -> None:
    code = "import training.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from training.cli import app; app(['export', 'run', '--name', 'x'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'offkey[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_mistakes_are_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[optim]\nsteps = 1\n")
    for words, message in (
        (["train", str(tmp_path / "absent.toml")], "no config at"),
        (["train", str(tmp_path / "config.toml"), "optim.stepz=1"], "'optim.steps'"),
        (["train", str(tmp_path / "config.toml")], "no checkpoint at"),
        (["train"], "The config is missing"),
        (["train", "--resume", str(tmp_path)], "not a run folder"),
        (["export", str(tmp_path), "--name", "x"], "not a run folder"),
    ):
        result = runner.invoke(app, words)
        assert result.exit_code == 1, words
        assert message in " ".join(result.output.split()), result.output


def test_train_then_export(tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing is slow and tested elsewhere; here the commands are, down to the run folder that they share."""
    config = tiny_config()
    toml = tmp_path / "tiny.toml"
    toml.write_text(
        f"""
encoder.checkpoint = "{config.encoder.checkpoint}"
readout = {{ layers = ["block_02"], pooling = "mean", mixtures = 24 }}
data = {{ manifest = "{config.data.manifest}", cache = "{config.data.cache}", noise_labels = ["hiss", "rumble"] }}
optim.batch = 2
"""
    )
    words = ["train", str(toml), "optim.steps=2", "data.window_seconds=0.5", "--runs", str(tmp_path / "runs")]
    trained = runner.invoke(app, words)
    assert trained.exit_code == 0, trained.output
    run = Path(trained.stdout.strip().splitlines()[-1])
    assert len((run / "log.csv").read_text().splitlines()) == 1 + 2
    asked = []
    monkeypatch.setattr("training.export.export_run", lambda *words, **named: asked.append((words, named)) or "done")
    words = ["export", str(run), "--name", "tiny", "--models", str(tmp_path / "models")]
    for more in ([], ["--int8", str(tmp_path), "--int8-cost", "0.02", "--no-weights"]):
        exported = runner.invoke(app, words + more)
        assert exported.exit_code == 0, exported.output
    assert [place for place, _ in asked] == [(Run(run), "tiny", "1", tmp_path / "models")] * 2
    plain, small = ({**named, "progress": None} for _, named in asked)
    assert plain == {"measured": None, "int8": None, "weights": True, "replace": False, "progress": None}
    assert small == {**plain, "int8": Int8(tmp_path, 0.02), "weights": False}


@pytest.mark.parametrize("command", ["train", "export"])
def test_help_describes_the_command(command: str) -> None:
    assert "run folder" in runner.invoke(app, [command, "--help"]).output
