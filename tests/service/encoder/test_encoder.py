"""The encoder: bundles that do not match their manifest and unavailable devices are refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.encoder.bundle import (
    CARD_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    BundleError,
    file_sha256,
    load_manifest,
)
from service.encoder.encoder import Encoder
from service.encoder.session import DeviceError
from service.settings import Device

Change = Callable[[Path], None]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def edit_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def change_golden(bundle: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change the golden vectors and the manifest, like a wrong export."""
    with np.load(bundle / GOLDEN_FILE) as golden:
        arrays = dict(golden)
    change(arrays)
    np.savez(bundle / GOLDEN_FILE, **arrays)
    golden_part = json.loads((bundle / MANIFEST_FILE).read_text())["golden"]
    golden_part["sha256"] = hashlib.sha256((bundle / GOLDEN_FILE).read_bytes()).hexdigest()
    edit_manifest(bundle, golden=golden_part)


def edit_output(bundle: Path, which: str, **changes: object) -> None:
    outputs = json.loads((bundle / MANIFEST_FILE).read_text())["outputs"]
    edit_manifest(bundle, outputs=[{**output, **(changes if output["name"] == which else {})} for output in outputs])


def test_the_shipped_bundle_is_complete(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    assert f"{manifest.name}/{manifest.version}" == f"{bundle.parent.name}/{bundle.name}"
    assert (bundle / CARD_FILE).is_file()
    assert manifest.provenance.data
    assert all(source.license and source.attribution for source in manifest.provenance.data)
    assert all(measurement.command for measurement in manifest.measured)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: (b / MODEL_FILE).unlink(), "has no model.onnx"),
        (lambda b: (b / GOLDEN_FILE).unlink(), "has no golden.npz"),
        (lambda b: (b / MANIFEST_FILE).unlink(), "has no manifest.json"),
        (lambda b: flip_a_byte(b / MODEL_FILE), "damaged or was replaced"),
        (lambda b: flip_a_byte(b / GOLDEN_FILE), "damaged or was replaced"),
        (lambda b: (b / MANIFEST_FILE).write_text("{"), "does not match schema 1"),
        (lambda b: edit_manifest(b, schema_version=2), "schema_version"),
        (lambda b: edit_manifest(b, colour="red"), "colour"),
        (lambda b: change_golden(b, lambda g: g.update(embedding=g["embedding"][:, ::-1])), "embedding differs by"),
        (lambda b: change_golden(b, lambda g: g.update(embedding=g["embedding"][:, 1:])), "of shape"),
        (lambda b: change_golden(b, lambda g: g.update(logmel=g["logmel"] * np.nan)), "logmel differs by nan"),
        (lambda b: change_golden(b, lambda g: g.pop("logmel")), "golden.npz has no logmel"),
        (lambda b: change_golden(b, lambda g: g.pop("waveform")), "golden.npz has no waveform"),
        (lambda b: edit_manifest(b, outputs=[]), "outputs are none; embedding is required"),
        (
            lambda b: edit_output(b, "frames", name="embedding"),
            "names must be unique",
        ),
        (lambda b: edit_output(b, "embedding", normalized=False), "it must be .batch, a number. and normalized"),
        (lambda b: edit_output(b, "embedding", dims=["batch", "dim"]), "it must be .batch, a number. and normalized"),
        (lambda b: edit_output(b, "embedding", dims=["batch", 2047]), r"of shape \(2, 2048\), but its manifest has"),
        (
            lambda b: edit_output(b, "frames", dims=["batch", "time", 256]),
            "frames of shape .* its manifest has",
        ),
    ],
)
def test_a_bundle_that_does_not_match_its_manifest_is_refused(copy: Path, spoil: Change, message: str) -> None:
    spoil(copy)
    with pytest.raises(BundleError, match=message):
        Encoder(copy, Device.CPU)


