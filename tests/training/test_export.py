"""Training to bundle to ONNX Runtime, whole; and the refusals."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.progress import Progress

from service.encoder.bundle import BundleError, file_sha256, load_manifest
from training import export as export_module
from training.config import Config
from training.export import export_run
from training.factory import build_student
from training.graph import ExportError, Graph, check_parity, synthetic_waveforms, write_graph
from training.loop import train
from training.run import Run

pytestmark = pytest.mark.xdist_group("export")  # the bundle is made once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def run(make_config: Callable[..., Config], folder: Path) -> Run:
    with Progress(disable=True) as progress:
        return train(make_config(folder / "cache"), "tiny", folder / "runs", progress)


@pytest.fixture(scope="module")
def bundle(run: Run, folder: Path) -> Path:
    figures = folder / "figures.json"
    figures.write_text(json.dumps({"figures": [{"name": "AUC", "value": 0.5, "command": "toss a coin"}]}))
    return export_run(run, "tiny", "3", folder / "models", measured=figures)


@pytest.fixture
def traced(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the graph of `bundle` where tracing the same student again would only take time."""

    def copy(_: torch.nn.Module, path: Path) -> Graph:
        shutil.copyfile(bundle / "model.onnx", path)
        return Graph(file_sha256(path), 20)

    monkeypatch.setattr(export_module, "write_graph", copy)


def test_the_card_of_a_run_without_measurements_says_so(bundle: Path) -> None:
    assert "Not recorded: the run measured no held-out mixtures" in (bundle / "CARD.md").read_text()


def test_a_run_becomes_a_bundle_that_says_what_pytorch_says(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    assert (manifest.dim, manifest.input.sample_rate, manifest.provenance.steps) == (8 * 32, 16_000, 3)
    assert manifest.provenance.objective == "retain"
    centers = manifest.output("logmel").centers_hz
    assert centers is not None
    assert len(centers) == manifest.output("logmel").dims[-1]
    assert manifest.embedding_space_id == f"tiny/3-{manifest.model_sha256[:12]}"
    assert manifest.measured[0].command == "toss a coin"
    files = {"model.onnx", "manifest.json", "golden.npz", "encoder.safetensors"}
    files |= {"CARD.md", "ATTRIBUTION.csv", "LICENSE.tiny"}
    assert {path.name for path in bundle.iterdir()} == files

    golden = np.load(bundle / "golden.npz")
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])
    outputs = session.get_outputs()
    assert [output.name for output in outputs] == ["embedding", "frames", "logmel"]
    for spec, output, found in zip(
        manifest.outputs, outputs, session.run(None, {"waveform": golden["waveform"]}), strict=True
    ):
        expected = golden[spec.name]
        assert tuple(output.shape) == spec.dims
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= manifest.golden.tolerance * np.abs(expected).max()
    embedding = session.run(["embedding"], {"waveform": golden["waveform"]})[0]
    assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)


def test_blocks_behind_the_read_out_are_not_in_the_graph(bundle: Path) -> None:
    graph = onnx.load(str(bundle / "model.onnx")).graph
    stem, blocks = 1, 3
    # So narrow a network has nothing to expand: each block is a depthwise and a projecting convolution.
    assert sum(node.op_type == "Conv" for node in graph.node) == stem + 2 * blocks


