"""Runs the commands of docs/how-to/train-a-student.md from a BEATs checkpoint to a served student, on small data."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from training.encoders.beats import BEATs

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "train-a-student.md"
SMALL = {"layer_06": "layer_01", "mixtures = 2000": "mixtures = 24", "mixtures=2000": "mixtures=24"} | {
    "steps = 2000": "steps = 2",
    "batch = 32": "batch = 4",
}
SMALL_RUN = '\n[optim]\nsteps = 2\nbatch = 4\n[readout]\nlayers = ["block_03"]\npooling = "mean"\n'  # of random weights


@pytest.fixture
def section() -> str:
    text = PAGE.read_text(encoding="utf-8").partition("## From a BEATs checkpoint")[2].partition("\n## ")[0]
    for published, small in SMALL.items():
        assert published in text
        text = text.replace(published, small)
    return text


@pytest.fixture
def folder(
    tmp_path: Path, published_form: Callable[..., dict[str, Any]], tiny_checkpoint: Path, fan: Callable[..., bytes]
) -> Path:
    """What the reader of the page has."""
    torch.save(published_form(BEATs.tiny(0)), tmp_path / "BEATs_iter3_plus_AS2M.pt")
    (tmp_path / "mn04_as_mAP_432.pt").write_bytes(tiny_checkpoint.read_bytes())
    rng = np.random.default_rng(0)
    for label in ("sounds/pump", "sounds/lathe", "noises/rain", "noises/street"):
        (tmp_path / label).mkdir(parents=True)
        for number in range(4):
            samples = 0.1 * rng.standard_normal(16_000 * 5)
            soundfile.write(tmp_path / label / f"{number}.wav", samples, 16_000, subtype="FLOAT")
    (tmp_path / "fan-1" / "normal").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "fan-1" / "normal" / f"{number}.wav").write_bytes(fan(number))
    (tmp_path / "fan-1" / "today.wav").write_bytes(fan(9, severity=1.0))
    return tmp_path


@pytest.mark.timeout(300)  # nine commands, most of which load PyTorch
def test_the_walk(section: str, folder: Path, follow: Callable[[Path, list[str]], str]) -> None:
    student, small = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    (folder / "student.toml").write_text(student)
    (folder / "small.toml").write_text(small + SMALL_RUN)
    lines = [line for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    printed = follow(folder, lines)
    assert "fan-1" in printed.partition("models/student/1")[2]
    assert (folder / "models" / "small" / "1" / "model.onnx").is_file()
