"""From a run to a model bundle, checked against PyTorch before anything is written."""

import json
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.manifest import (
    CARD_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    DataSource,
    Golden,
    InputSpec,
    Manifest,
    Measurement,
    OutputSpec,
    Provenance,
    Readout,
    WindowSpec,
    file_sha256,
)
from training.build import load_trained
from training.card import attribution_csv, card
from training.config import Config
from training.data.catalog import Clip
from training.run import Run, git_revision
from training.sounds import read_catalog
from training.student import Outputs, Student

ATTRIBUTION_FILE = "ATTRIBUTION.csv"
TOLERANCE = 1e-4
_GOLDEN_SECONDS = 2.0
_BATCHES = (1, 3)
_PLACEHOLDER = "output."  # before the names of outputs while the graph is traced
_AXES = (("batch",), ("batch", "time"), ("batch", "frames"))  # dynamic axes of `Outputs`


class ExportError(Exception):
    """A bundle was not written, and nothing of it is left behind."""


def export_run(
    run: Run, name: str, version: str, models: Path, *, measured: Path | None = None, replace: bool = False
) -> Path:
    """Write `<models>/<name>/<version>/` from a run's newest checkpoint.

    Args:
        run: what `offkey train` made.
        name: of the bundle, lower-case letters, digits and hyphens.
        version: of the bundle, digits.
        models: folder of bundles.
        measured: JSON file with `figures`, a list of name, value and command, for the card.
        replace: put the bundle in the place of one that is there.

    Raises:
        ExportError: the ONNX model does not agree with PyTorch, or a bundle is already there.
        RunError, ConfigError, CheckpointError, DataError: the run is not complete.
    """
    folder = models / name / version
    if folder.exists() and not replace:
        raise ExportError(f"{folder} is already there. Give another --version, or --replace.")
    config = run.config
    student, steps = load_trained(run)
    heard = set(run.about["clips"])
    clips = [clip for clip in read_catalog(config).clips if clip.name in heard]
    figures = _measurements(measured)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    try:
        temporary.chmod(0o755)
        graph = write_graph(student, temporary / MODEL_FILE)
        check_parity(student, temporary / MODEL_FILE, config)
        golden = write_golden(student, temporary / GOLDEN_FILE, config)
        manifest = _manifest(name, version, student, config, steps, graph, golden, clips, figures)
        (temporary / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (temporary / CARD_FILE).write_text(card(manifest), encoding="utf-8")
        (temporary / ATTRIBUTION_FILE).write_text(attribution_csv(clips), encoding="utf-8")
        for path in _licenses(config):
            shutil.copyfile(path, temporary / path.name)
        _put(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


@dataclass(frozen=True)
class Graph:
    """An ONNX file as it was written."""

    sha256: str
    opset: int


def write_graph(student: nn.Module, path: Path) -> Graph:
    """Trace a student and write it as one ONNX file, with batch and samples dynamic."""
    example = torch.zeros(2, 16_000)
    example[:, ::7] = 0.1
    with warnings.catch_warnings():
        # The exporter warns of its own use of deprecated parts of torch.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            student,
            (example,),
            dynamo=True,
            input_names=["waveform"],
            output_names=[_PLACEHOLDER + name for name in Outputs._fields],
            dynamic_shapes={"waveform": {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=400)}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("The exporter gave no model.")
    model = program.model_proto
    # Notes of the exporter's own (source lines, node names) are no part of a model and vary between processes.
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    _name_outputs(model.graph)
    for output, axes in zip(model.graph.output, _AXES, strict=True):
        # The exporter names a dynamic axis by the formula of its length.
        for dim, axis in zip(output.type.tensor_type.shape.dim, axes, strict=False):
            dim.dim_param = axis
    onnx.save(model, str(path))
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return Graph(file_sha256(path), opset)


def _name_outputs(graph: onnx.GraphProto) -> None:
    """Give the outputs their names; a value inside that has one of them already (BEATs: `embedding`) gives way."""
    renamed = {name: f"inner.{name}" for name in Outputs._fields}
    renamed |= {_PLACEHOLDER + name: name for name in Outputs._fields}
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]
    for value in (*graph.value_info, *graph.output):
        value.name = renamed.get(value.name, value.name)


def check_parity(student: Student, path: Path, config: Config) -> float:
    """Compare ONNX Runtime with PyTorch over batch sizes and lengths, the shortest included.

    Returns:
        The largest difference found, relative to the largest value of the output.

    Raises:
        ExportError: it is over `TOLERANCE`, or a clip's embedding hangs on its batch mates.
    """
    session = _session(path)
    rate, window = student.sample_rate, config.window
    lengths = [window.min_seconds, 1.37 * window.min_seconds, 0.5 * window.seconds, window.seconds]
    worst = 0.0
    for batch in _BATCHES:
        for seconds in lengths:
            waveform = synthetic_waveforms(batch, round(seconds * rate), rate)
            found = session.run(None, {"waveform": waveform})
            for name, here, there in zip(Outputs._fields, _outputs(student, waveform), found, strict=True):
                difference = relative_difference(here, there)
                if not difference <= TOLERANCE:
                    raise ExportError(
                        f"ONNX Runtime and PyTorch differ by {difference:.1e} in {name} for {batch} clips of "
                        f"{seconds:g} s; {TOLERANCE:g} is allowed. Nothing was written."
                    )
                worst = max(worst, difference)
            alone = session.run(None, {"waveform": waveform[:1]})
            if not relative_difference(found[0][:1], alone[0]) <= TOLERANCE:
                raise ExportError("The embedding of a clip changes with the clips beside it. Nothing was written.")
    return worst


def write_golden(student: Student, path: Path, config: Config) -> Golden:
    """Write what PyTorch gives for made-up waveforms; see `service.manifest.Golden`."""
    samples = round(max(_GOLDEN_SECONDS, config.window.min_seconds) * student.sample_rate)
    waveform = synthetic_waveforms(2, samples, student.sample_rate)
    outputs = dict(zip(Outputs._fields, _outputs(student, waveform), strict=True))
    np.savez_compressed(path, waveform=waveform, **outputs)  # type: ignore[arg-type]
    return Golden(sha256=file_sha256(path), tolerance=TOLERANCE)


def synthetic_waveforms(batch: int, samples: int, sample_rate: int) -> NDArray[np.float32]:
    """Synthetic clips `(batch, samples)`: each a hum with harmonics, a sweep and noise, none like another."""
    time = np.arange(samples) / sample_rate
    rows = []
    for row in range(batch):
        rng = np.random.default_rng(row)
        hum = sum(np.sin(2 * np.pi * (43 + 11 * row) * k * time + k) / k for k in range(1, 9))
        sweep = np.sin(2 * np.pi * (200 + 60 * row) * time * (1 + time))
        rows.append(0.05 * hum + 0.03 * sweep + 0.02 * (row + 1) * rng.standard_normal(samples))
    return np.stack(rows).astype(np.float32)


def relative_difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Largest difference over the largest value; infinite where shapes differ or a value is not finite."""
    if expected.shape != found.shape or not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return float("inf")
    return float(np.abs(expected - found).max() / max(float(np.abs(expected).max()), 1e-12))


def _outputs(student: nn.Module, waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        outputs: Iterable[Tensor] = student(torch.from_numpy(waveform))
    return [output.numpy() for output in outputs]


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _manifest(
    name: str,
    version: str,
    student: Student,
    config: Config,
    steps: int,
    graph: Graph,
    golden: Golden,
    clips: list[Clip],
    measured: tuple[Measurement, ...],
) -> Manifest:
    encoder, readout = student.encoder, config.readout
    deepest = student.readout.layers[-1]
    projection = (
        "none, unit norm"
        if readout.covariance == "none"
        else f"whitened, {readout.covariance} covariance of general audio, epsilon {readout.epsilon:g}, unit norm"
    )
    return Manifest(
        name=name,
        version=version,
        model_sha256=graph.sha256,
        opset=graph.opset,
        input=InputSpec(sample_rate=student.sample_rate, channels="mean"),
        window=WindowSpec(**vars(config.window)),
        outputs=(
            OutputSpec(name="embedding", dims=("batch", student.dim), normalized=True),
            OutputSpec(name="frames", dims=("batch", "time", *encoder.layer_shape(deepest)), normalized=False),
            OutputSpec(name="logmel", dims=("batch", "frames", encoder.front_end.bands), normalized=False),
        ),
        readout=Readout(
            layers=tuple(student.readout.layers), pooling=student.readout.pooling.name, projection=projection
        ),
        embedding_space_id=f"{name}/{version}-{graph.sha256[:12]}",
        provenance=Provenance(
            encoder=Path(config.encoder.checkpoint).stem,
            encoder_license=encoder.license,
            encoder_attribution=encoder.attribution,
            objective=config.objective.kind if steps else "none, frozen encoder",
            steps=steps,
            data=_sources(clips),
        ),
        measured=measured,
        golden=golden,
        git_revision=git_revision(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _sources(clips: list[Clip]) -> tuple[DataSource, ...]:
    counts = Counter((clip.set, clip.license, clip.source.partition(",")[0]) for clip in clips)
    return tuple(
        DataSource(name=name, clips=count, license=license_, attribution=f"{source}; clips in {ATTRIBUTION_FILE}")
        for (name, license_, source), count in sorted(counts.items())
    )


def _licenses(config: Config) -> list[Path]:
    """License texts that lie beside the checkpoint and travel with what was made from it."""
    return sorted(Path(config.encoder.checkpoint).parent.glob("LICENSE*"))


def _measurements(path: Path | None) -> tuple[Measurement, ...]:
    if path is None:
        return ()
    try:
        found: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["figures"]
        return tuple(Measurement(**figure) for figure in found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{path} holds no `figures` with name, value and command: {error}") from error


def _put(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".replaced-"))
    folder.rename(old / "bundle")
    try:
        temporary.rename(folder)
    except BaseException:
        (old / "bundle").rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