def test_only_permissive_clips_are_used_and_each_is_attributed(bundle: Path) -> None:
    with (bundle / "ATTRIBUTION.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["clip"] for row in rows} == {f"{number}.wav" for number in range(10)}
    assert sum(part.clips for part in load_manifest(bundle).provenance.data) == 10
    card = (bundle / "CARD.md").read_text()
    for part in ("EfficientAT", "CC0", "toss a coin", "3 steps of the objective `retain`"):
        assert part in card


@pytest.mark.usefixtures("traced")
def test_weights_that_differ_from_the_graph_are_refused_and_leave_nothing(run: Run, tmp_path: Path) -> None:
    tensors, _ = run.latest()
    name = "student.encoder.features.0.0.weight"
    other = Run(tmp_path / "run")
    shutil.copytree(run.folder, other.folder)
    other.save(99, tensors | {name: tensors[name] * 1.001}, {"finished": True, "selected_step": 3}, keep=2)
    with pytest.raises(ExportError, match=r"differ by .* in embedding .* Nothing was written"):
        export_run(other, "tiny", "1", tmp_path / "models")
    assert list((tmp_path / "models" / "tiny").iterdir()) == []


def test_an_embedding_that_depends_on_its_batch_mates_is_refused(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config(readout={"layers": ["block_00"]})
    student = build_student(config)
    grids = student.encoder.grids
    student.encoder.grids = lambda logmel, layers: {
        name: grid + grid.mean(dim=0, keepdim=True) for name, grid in grids(logmel, layers).items()
    }
    write_graph(student, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="depends on the other clips of its batch"):
        check_parity(student, tmp_path / "model.onnx", config.window)


@pytest.mark.usefixtures("traced")
def test_a_bundle_is_replaced_only_on_request(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    bundle = export_run(run, "tiny", "1", models)
    (bundle / "golden.npz").write_bytes(b"damaged")
    with pytest.raises(BundleError, match="damaged"):
        load_manifest(bundle)
    with pytest.raises(ExportError, match="exists"):
        export_run(run, "tiny", "1", models)

    def broken(*_: object) -> float:
        raise ExportError("broken")

    with monkeypatch.context() as context:
        context.setattr(export_module, "check_parity", broken)
        with pytest.raises(ExportError, match="broken"):
            export_run(run, "tiny", "1", models, replace=True)
    assert (bundle / "golden.npz").read_bytes() == b"damaged"
    export_run(run, "tiny", "1", models, replace=True)
    load_manifest(bundle)
    assert [path.name for path in (models / "tiny").iterdir()] == ["1"]


def test_the_card_says_whether_the_student_retains(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config(
        tmp_path / "cache",
        data={"held_out_share": 0.4},
        optim={"steps": 4, "learning_rate": 0.02},
        loop={"evaluate_steps": 1, "held_out_mixtures": 4},
    )
    with Progress(disable=True) as progress:
        run = train(config, "measured", tmp_path / "runs", progress)
    step = run.latest()[1]["selected_step"]
    (row,) = (row for row in run.retention.rows() if (row["step"], row["snr_db"]) == (step, -5))
    folder = export_run(run, "measured", "1", tmp_path / "models")
    figures = {figure.name: figure.value for figure in load_manifest(folder).measured}
    assert len(figures) == 3 * 4
    assert figures["held-out mixtures, -5 dB: squared distance to the target (unit)"] == row["distance"]
    assert figures["held-out mixtures, -5 dB: the frozen encoder's (unit)"] == row["frozen_distance"]
    text = (folder / "CARD.md").read_text()
    assert "| held-out mixtures, -5 dB: cosine to the target (unit) |" in text
    (zero,) = (row for row in run.retention.rows() if (row["step"], row["snr_db"]) == (step, 0))
    nearer = zero["distance"] < zero["frozen_distance"]
    assert ("it retains." in text, "it does not retain." in text) == (
        nearer,
        not nearer,
    )


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("content", ["no json", '{"name": 1}', '{"figures": [{"name": "AUC"}]}', "[]"])
def test_figures_that_are_none_are_refused(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "figures.json").write_text(content)
    with pytest.raises(ExportError, match="no `figures`"):
        export_run(run, "tiny", "1", tmp_path / "models", measured=tmp_path / "figures.json")


def test_golden_waveforms_are_reproducible_and_unlike_each_other() -> None:
    first, second = (synthetic_waveforms(3, 8_000, 16_000) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.abs(np.corrcoef(first)[np.triu_indices(3, 1)]).max() < 0.5


def _fail_to_replace(folder: Path) -> None:
    with export_module._replaceable(folder) as move_away:
        move_away()
        assert not folder.exists()
        raise OSError("the disk is full")


def test_a_failed_replacement_restores_the_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "file").write_text("old")

    with pytest.raises(OSError, match="full"):
        _fail_to_replace(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert (folder / "file").read_text() == "old"
