"""Wraps a model in the contract of a bundle: input `waveform`, outputs `embedding` and `logmel`."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from training.importer.logmel import LogMel
from training.importer.source import Source, subgraphs
from training.student import LEVEL

_SILENCE = 1e-5  # smallest RMS that is amplified to the full level
_NUDGE = 1e-12  # added to the first value of an embedding, so that a zero embedding has a direction
_OLDEST_IR = 4  # first version in which weights need not be inputs
_LEVELED = "offkey/leveled"
_FLOAT = onnx.TensorProto.FLOAT


def wrap(source: Source, dim: int, logmel: LogMel, *, remove_level: bool) -> onnx.ModelProto:
    """Return a model with one input and two outputs.

    Args:
        source: model, which is not changed.
        dim: length of the embedding.
        logmel: front end of the output `logmel`.
        remove_level: whether waveforms are centered and scaled to an RMS of 0.1 before the model.

    Returns:
        Model from `waveform` `(batch, samples)` to `embedding` `(batch, dim)` of unit norm and `logmel`
        `(batch, frames, bands)`.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    graph = model.graph
    inner = {name: f"model/{name}" for name in ("waveform", "embedding", "logmel")}
    _rename(graph, inner)
    waveform, embedding = (inner.get(name, name) for name in (source.waveform, source.embedding))
    level, constants = _level()
    before = helper.make_node(
        "Reshape", [_LEVELED if remove_level else "waveform", "offkey/flat"], [waveform], name="offkey/input"
    )
    after, more = _unit_norm(embedding, dim)
    picture, weights = logmel.nodes(_LEVELED, "logmel")
    nodes = [*level, before, *graph.node, *after, *picture]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants, *more, *weights])
    graph.input.append(helper.make_tensor_value_info("waveform", _FLOAT, ["batch", "samples"]))
    graph.output.append(helper.make_tensor_value_info("embedding", _FLOAT, ["batch", dim]))
    bands = len(logmel.centers_hz)
    graph.output.append(helper.make_tensor_value_info("logmel", _FLOAT, ["batch", "frames", bands]))
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    return model


def _level() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes from `waveform` to `_LEVELED` `(batch, 1, samples)`, equal to `training.student.remove_level`."""
    constants = {  # a 0 in a target shape keeps the axis
        "offkey/row": np.array([0, 1, -1]),
        "offkey/flat": np.array([0, -1]),
        "offkey/silence": np.float32(_SILENCE),
        "offkey/level": np.float32(LEVEL),
    }
    steps = (
        ("Reshape", ("waveform", "row"), "rows"),
        ("GlobalAveragePool", ("rows",), "mean"),
        ("Sub", ("rows", "mean"), "centered"),
        ("Mul", ("centered", "centered"), "squared"),
        ("GlobalAveragePool", ("squared",), "power"),
        ("Sqrt", ("power",), "rms"),
        ("Max", ("rms", "silence"), "loudness"),
        ("Div", ("level", "loudness"), "gain"),
        ("Mul", ("centered", "gain"), "leveled"),
    )

    def own(name: str) -> str:
        return name if name == "waveform" else f"offkey/{name}"

    nodes = [helper.make_node(kind, [own(name) for name in names], [own(output)]) for kind, names, output in steps]
    return nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def _unit_norm(embedding: str, dim: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes of x / ||x||; a zero embedding becomes the first unit vector."""
    nudge = np.zeros((1, dim), np.float32)
    nudge[0, 0] = _NUDGE
    ones = np.ones((dim, 1), np.float32)  # the interface of ReduceSum differs among opsets
    nodes = [
        helper.make_node("Add", [embedding, "offkey/nudge"], ["offkey/x"]),
        helper.make_node("Mul", ["offkey/x", "offkey/x"], ["offkey/squares"]),
        helper.make_node("MatMul", ["offkey/squares", "offkey/ones"], ["offkey/sum"]),
        helper.make_node("Sqrt", ["offkey/sum"], ["offkey/norm"]),
        helper.make_node("Div", ["offkey/x", "offkey/norm"], ["embedding"]),
    ]
    return nodes, [numpy_helper.from_array(nudge, "offkey/nudge"), numpy_helper.from_array(ones, "offkey/ones")]


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values in a graph and its subgraphs, in which names are unique."""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
        for inner in subgraphs(node):
            _rename(inner, names)