def test_embeddings_without_unit_norm_are_refused(copy: Path) -> None:
    model = onnx.load(str(copy / MODEL_FILE))
    for node in model.graph.node:
        node.output[:] = ["unit" if name == "embedding" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Add", ["unit", "unit"], ["embedding"]))
    onnx.save(model, str(copy / MODEL_FILE))
    edit_manifest(copy, model_sha256=file_sha256(copy / MODEL_FILE))
    change_golden(copy, lambda golden: golden.update(embedding=2 * golden["embedding"]))
    with pytest.raises(
        BundleError, match="embeddings that cannot be compared: expected unit vectors, got norms from 2"
    ):
        Encoder(copy, Device.CPU)


@pytest.mark.parametrize("device", [Device.CUDA, Device.TENSORRT])
def test_an_unavailable_device_is_refused_with_the_reason(bundle: Path, tmp_path: Path, device: Device) -> None:
    if Encoder(bundle, Device.AUTO).provider == "CUDAExecutionProvider":
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match=f"OFFKEY_DEVICE={device.value}.*OFFKEY_DEVICE=cpu") as refused:
        Encoder(bundle, device, engines=tmp_path)
    assert "CUDA" in str(refused.value)


def test_auto_uses_an_available_device(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = Encoder(bundle, Device.AUTO)
    assert encoder.provider in {"CPUExecutionProvider", "CUDAExecutionProvider"}
    assert "rror" not in capfd.readouterr().err  # a missing GPU is not logged as an error


def test_embeddings_are_unit_vectors_and_independent_of_other_clips(bundle: Path) -> None:
    encoder = Encoder(bundle, Device.CPU)
    rate, window = encoder.sample_rate, encoder.manifest.window
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round((window.seconds * 2) * rate)).astype(np.float32)
    vectors, starts, *_ = encoder.embed(noise)
    alone, *_ = encoder.embed(noise[: round(window.seconds * rate)])
    assert vectors.shape == (len(starts), encoder.manifest.dim)
    assert starts[0] == 0.0
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(vectors[0], alone[0], atol=1e-5)


def test_the_shortest_clip_is_embedded_and_a_shorter_one_refused(bundle: Path) -> None:
    encoder = Encoder(bundle, Device.CPU)
    shortest = round(encoder.manifest.window.min_seconds * encoder.sample_rate)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, shortest).astype(np.float32)
    vectors, *_ = encoder.embed(noise)
    assert len(vectors) == 1
    with pytest.raises(OffkeyError) as refused:
        encoder.embed(noise[:-1])
    assert refused.value.kind is ErrorKind.CLIP_TOO_SHORT


@pytest.mark.parametrize("level", [1e-4, 1.0, 100.0])
def test_any_accepted_level_gives_finite_embeddings(bundle: Path, level: float) -> None:
    encoder = Encoder(bundle, Device.CPU)
    noise = np.random.default_rng(0).uniform(-level, level, 3 * encoder.sample_rate).astype(np.float32)
    impulse = np.zeros_like(noise)
    impulse[1_000] = level
    for samples in (noise, impulse, np.sign(noise) * np.float32(level)):
        vectors, *_ = encoder.embed(samples)
        assert np.isfinite(vectors).all()


@pytest.mark.parametrize("hertz", [150.0, 440.0, 1_000.0, 3_000.0, 7_000.0])
def test_a_tone_is_in_the_band_of_its_frequency(bundle: Path, hertz: float) -> None:
    encoder = Encoder(bundle, Device.CPU)
    rate = encoder.sample_rate
    time = np.arange(2 * rate) / rate
    tone = 0.1 * np.sin(2 * np.pi * hertz * time) + 1e-4 * np.random.default_rng(0).standard_normal(len(time))
    (spectrogram,) = encoder.embed(tone.astype(np.float32)).spectrograms
    edges = encoder.band_edges_hz
    assert edges is not None
    assert spectrogram.shape == (4, len(edges) - 1)
    assert (edges[0], edges[-1]) == (pytest.approx(8.4, abs=1), encoder.manifest.input.limit_hz)
    loudest = int(spectrogram.mean(axis=0).argmax())
    width = edges[loudest + 1] - edges[loudest]
    assert edges[loudest] - 0.2 * width <= hertz <= edges[loudest + 1] + 0.2 * width


@pytest.mark.parametrize("centers", [[100.0], [50.0] * 101, list(range(101)), list(range(200, 99, -1))])
def test_impossible_band_centers_are_refused(copy: Path, centers: list[float]) -> None:
    outputs = json.loads((copy / MANIFEST_FILE).read_text())["outputs"]
    outputs[2]["centers_hz"] = centers
    edit_manifest(copy, outputs=outputs)
    with pytest.raises(BundleError, match="logmel has 101 bands; centers_hz must be as many"):
        load_manifest(copy)
