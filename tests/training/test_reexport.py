"""A graph made again from a bundle alone: another version, the same space."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from service.encoder.bundle import MANIFEST_FILE, Measurement, file_sha256, load_manifest
from service.encoder.encoder import Encoder
from service.settings import Device
from training import reexport as reexport_module
from training.cli import app
from training.config import Config
from training.encoders import CheckpointError
from training.export import export_run
from training.graph import ExportError, synthetic_waveforms
from training.loop import train
from training.reexport import SAME, reexport
from training.run import Run


@pytest.fixture(scope="module")
def run(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("reexport")
    with Progress(disable=True) as progress:
        return train(make_config(folder / "cache"), "tiny", folder / "runs", progress)


@pytest.fixture
def bundle(run: Run, tmp_path: Path) -> Path:
    made = export_run(run, "tiny", "1", tmp_path / "models")
    manifest = load_manifest(made)
    names = ("student: AUC, clean", "student: ms per 10 s clip, one CPU thread")
    measured = tuple(Measurement(name=name, value=1.0, command="offkey experiment") for name in names)
    (made / MANIFEST_FILE).write_text(manifest.model_copy(update={"measured": measured}).model_dump_json())
    return made


def test_banks_go_on_with_the_new_graph(bundle: Path) -> None:
    printed = CliRunner().invoke(app, ["reexport", str(bundle), "--version", "2"], catch_exceptions=False)
    folder = Path(printed.stdout.strip().splitlines()[-1])
    assert folder == bundle.parent / "2"

    before, after = load_manifest(bundle), load_manifest(folder)
    assert after.embedding_space_id == before.embedding_space_id
    assert (after.name, after.version) == (before.name, "2")
    assert [figure.name for figure in after.measured] == ["student: AUC, clean"]  # speed is of the graph before
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in bundle.iterdir())
    clip = synthetic_waveforms(1, 48_000, after.input.sample_rate)[0]
    old, new = (Encoder(path, Device.CPU).embed(clip)[0] for path in (bundle, folder))  # golden vectors are checked
    assert np.abs(old - new).max() <= SAME
    with pytest.raises(ExportError, match="exists"):
        reexport(bundle, "2")


def test_another_space_is_refused_and_leaves_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reexport_module._student

    def moved(*arguments: object) -> object:
        student = made(*arguments)
        student.readout.whitening.mean.add_(1e-2)
        return student

    monkeypatch.setattr(reexport_module, "_student", moved)
    with pytest.raises(ExportError, match=r"differ .* by .*Nothing was written"):
        reexport(bundle, "2")
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]


def test_what_cannot_be_exported_again_is_refused(bundle: Path, run: Run, tmp_path: Path) -> None:
    light = export_run(run, "light", "1", tmp_path / "models", weights=False)
    with pytest.raises(CheckpointError, match=r"has no encoder\.safetensors"):
        reexport(light, "2")

    model = onnx.load(str(bundle / "model.onnx"))
    for value in model.graph.initializer:
        value.name = value.name.replace("readout.whitening", "stranger")
    foreign = tmp_path / "foreign" / "1"
    shutil.copytree(bundle, foreign)
    onnx.save(model, str(foreign / "model.onnx"))
    manifest = load_manifest(bundle).model_copy(update={"model_sha256": file_sha256(foreign / "model.onnx")})
    (foreign / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(ExportError, match=r"no projection readout\.whitening\.mean"):
        reexport(foreign, "2")
