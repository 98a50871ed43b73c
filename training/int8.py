"""Quantizes a transformer's linear layers to 8-bit integers, and measures the cost in AUC."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from service.encoder.bundle import Golden, Measurement, WindowSpec, file_sha256
from training.config import WindowConfig
from training.graph import ExportError, Graph, golden_waveforms, open_graph, relative_difference, save_golden
from training.separation import Machine, Separation, read_machines, read_windows, separation

# A difference in the last digit moves some activations to the next of 256 steps, which changes an output by up to 4e-3
# of its largest value (BEATs with 6 layers).
TOLERANCE = 0.02
COST = 0.01  # default limit of the decrease of mean AUC or pAUC
_LAST_DIGIT = 1e-6
_ROUNDS = 7  # timing rounds; the first one is a warm-up


@dataclass(frozen=True)
class Int8:
    """Options of an int8 bundle."""

    tree: Path  # machines in DCASE layout on which the cost is measured
    cost: float = COST  # largest accepted decrease of mean AUC or mean pAUC


def quantize(graph: Graph, source: Path, target: Path, encoder: str) -> Graph:
    """Write `source` with its encoder's linear layers in 8-bit integers, everything else in float32; return the graph.

    Weights have 7 bits, so that the sum of two products fits the 16 bits in which some processors add them, and all
    processors compute the same integers. Activations are quantized dynamically, by the range of the whole batch.

    Raises:
        ExportError: more of the weights are in convolutions than in linear layers.
    """
    model = onnx.load(str(source))
    _require_transformer(model, graph.linear, encoder)
    add_pre_process_metadata(model)  # shapes are inferred and constants folded already
    quantize_dynamic(
        model,
        target,
        op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_quantize=list(graph.linear),
        weight_type=QuantType.QInt8,
        reduce_range=True,
    )
    return Graph(file_sha256(target), graph.opset)


def _require_transformer(model: onnx.ModelProto, linear: tuple[str, ...], encoder: str) -> None:
    sizes = {value.name: int(np.prod(value.dims)) for value in model.graph.initializer}

    def held(wanted: Callable[[onnx.NodeProto], bool]) -> int:
        return sum(sizes.get(node.input[1], 0) for node in model.graph.node if wanted(node))

    products, convolutions = held(lambda node: node.name in linear), held(lambda node: node.op_type == "Conv")
    if products <= convolutions:
        raise ExportError(
            f"There is no int8 bundle of {encoder}: of the weights that are used, {convolutions:,} are in convolutions "
            f"and {products:,} in linear layers. ONNX Runtime's dynamic int8 convolution was measured 8 times slower "
            "than float32. Export it without --int8."
        )


def write_int8_golden(model: Path, path: Path, sample_rate: int, window: WindowConfig) -> Golden:
    """Write golden vectors of the int8 graph itself, because no PyTorch graph has equal outputs.

    Raises:
        ExportError: rounding changes the outputs so much that another processor might refuse the bundle.
    """
    session = open_graph(model)
    waveform = golden_waveforms(sample_rate, window)
    outputs = session.run(None, {"waveform": waveform})
    noise = np.random.default_rng(0).standard_normal(waveform.shape)
    shaken = session.run(None, {"waveform": (waveform * (1 + _LAST_DIGIT * noise)).astype(np.float32)})
    moved = max(map(relative_difference, outputs, shaken))
    if not moved <= TOLERANCE / 2:
        raise ExportError(
            f"The outputs of the int8 graph are not stable: noise of {_LAST_DIGIT:g} moves them by {moved:.1e}, and "
            f"{TOLERANCE / 2:g} is allowed, so that other processors can verify it. Export it without --int8."
        )
    return save_golden(path, waveform, outputs, TOLERANCE)


@dataclass(frozen=True)
class Comparison:
    """Results of a float32 graph and its int8 graph on the same machines and the same thread."""

    separations: Mapping[str, Mapping[str, Separation]]  # areas by graph and machine
    milliseconds: Mapping[str, float]  # time per window, by graph
    megabytes: Mapping[str, float]  # size of the file, by graph
    distance: float  # largest cosine distance between both embeddings of a window

    def mean(self, graph: str, area: str) -> float:
        """Compute the mean of `auc` or `pauc` over machines."""
        values: list[float] = [getattr(found, area) for found in self.separations[graph].values()]
        return statistics.mean(values)

    @property
    def cost(self) -> float:
        """Larger decrease of mean AUC and mean pAUC; negative if int8 is better."""
        return max(self.mean("float32", area) - self.mean("int8", area) for area in ("auc", "pauc"))

    def figures(self, window: WindowSpec, command: str) -> tuple[Measurement, ...]:
        """List the figures for the manifest and the card."""
        rows: list[tuple[str, float]] = []
        for graph, machines in self.separations.items():
            for area, title in (("auc", "AUC"), ("pauc", "pAUC")):
                rows.append((f"{graph}: {title}, mean over machines", self.mean(graph, area)))
                rows += [(f"{graph}: {title}, {name}", getattr(found, area)) for name, found in machines.items()]
        rows.append(("int8: largest cosine distance to float32", self.distance))
        for graph in self.separations:
            rows.append((f"{graph}: ms per window of {window.seconds:g} s, one CPU thread", self.milliseconds[graph]))
            rows.append((f"{graph}: model.onnx, MB", self.megabytes[graph]))
        return tuple(Measurement(name=name, value=float(f"{value:.4g}"), command=command) for name, value in rows)


def compare(
    graphs: Mapping[str, Path], tree: Path, window: WindowSpec, sample_rate: int, progress: Callable[[int, int], None]
) -> Comparison:
    """Score every machine of a tree with both graphs.

    Args:
        graphs: graphs `float32` and `int8`.
        tree: machines in DCASE layout.
        window: length and hop of the windows.
        sample_rate: sample rate of both graphs, in Hz.
        progress: callback with the number of compared clips and the total.

    Raises:
        DataError: the tree or a clip cannot be used.
    """
    machines = read_machines(tree)
    total = sum(len(machine.clips) for machine in machines)
    sessions = {name: open_graph(path) for name, path in graphs.items()}
    found: dict[str, dict[str, Separation]] = {name: {} for name in graphs}
    distances, done = [], 0
    for machine in machines:
        embedded: dict[str, list[NDArray[np.float32]]] = {name: [] for name in graphs}
        for clip in machine.clips:
            windows = read_windows(clip, window, sample_rate)
            for name, session in sessions.items():
                embedded[name].append(np.concatenate([_embed(session, part) for part in windows]))
            one, other = (clips[-1] for clips in embedded.values())
            distances.append(float((1 - (one * other).sum(axis=1)).max()))
            progress(done := done + 1, total)
        for name, clips in embedded.items():
            found[name][machine.name] = _separate(machine, clips)
    megabytes = {name: path.stat().st_size / 1e6 for name, path in graphs.items()}
    return Comparison(found, _time(sessions, round(window.seconds * sample_rate)), megabytes, max(distances))


def _embed(session: onnxruntime.InferenceSession, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embed one window, `(samples,)` to `(1, dim)`: int8 quantizes a batch as a whole, so batches are of one."""
    row: NDArray[np.float32] = session.run(["embedding"], {"waveform": samples[None]})[0]
    return row


def _separate(machine: Machine, clips: list[NDArray[np.float32]]) -> Separation:
    first, second = len(machine.bank), len(machine.bank) + len(machine.normal)
    return separation(clips[:first], clips[first:second], clips[second:])


def _time(sessions: Mapping[str, onnxruntime.InferenceSession], samples: int) -> dict[str, float]:
    """Measure median milliseconds per window; the graphs alternate, so that other load affects both equally."""
    spent: dict[str, list[float]] = {name: [] for name in sessions}
    noise = 0.1 * np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    for _ in range(_ROUNDS):
        for name, session in sessions.items():
            begin = time.perf_counter()
            _embed(session, noise)
            spent[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}
