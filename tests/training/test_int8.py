"""int8 in the linear layers alone, never without its cost."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.progress import Progress

from service.encoder.bundle import load_manifest
from service.encoder.encoder import Encoder
from service.settings import Device
from service.synthetic import plan_tree, write_tree
from training import int8 as int8_module
from training.config import Config
from training.data.catalog import DataError
from training.encoders.ast import AST
from training.export import export_run
from training.graph import ExportError
from training.int8 import Int8
from training.loop import train
from training.run import Run
from training.teacher import Bundle

LAYERS = ["layer_01", "layer_02"]
pytestmark = pytest.mark.xdist_group("int8")  # the bundles are made once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("int8")


@pytest.fixture(scope="module")
def tree(folder: Path) -> Path:
    write_tree(folder / "machines", plan_tree(["fan-synthetic"], train_source=6, train_target=2, test_each=3))
    return folder / "machines"


@pytest.fixture(scope="module")
def run(make_config: Callable[..., Config], folder: Path) -> Run:
    encoder = AST.tiny(0)
    state = {f"module.{name}": value for name, value in encoder.state_dict().items()}
    for head in ("v.head", "v.head_dist"):
        state |= {f"module.{head}.weight": torch.zeros(1, 32), f"module.{head}.bias": torch.zeros(1)}
    torch.save(state, folder / "ast.pth")
    config = make_config(
        folder / "cache",
        encoder={"name": "ast", "checkpoint": str(folder / "ast.pth")},
        readout={"layers": LAYERS, "pooling": "mean"},
        optim={"steps": 1},
    )
    with Progress(disable=True) as progress:
        return train(config, "tiny", folder / "runs", progress)


@pytest.fixture(scope="module")
def float32(run: Run, folder: Path) -> Path:
    return export_run(run, "tiny", "1", folder / "models")


@pytest.fixture(scope="module")
def int8(run: Run, tree: Path, folder: Path) -> Path:
    return export_run(run, "tiny-int8", "1", folder / "models", int8=Int8(tree, cost=0.5))


def nodes(bundle: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(bundle / "model.onnx")).graph.node)


def test_the_encoders_linear_layers_are_integers_and_nothing_else_is(float32: Path, int8: Path) -> None:
    linear = 2 * 4  # blocks, each with qkv, proj, fc1, fc2
    before, after = nodes(float32), nodes(int8)
    assert after["MatMulInteger"] == linear
    assert after["MatMul"] == before["MatMul"] - linear
    assert not after["ConvInteger"]
    assert after["Conv"] == before["Conv"]
    stored = {value.name: value for value in onnx.load(str(int8 / "model.onnx")).graph.initializer}
    floats = {name for name, value in stored.items() if value.data_type == onnx.TensorProto.FLOAT}
    assert {"encoder.front_end.fbank.matrix", "encoder.front_end.fbank.banks", "readout.whitening.matrix"} <= floats
    assert max(np.abs(onnx.numpy_helper.to_array(v)).max() for n, v in stored.items() if n.endswith("_quantized")) <= 64
    assert (int8 / "model.onnx").stat().st_size < (float32 / "model.onnx").stat().st_size - linear * 32 * 32


def test_the_service_takes_it_and_its_space_is_its_own(float32: Path, int8: Path) -> None:
    encoder = Encoder(int8, Device.CPU)  # held against its golden vectors
    assert encoder.manifest.precision == "int8"
    assert encoder.manifest.golden.tolerance == int8_module.TOLERANCE
    assert encoder.manifest.weights_sha256 is None
    assert not (int8 / "encoder.safetensors").exists()
    assert encoder.manifest.embedding_space_id != load_manifest(float32).embedding_space_id
    clip = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    near = encoder.embed(clip)[0] @ Encoder(float32, Device.CPU).embed(clip)[0].T
    assert 0.99 < float(near[0, 0]) < 1 - 1e-7


def test_manifest_and_card_name_quality_size_and_speed_of_both(int8: Path) -> None:
    figures = {figure.name: figure for figure in load_manifest(int8).measured}
    for name in ("float32", "int8"):
        for area in ("AUC", "pAUC"):
            mean = figures[f"{name}: {area}, mean over machines"]
            assert mean.value == figures[f"{name}: {area}, fan-synthetic"].value
            assert "--int8" in mean.command
        assert figures[f"{name}: ms per window of 1 s, one CPU thread"].value > 0
    assert figures["int8: model.onnx, MB"].value < figures["float32: model.onnx, MB"].value
    assert 0 < figures["int8: largest cosine distance to float32"].value < 0.01
    card = (int8 / "CARD.md").read_text()
    assert "int8 in the encoder's linear layers" in card
    assert all(name in card for name in figures)


def test_a_cost_above_the_bound_leaves_nothing(run: Run, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"int8 costs .* \(AUC .* -> .*, pAUC .* -> .*\), and -1 is accepted"):
        export_run(run, "tiny", "1", tmp_path / "models", int8=Int8(tree, cost=-1.0))
    assert list((tmp_path / "models" / "tiny").iterdir()) == []


def test_without_machines_there_is_no_int8(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing at"):
        export_run(run, "tiny", "1", tmp_path / "models", int8=Int8(tmp_path / "absent"))
    assert list((tmp_path / "models" / "tiny").iterdir()) == []


def test_convolutions_are_refused(tiny_config: Callable[..., Config], tree: Path, tmp_path: Path) -> None:
    with Progress(disable=True) as progress:
        run = train(tiny_config(optim={"steps": 0}), "cnn", tmp_path / "runs", progress)
    with pytest.raises(ExportError, match=r"no int8 bundle of efficientat-16k: .* in convolutions .* 8 times slower"):
        export_run(run, "cnn", "1", tmp_path / "models", int8=Int8(tree))


def test_a_teacher_in_int8_embeds_one_window_at_a_time(int8: Path) -> None:
    waveform = 0.1 * torch.randn(3, 8_000, generator=torch.Generator().manual_seed(0))
    teacher = Bundle(int8, 16_000, 0.5, 1)
    alone = torch.cat([teacher.vectors(row[None])[0] for row in waveform])
    assert torch.equal(teacher.vectors(waveform)[0], alone)
    session = onnxruntime.InferenceSession(str(int8 / "model.onnx"), providers=["CPUExecutionProvider"])
    together = session.run(["embedding"], {"waveform": waveform.numpy()})[0]
    assert not np.array_equal(together, alone.numpy()), "then it need not"
