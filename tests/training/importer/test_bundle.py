"""An ONNX encoder of somebody else's becomes a bundle that is served, or is refused with the reason."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from typer.testing import CliRunner

from service.app import create_app
from service.encoder.bundle import WindowSpec, load_manifest
from service.encoder.encoder import Encoder
from service.settings import Device, Settings
from service.usecases.service import Service
from training.cli import app
from training.graph import ExportError, synthetic_waveforms
from training.importer.bundle import ImportRequest, import_bundle
from training.importer.checks import Findings
from training.importer.source import LARGEST_MODEL

Sketch = Any  # of conftest.py
DIM = 8
WINDOW = WindowSpec(seconds=2.0, hop_seconds=1.0, min_seconds=0.2)


class Importer:
    """Imports the sketch as it is now."""

    def __init__(self, saved: Callable[[], Path], models: Path) -> None:
        self.saved = saved
        self.models = models

    def __call__(self, window: WindowSpec = WINDOW, **changes: object) -> tuple[Path, Findings]:
        request = {"name": "theirs", "version": "1", "sample_rate": 16_000, "license": "MIT", "attribution": "Them"}
        request |= {"window": window, **changes}
        return import_bundle(ImportRequest(self.saved(), **request), self.models)  # type: ignore[arg-type]


@pytest.fixture
def imported(saved: Callable[[], Path], tmp_path: Path) -> Importer:
    return Importer(saved, tmp_path / "models")


def run(model: Path, waveform: np.ndarray, name: str = "waveform") -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {name: waveform}), strict=True))


def test_an_imported_encoder_enrolls_scores_and_localizes(
    saved: Callable[[], Path], tmp_path: Path, fan: Callable[..., bytes]
) -> None:
    license_file = tmp_path / "terms.txt"
    license_file.write_text("Do as you like.\n")
    words = ["bundle", "import", str(saved()), "--name", "theirs", "--sample-rate", "16000", "--seconds", "3"]
    words += ["--hop-seconds", "1.5", "--license", "MIT", "--attribution", "Their Lab, https://example.org"]
    words += ["--license-file", str(license_file), "--models", str(tmp_path / "models")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    bundle = Path(done.stdout.strip())
    assert bundle == tmp_path / "models" / "theirs" / "1"
    assert sorted(path.name for path in bundle.iterdir()) == [
        *("ATTRIBUTION.csv", "CARD.md", "LICENSE", "golden.npz", "manifest.json", "model.onnx")
    ]
    assert [path.name for path in bundle.parent.iterdir()] == ["1"]
    manifest = load_manifest(bundle)
    assert manifest.measured[0].command.startswith("offkey bundle import ")
    assert manifest.provenance.encoder == "their-encoder.onnx"
    card = (bundle / "CARD.md").read_text()
    assert "Their Lab, https://example.org, MIT license (its text is in this folder)" in card
    assert (bundle / "LICENSE").read_text() == "Do as you like.\n"
    with (bundle / "ATTRIBUTION.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["clip"], row["license"], row["source"]) == (
        "their-encoder.onnx",
        "MIT",
        "Their Lab, https://example.org",
    )

    with TestClient(create_app(Service.open(Settings(data_dir=tmp_path / "data", bundle=bundle)))) as api:
        assert api.put("/machines/fan-1").status_code == 201
        files = [("clips", (f"{number}.wav", fan(number))) for number in range(6)]
        enrolled = api.post("/enroll", params={"machine_id": "fan-1"}, files=files)
        assert enrolled.status_code == 201, enrolled.text
        answer = api.post("/score", params={"machine_id": "fan-1"}, content=fan(9, severity=1.0))
        assert answer.status_code == 200, answer.text
        assert isinstance(answer.json()["clips"][0]["anomaly_score"], float)
        assert answer.json()["localization_note"] is None
        assert answer.json()["clips"][0]["windows"][0]["localization"]["regions"] is not None
        assert api.get("/info").json()["bundle"] == "theirs/1"


@pytest.mark.parametrize("opset", [8, 13, 18, 21])
def test_the_embedding_is_theirs_at_unit_norm_in_every_opset(opset: int, sketch: Sketch, imported: Importer) -> None:
    sketch.opset = opset
    bundle, _ = imported()
    waveform = synthetic_waveforms(3, 20_000, 16_000)
    theirs = run(imported.saved(), waveform, "audio")["pooled"]
    ours = run(bundle / "model.onnx", waveform)
    assert list(ours) == ["embedding", "logmel"]
    expected = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(ours["embedding"], expected, atol=1e-6)
    assert load_manifest(bundle).opset == opset


def test_names_that_the_contract_uses_may_mean_something_else_in_the_model(sketch: Sketch, imported: Importer) -> None:
    for old, new in (("audio", "embedding"), ("rows", "logmel"), ("magnitudes", "waveform")):
        sketch.rename(old, new)
    bundle, _ = imported()
    waveform = synthetic_waveforms(2, 20_000, 16_000)
    theirs = run(imported.saved(), waveform, "embedding")["pooled"]
    expected = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(run(bundle / "model.onnx", waveform)["embedding"], expected, atol=1e-6)


def test_a_branch_inside_the_model_keeps_its_names(sketch: Sketch, imported: Importer) -> None:
    """Both branches use a weight of the outer graph, and one a value with a name of the contract."""
    sketch.weights |= {"yes": np.array(True), "waveform": np.full((1, DIM), 2, np.float32)}
    branches = {}
    for branch, kind in (("then_branch", "Mul"), ("else_branch", "Add")):
        value = helper.make_tensor_value_info("embedding" if kind == "Mul" else "other", TensorProto.FLOAT, None)
        node = helper.make_node(kind, ["pooled", "waveform"], [value.name])
        branches[branch] = helper.make_graph([node], branch, [], [value])
    sketch.steps.append(("If", ["yes"], "chosen", branches))
    sketch.outputs = [("chosen", TensorProto.FLOAT, ["n", DIM])]
    bundle, _ = imported()
    waveform = synthetic_waveforms(2, 20_000, 16_000)
    theirs = run(imported.saved(), waveform, "audio")["chosen"]
    expected = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(run(bundle / "model.onnx", waveform)["embedding"], expected, atol=1e-6)


def test_of_several_outputs_the_one_that_can_be_is_taken_or_named(sketch: Sketch, imported: Importer) -> None:
    sketch.outputs.append(("magnitudes", TensorProto.FLOAT, ["n", DIM, "frames"]))
    bundle, _ = imported(version="1")
    assert load_manifest(bundle).dim == DIM
    sketch.weights["last"] = np.ones((DIM, 5), np.float32) + np.eye(DIM, 5, dtype=np.float32)
    sketch.steps.append(("MatMul", ["pooled", "last"], "projected", {}))
    sketch.outputs.append(("projected", TensorProto.FLOAT, ["n", 5]))
    with pytest.raises(ExportError, match=r"2 outputs that can be .*: pooled \(n, 8\), magnitudes .*: --embedding"):
        imported(version="2")
    bundle, _ = imported(version="2", embedding="projected")
    manifest = load_manifest(bundle)
    assert manifest.dim == 5
    assert "--embedding projected" in manifest.measured[0].command
    with pytest.raises(ExportError, match=r"has no output absent\. Its outputs: pooled"):
        imported(version="3", embedding="absent")


def test_functions_inside_the_model_are_written_out(sketch: Sketch, imported: Importer) -> None:
    """Newer exporters of PyTorch leave their own operators in as functions of the model."""
    sketch.domains = [("their.functions", 1)]
    sketch.then("Twice", None, "twice", domain="their.functions")
    model = sketch.model()
    body = [helper.make_node("Add", ["x", "x"], ["y"])]
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("their.functions", "Twice", ["x"], ["y"], body, opsets))
    path = imported.models.parent / "functions.onnx"
    onnx.save(model, str(path))
    imported.saved = lambda: path
    bundle, _ = imported()
    assert Encoder(bundle, Device.CPU).manifest.dim == DIM


def test_a_graph_that_has_the_contract_already_stays_what_it_is(bundle: Path, imported: Importer) -> None:
    imported.saved = lambda: bundle / "model.onnx"
    again, findings = imported(window=load_manifest(bundle).window)
    clip = synthetic_waveforms(1, 32_000, 16_000)[0]
    before, after = (Encoder(one, Device.CPU).embed(clip)[0] for one in (bundle, again))
    np.testing.assert_allclose(before, after, atol=1e-6)
    assert findings.gain < 1e-5, "a student removes the level"


def test_the_level_is_reported_and_can_be_removed(sketch: Sketch, imported: Importer) -> None:
    bundle, findings = imported(version="1")
    assert not findings.level_leaks
    assert findings.gain < 1e-5
    assert "hardly matters" in (bundle / "CARD.md").read_text()

    sketch.weights["bias"] = np.linspace(0.01, 0.3, DIM, dtype=np.float32)[None]
    sketch.then("Add", "bias", "biased")
    bundle, findings = imported(version="2")
    assert findings.level_leaks
    assert "**The level leaks into the embedding**" in (bundle / "CARD.md").read_text()
    quiet, loud = (Encoder(bundle, Device.CPU).embed(one)[0] for one in _twice())
    assert 1 - float(quiet[0] @ loud[0]) > 1e-3

    bundle, findings = imported(version="3", remove_level=True)
    assert findings.gain < 1e-5
    assert "same level before the encoder" in (bundle / "CARD.md").read_text()
    quiet, loud = (Encoder(bundle, Device.CPU).embed(one)[0] for one in _twice())
    assert 1 - float(quiet[0] @ loud[0]) < 1e-5


def _twice() -> tuple[np.ndarray, np.ndarray]:
    clip = synthetic_waveforms(1, 32_000, 16_000)[0]
    return clip, 4 * clip + np.float32(0.01)


def test_a_leak_is_noted_on_the_command_line(sketch: Sketch, saved: Callable[[], Path], tmp_path: Path) -> None:
    sketch.weights["bias"] = np.linspace(0.01, 0.3, DIM, dtype=np.float32)[None]
    sketch.then("Add", "bias", "biased")
    words = ["bundle", "import", str(saved()), "--name", "theirs", "--sample-rate", "16000", "--license", "MIT"]
    words += ["--attribution", "Them", "--models", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "note: the level of a clip leaks" in done.stderr


def _axis(name: str, *dims: object, kind: int = TensorProto.FLOAT) -> tuple[object, ...]:
    return name, kind, list(dims)


def _fixed(sketch: Sketch, row: list[int], flat: list[int]) -> None:
    sketch.weights |= {"row": np.array(row), "flat": np.array(flat)}


def _custom(sketch: Sketch) -> None:
    sketch.domains = [("their.ops", 1)]
    sketch.then("Sharpen", None, "sharp", domain="their.ops")


def _mates(sketch: Sketch) -> None:
    sketch.then("ReduceMean", None, "mean", axes=[0], keepdims=1)
    sketch.steps.append(("Add", ["pooled", "mean"], "mixed", {}))
    sketch.outputs = [_axis("mixed", "n", DIM)]


def _nan(sketch: Sketch) -> None:
    sketch.weights["one"] = np.array(1, np.float32)
    sketch.then("Sub", "one", "below").then("Log", None, "logs")


def _no_floor(sketch: Sketch) -> None:
    sketch.then("Log", None, "logs")


def _constant(sketch: Sketch) -> None:
    sketch.weights |= {"nothing": np.array(0, np.float32), "bias": np.ones((1, DIM), np.float32)}
    sketch.then("Mul", "nothing", "zeros").then("Add", "bias", "constant")


def _random(sketch: Sketch) -> None:
    sketch.then("RandomNormalLike", None, "noise", scale=0.1)
    sketch.steps.append(("Add", ["pooled", "noise"], "noisy", {}))
    sketch.outputs = [_axis("noisy", "n", DIM)]


def _steps(sketch: Sketch) -> None:
    """A staircase: the last digit of the input decides between values far apart."""
    sketch.weights["steep"] = np.array(1e9, np.float32)
    sketch.then("Mul", "steep", "steep_ones").then("Sin", None, "wild")


def _huge(sketch: Sketch) -> None:
    sketch.weights["large"] = np.array(1e30, np.float32)
    sketch.then("Mul", "large", "huge")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda s: setattr(s, "inputs", [_axis("audio", 1, "t")]),
            r"audio .* is \(1, t\): its batch axis is fixed to 1",
        ),
        (lambda s: setattr(s, "inputs", [_axis("audio", "n", 16_000)]), "its samples axis is fixed to 16000"),
        (
            lambda s: setattr(s, "inputs", [_axis("audio", "n", 1, "t")]),
            r"is \(n, 1, t\); it must be \(batch, samples\)",
        ),
        (lambda s: setattr(s, "inputs", [_axis("audio", "n", "t", kind=TensorProto.DOUBLE)]), "is float64; it must be"),
        (lambda s: s.inputs.append(_axis("mask", "n", "t")), r"has 2 inputs \(audio, mask\)"),
        (lambda s: _fixed(s, [1, 1, -1], [0, -1]), r"is float32 \(1, 8\) for 2 clips; an embedding is float32 \(2"),
        (lambda s: _fixed(s, [-1, 1, 3200], [0, -1]), "does not run on a waveform of shape .*dynamic axes"),
        (
            lambda s: setattr(s, "outputs", [_axis("magnitudes", "n", DIM, "f")]),
            "has 0 outputs that can be an embedding",
        ),
        (
            lambda s: setattr(s, "outputs", [_axis("magnitudes", "n", DIM)]),
            r"float32 \(2, 8, 18\) for 2 clips",
        ),
        (_custom, "needs the custom operators their.ops.Sharpen"),
        (_mates, "changes by .* with the clips in its batch; 0.0001 is allowed"),
        (_nan, "embedding has NaN or infinite values for a batch of 1, 0.2 s each"),
        (_no_floor, "embedding has NaN or infinite values for silence"),
        (_constant, r"nearly the same embedding for different sounds \(cosine distance"),
        (_random, "other embeddings for the same clips when it runs again"),
        (_steps, "moves the outputs by"),
        (_huge, "cannot be brought to unit norm"),
        (lambda s: setattr(s, "opset", 7), "has opset 7; the oldest supported one is 8"),
        (lambda s: s.then("NoSuchOperator", None, "odd"), "ONNX Runtime cannot load the model: .*NoSuchOperator"),
    ],
)
def test_what_is_no_encoder_is_refused_and_leaves_nothing(
    spoil: Callable[[Sketch], object], message: str, sketch: Sketch, imported: Importer
) -> None:
    spoil(sketch)
    with pytest.raises(ExportError, match=message):
        imported()
    left = [path for path in imported.models.rglob("*") if path.is_file() or path.name.startswith(".")]
    assert left == []


def test_weights_in_other_files_are_refused(sketch: Sketch, tmp_path: Path, imported: Importer) -> None:
    path = tmp_path / "split.onnx"
    onnx.save(sketch.model(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    imported.saved = lambda: path
    with pytest.raises(ExportError, match=r"keeps .* tensors in other files"):
        imported()


def test_what_is_no_onnx_file_is_refused(tmp_path: Path, imported: Importer) -> None:
    path = tmp_path / "their-encoder.onnx"
    imported.saved = lambda: path
    with pytest.raises(ExportError, match="There is no file"):
        imported()
    for content in (b"", b"\x08\x08", b"PK\x03\x04 a zip of pickles", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(ExportError, match="is not an ONNX model"):
            imported()
    with path.open("wb") as file:
        file.truncate(LARGEST_MODEL + 1)
    with pytest.raises(ExportError, match="1 GiB is the maximum"):
        imported()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Theirs"}, "--name is 'Theirs'"),
        ({"name": "../theirs"}, "--name is"),
        ({"version": "v1"}, "--version is 'v1'"),
        ({"sample_rate": 0}, "--sample-rate is 0"),
        ({"license": " "}, "--license and --attribution"),
        ({"attribution": ""}, "--license and --attribution"),
        ({"window": WindowSpec(seconds=2, hop_seconds=3, min_seconds=1)}, "--hop-seconds is 3, more than --seconds"),
        ({"window": WindowSpec(seconds=2, hop_seconds=1, min_seconds=3)}, "--min-seconds is 3"),
        ({"window": WindowSpec(seconds=2, hop_seconds=1, min_seconds=0.01)}, "from 0.032 to --seconds, 2"),
        ({"window": WindowSpec(seconds=200, hop_seconds=1, min_seconds=1)}, "--seconds is 200"),
        ({"license_file": Path("absent")}, "There is no file absent"),
    ],
)
def test_settings_are_checked_first(changes: dict[str, object], message: str, imported: Importer) -> None:
    with pytest.raises(ExportError, match=message):
        imported(**changes)
    assert not imported.models.exists()


def test_a_bundle_is_never_replaced(imported: Importer) -> None:
    bundle, _ = imported()
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(ExportError, match="exists"):
        imported()
    assert (bundle / "manifest.json").read_bytes() == before


def test_what_is_cut_short_leaves_nothing(imported: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.importer.bundle.credits_text", full)
    with pytest.raises(OSError, match="No space left"):
        imported()
    assert list((imported.models / "theirs").iterdir()) == []


def test_figures_say_what_was_measured(imported: Importer) -> None:
    bundle, findings = imported()
    measured = json.loads((bundle / "manifest.json").read_text())["measured"]
    assert [figure["value"] for figure in measured] == [
        float(f"{value:.4g}") for value in (findings.gain, findings.sounds, findings.milliseconds)
    ]
    assert findings.tolerance == 1e-4
    assert findings.sounds > 1e-3
