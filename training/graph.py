"""Writes a student as an ONNX graph, and compares the graph with PyTorch."""

import ast
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.encoder.bundle import Golden, file_sha256
from training.config import WindowConfig
from training.student import Outputs, Student

TOLERANCE = 1e-4
_GOLDEN_SECONDS = 2.0
_BATCHES = (1, 3)
_PRODUCTS = ("MatMul", "Gemm")
_PLACEHOLDER = "output."  # prefix of output names during tracing
_AXES = (("batch",), ("batch", "time"), ("batch", "frames"))  # dynamic axes of `Outputs`


class ExportError(Exception):
    """A bundle could not be written; no partial bundle remains."""


@dataclass(frozen=True)
class Graph:
    """Facts about a written ONNX file."""

    sha256: str
    opset: int
    linear: tuple[str, ...] = ()  # nodes of the encoder's linear layers, without spectrum and whitening


def write_graph(student: Student, path: Path) -> Graph:
    """Trace a student and write it as one ONNX file with dynamic batch and samples."""
    example = torch.zeros(2, 16_000)
    example[:, ::7] = 0.1
    with warnings.catch_warnings():
        # The exporter itself uses deprecated parts of torch.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            student,
            (example,),
            dynamo=True,
            input_names=["waveform"],
            output_names=[_PLACEHOLDER + name for name in Outputs._fields],
            # No bounds, because they could conflict with bounds of an encoder, and then the export fails.
            dynamic_shapes={"waveform": {0: "batch", 1: "samples"}},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportError("The exporter returned no model.")
    model = program.model_proto
    linear = tuple(node.name for node in model.graph.node if _is_linear(node, student))
    # The exporter's metadata (source lines, node names) varies between processes.
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
    return Graph(file_sha256(path), opset, linear)


def _is_linear(node: onnx.NodeProto, student: Student) -> bool:
    """Return whether a node is an `nn.Linear` of the encoder; the exporter records modules, outermost first."""
    notes = {note.key: note.value for note in node.metadata_props}
    scopes = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "[]"))
    return node.op_type in _PRODUCTS and any(
        scope.startswith("encoder.") and isinstance(student.get_submodule(scope), nn.Linear) for scope in scopes[:-1]
    )


def _name_outputs(graph: onnx.GraphProto) -> None:
    """Name the outputs; an inner value with such a name (BEATs: `embedding`) is renamed."""
    renamed = {name: f"inner.{name}" for name in Outputs._fields}
    renamed |= {_PLACEHOLDER + name: name for name in Outputs._fields}
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(value, value) for value in values]
    for value in (*graph.value_info, *graph.output):
        value.name = renamed.get(value.name, value.name)


def check_parity(student: Student, path: Path, window: WindowConfig) -> float:
    """Compare ONNX Runtime with PyTorch for several batch sizes and lengths, including the shortest length.

    Returns:
        Largest difference, relative to the largest value of the output.

    Raises:
        ExportError: the difference exceeds `TOLERANCE`, or an embedding depends on other clips of its batch.
    """
    session = open_graph(path)
    rate = student.sample_rate
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
                raise ExportError(
                    "The embedding of a clip depends on the other clips of its batch. Nothing was written."
                )
    return worst


def write_golden(student: Student, path: Path, window: WindowConfig) -> Golden:
    """Write golden vectors: the outputs of PyTorch for synthetic waveforms, as in `service.encoder.bundle.Golden`."""
    waveform = golden_waveforms(student.sample_rate, window)
    return save_golden(path, waveform, _outputs(student, waveform), TOLERANCE)


def golden_waveforms(sample_rate: int, window: WindowConfig) -> NDArray[np.float32]:
    """Create two waveforms `(2, samples)`, at least as long as the shortest accepted clip."""
    return synthetic_waveforms(2, round(max(_GOLDEN_SECONDS, window.min_seconds) * sample_rate), sample_rate)


def save_golden(
    path: Path, waveform: NDArray[np.float32], outputs: Sequence[NDArray[np.float32]], tolerance: float
) -> Golden:
    """Write golden vectors: waveforms and their outputs."""
    named = dict(zip(Outputs._fields, outputs, strict=True))
    # For mypy, the dictionary could contain keyword arguments of the function.
    np.savez_compressed(path, waveform=waveform, **named)  # type: ignore[arg-type]
    return Golden(sha256=file_sha256(path), tolerance=tolerance)


def synthetic_waveforms(batch: int, samples: int, sample_rate: int) -> NDArray[np.float32]:
    """Create synthetic clips `(batch, samples)`: a different hum with harmonics, sweep and noise in each row."""
    time = np.arange(samples) / sample_rate
    rows = []
    for row in range(batch):
        rng = np.random.default_rng(row)
        hum = sum(np.sin(2 * np.pi * (43 + 11 * row) * k * time + k) / k for k in range(1, 9))
        sweep = np.sin(2 * np.pi * (200 + 60 * row) * time * (1 + time))
        rows.append(0.05 * hum + 0.03 * sweep + 0.02 * (row + 1) * rng.standard_normal(samples))
    return np.stack(rows).astype(np.float32)


def relative_difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Compute the largest difference over the largest value; infinite if shapes differ or a value is not finite."""
    if expected.shape != found.shape or not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return float("inf")
    return float(np.abs(expected - found).max() / max(float(np.abs(expected).max()), 1e-12))


def _outputs(student: Student, waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    with torch.inference_mode():
        outputs: Iterable[Tensor] = student(torch.from_numpy(waveform))
    return [output.numpy() for output in outputs]


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph in ONNX Runtime, on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
