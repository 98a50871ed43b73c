"""A tiny random BEATs: trained, exported, served, and the teacher of a student of another kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from rich.progress import Progress

from service.app import create_app
from service.encoder.bundle import BundleError
from service.encoder.encoder import Encoder
from service.settings import Device, Settings
from service.usecases.service import Service
from training.config import Config, ConfigError
from training.encoders.beats import BEATs
from training.export import export_run
from training.factory import load_trained
from training.loop import train
from training.run import Run

READOUT = {"layers": ["layer_00", "layer_01"], "pooling": "mean"}
pytestmark = pytest.mark.xdist_group("beats-to-service")  # the bundles are made once


def trained(config: Config, folder: Path) -> Run:
    with Progress(disable=True) as progress:
        return train(config, "tiny", folder, progress)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beats")


@pytest.fixture
def checkpoint(published_form: Callable[..., dict[str, Any]], folder: Path) -> Path:
    path = folder / "beats.pt"
    if not path.exists():
        torch.save(published_form(BEATs.tiny(0)), path)
    return path


@pytest.fixture
def run(make_config: Callable[..., Config], checkpoint: Path, folder: Path) -> Run:
    encoder = {"name": "beats", "checkpoint": str(checkpoint)}
    existing = sorted((folder / "runs").glob("*"))
    if existing:
        return Run(existing[0])
    return trained(make_config(folder / "cache", encoder=encoder, readout=READOUT), folder / "runs")


@pytest.fixture
def bundle(run: Run, folder: Path) -> Path:
    path = folder / "models" / "tiny" / "1"
    return path if path.exists() else export_run(run, "tiny", "1", folder / "models")


def test_the_bundle_is_served(bundle: Path, tmp_path: Path, fan: Callable[..., bytes]) -> None:
    encoder = Encoder(bundle, Device.CPU)  # held against its golden vectors
    assert encoder.manifest.dim == 2 * 8 * 32
    assert encoder.manifest.readout.layers == ("layer_00", "layer_01")
    with TestClient(create_app(Service.open(Settings(data_dir=tmp_path, bundle=bundle)))) as api:
        assert api.put("/machines/fan-1").status_code == 201
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(4)]
        assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
        answer = api.post(
            "/score", params={"machine_id": "fan-1"}, content=fan(9), headers={"content-type": "audio/wav"}
        )
        assert answer.status_code == 200, answer.text
        assert isinstance(answer.json()["clips"][0]["anomaly_score"], float)


@pytest.mark.parametrize("kind", ["bundle", "encoder"])
def test_it_teaches_a_student_of_another_kind(
    kind: str, tiny_config: Callable[..., Config], bundle: Path, checkpoint: Path, tmp_path: Path
) -> None:
    named = {"name": "beats", "checkpoint": str(checkpoint), "layers": ["layer_02"]}
    config = tiny_config(
        teacher={"bundle": str(bundle)} if kind == "bundle" else named,
        optim={"steps": 30, "batch": 4, "learning_rate": 0.003, "head_learning_rate": 0.01},
        spec_augment={"time_masks": 0, "freq_masks": 0},
        loop={"checkpoint_steps": 10},
    )
    run = trained(config, tmp_path / "runs")
    alignment = [float(line.split(",")[2]) for line in run.losses.path.read_text().splitlines()[1:]]
    assert sum(alignment[-5:]) < 0.8 * sum(alignment[:5])
    tensors, state = run.latest()
    assert tensors["projection.weight"].shape == ((512 if kind == "bundle" else 256), 256)
    assert state["teacher_hits"] > 0
    assert load_trained(run)[0].dim == 256, "the student keeps its own dimension"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"level": "frame"}}, "`objective.level` is frame"),
        ({"teacher": {"name": "beats"}}, "two teachers"),
        ({"data": {"window_seconds": 0.1}}, "`data.window_seconds` is 0.1, but .* needs at least 0.2 s"),
        ({"encoder": {"name": "efficientat"}}, "takes 16000 Hz, the student 32000 Hz"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    changes: dict[str, dict[str, object]],
    message: str,
    tiny_config: Callable[..., Config],
    bundle: Path,
    tmp_path: Path,
) -> None:
    teacher = {"bundle": str(bundle), **changes.pop("teacher", {})}
    with pytest.raises(ConfigError, match=message):
        trained(tiny_config(teacher=teacher, **changes), tmp_path)


def test_a_damaged_bundle_does_not_teach(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        trained(tiny_config(teacher={"bundle": str(tmp_path)}), tmp_path)


def test_a_run_is_a_start(make_config: Callable[..., Config], run: Run, tmp_path: Path) -> None:
    encoder = {"name": "beats", "checkpoint": str(run.folder)}
    still = trained(make_config(tmp_path, encoder=encoder, readout=READOUT, optim={"steps": 0}), tmp_path / "runs")
    before, now = (each.latest()[0] for each in (run, still))
    names = [name for name in before if name.startswith("student.encoder.")]
    assert names
    assert all(torch.equal(before[name], now[name]) for name in names)
    assert still.about["config"]["encoder"]["checkpoint"] == str(run.folder)
