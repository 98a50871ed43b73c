"""The recipe training/configs/distill-edge.toml, with a tiny random BEATs as the teacher of a tiny random mn."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from service.app import create_app
from service.settings import Settings
from service.usecases.service import Service
from training.cli import app
from training.config import load_config
from training.encoders import BEATs, find_encoder
from training.run import Run

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "training" / "configs" / "distill-edge.toml"


@pytest.fixture
def teacher(published_form: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    torch.save(published_form(BEATs.tiny(0)), tmp_path / "beats.pt")
    return tmp_path / "beats.pt"


def _offkey(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.timeout(300)
def test_distill_export_serve(
    teacher: Path, tiny_checkpoint: Path, clips: Path, tmp_path: Path, fan: Callable[..., bytes]
) -> None:
    small = ["data.window_seconds=0.5", "readout.mixtures=24", "optim.steps=4", "optim.batch=4", "optim.warmup_steps=1"]
    small += ['teacher.layers=["layer_02"]', "data.noise_roles=[]", 'data.noise_labels=["hiss", "rumble"]']
    small += ['readout.layers=["block_03"]', "readout.pooling=mean"]  # deeper, random weights give next to nothing
    small += ["loop.workers=0", f"data.manifest={clips}", f"data.cache={tmp_path / 'cache'}"]
    words = [f"encoder.checkpoint={tiny_checkpoint}", f"teacher.checkpoint={teacher}", *small]
    runs = [
        Run(Path(_offkey("train", str(RECIPE), *words, f"optim.steps={steps}", "--runs", str(tmp_path / "runs"))))
        for steps in (4, 3)
    ]
    about = [run.latest()[1] for run in runs]
    assert about[0]["teacher_misses"] > 0
    assert about[1]["teacher_misses"] == 0, "the next run takes the teacher's vectors from the cache"
    assert about[1]["teacher_hits"] > 0

    bundle = Path(_offkey("export", str(runs[0].folder), "--name", "edge", "--models", str(tmp_path / "models")))
    assert (bundle / "CARD.md").is_file()
    with TestClient(create_app(Service.open(Settings(data_dir=tmp_path / "data", bundle=bundle)))) as api:
        assert api.put("/machines/fan-1").status_code == 201
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(4)]
        assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
        answer = api.post("/score", params={"machine_id": "fan-1"}, content=fan(9))
        assert isinstance(answer.json()["clips"][0]["anomaly_score"], float)


def test_the_page_computes_from_what_the_recipe_says() -> None:
    config = load_config(RECIPE)
    text = (ROOT / "docs" / "how-to" / "train-a-student.md").read_text(encoding="utf-8")
    page = " ".join(text.partition("### A full-size teacher")[2].partition("\n## ")[0].split())
    assert "computed, not measured" in page
    per_second = float(re.findall(r"hence ([0-9.]+) s per second", page)[0])
    assert per_second == pytest.approx(1.1 / 10 * 6 / 12)
    width, windows, seconds = 8 * 768, 12_000, config.data.window_seconds
    pairs, steps = config.readout.mixtures, config.optim.steps
    assert config.teacher.layers == ("layer_06",)
    assert pairs > width
    assert f"{pairs:,} pairs, 3 waveforms of {seconds:g} s each | 1 h 50 min | 151 MB" in page
    assert pairs * 3 * seconds * per_second / 60 == pytest.approx(110, abs=1)
    assert round(width * width * 4 / 1e6) == 151
    assert "500 batches of 16 pairs, 4 additions each | 15 min" in page
    assert pairs / 16 * 4 * 0.45 / 60 == pytest.approx(15, abs=0.5)
    assert f"12,000 windows of {seconds:g} s, {width:,} values each | 55 min | 295 MB" in page
    assert windows * seconds * per_second / 60 == pytest.approx(55, abs=1)
    assert round(windows * width * 4 / 1e6) == 295
    assert f"{steps:,} steps of {config.optim.batch} mixtures | 80 min" in page
    assert steps / 400 * 8 == 80
    assert math.isclose(3 * 2048 * width * 4 / 1e6, 151, rel_tol=0.01)


def test_the_recipe_is_for_every_teacher_it_names() -> None:
    student = find_encoder(load_config(RECIPE).encoder.name).tiny(0)
    for name in ("beats", "eat", "sslam"):
        assert find_encoder(name).tiny(0).front_end.sample_rate == student.front_end.sample_rate
