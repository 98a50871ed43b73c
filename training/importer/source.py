"""Reads an ONNX file of any origin, and checks it without running it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import uses_external_data
from onnx.inliner import inline_local_functions

from training.graph import ExportError

LARGEST_MODEL = 2**30  # bytes; a base transformer of 90 M parameters has 0.36 GB
_OLDEST_OPSET = 8  # first opset in which Max broadcasts
# Operators of every build of ONNX Runtime. Others would be loaded from a library, which is code.
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_RANK = 2  # number of axes of a waveform (batch, samples) and of an embedding (batch, dim)


@dataclass(frozen=True)
class Source:
    """A model, and the names of its waveform and of its embedding."""

    model: onnx.ModelProto
    waveform: str
    embedding: str
    opset: int


def read_source(path: Path, embedding: str | None = None) -> Source:
    """Read an ONNX file.

    Args:
        path: path of the file.
        embedding: output with the embedding; None if the model has only one output with two axes.

    Raises:
        ExportError: the file is not an ONNX model or too large, has tensors in other files, needs custom operators, or
            has no input for a waveform or no output for an embedding.
    """
    model = _load(path)
    external = sorted({tensor.name for tensor in _tensors(model.graph) if uses_external_data(tensor)})
    if external:
        raise ExportError(
            f"{path} keeps {len(external)} tensors in other files ({external[0]}, ...). A bundle is one file that its "
            "hash covers: save the model without external data (onnx.save, or external_data=False in torch)."
        )
    model = inline_local_functions(model)
    custom = sorted({f"{node.domain}.{node.op_type}" for node in _nodes(model.graph) if node.domain not in _DOMAINS})
    if custom:
        raise ExportError(
            f"{path} needs the custom operators {', '.join(custom)}. The service loads no operator libraries: export "
            "the model with standard ONNX operators."
        )
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise ExportError(
            f"{path} has opset {opset}; the oldest supported one is {_OLDEST_OPSET}. Convert it with "
            "onnx.version_converter."
        )
    return Source(model, _waveform(model.graph, path), _embedding(model.graph, embedding, path), opset)


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ExportError(f"There is no file {path}.")
    size = path.stat().st_size
    if size > LARGEST_MODEL:
        raise ExportError(f"{path} has {size / 2**30:.1f} GiB; {LARGEST_MODEL / 2**30:.0f} GiB is the maximum.")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ExportError(f"{path} is not an ONNX model: {error}.") from error
    if not model.graph.node:
        raise ExportError(f"{path} is not an ONNX model: it has no graph.")
    return model


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in a node's attributes: branches and loop bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def _waveform(graph: onnx.GraphProto, path: Path) -> str:
    weights = {value.name for value in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        named = ", ".join(value.name for value in inputs) or "none"
        raise ExportError(f"{path} has {len(inputs)} inputs ({named}); it must have one, a waveform (batch, samples).")
    (value,) = inputs
    kind = value.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise ExportError(f"The input {value.name} of {path} is {_type_name(kind.elem_type)}; it must be float32.")
    if kind.HasField("shape"):
        shape = kind.shape.dim
        if len(shape) != _RANK:
            raise ExportError(f"The input {value.name} of {path} is {_shape(value)}; it must be (batch, samples).")
        for axis, dim in zip(("batch", "samples"), shape, strict=True):
            if dim.HasField("dim_value"):
                raise ExportError(
                    f"The input {value.name} of {path} is {_shape(value)}: its {axis} axis is fixed to "
                    f"{dim.dim_value}. Export the model with both axes dynamic."
                )
    return str(value.name)


def _embedding(graph: onnx.GraphProto, wanted: str | None, path: Path) -> str:
    outputs = {value.name: value for value in graph.output}
    listed = ", ".join(f"{name} {_shape(value)}" for name, value in outputs.items())
    if wanted is None:
        fitting = [name for name, value in outputs.items() if _may_be_embedding(value)]
        if len(fitting) != 1:
            raise ExportError(
                f"{path} has {len(fitting)} outputs that can be an embedding (batch, dim) in float32. Its outputs: "
                f"{listed}. " + ("Name one: --embedding." if fitting else "Pool over time in the model.")
            )
        return str(fitting[0])
    if wanted not in outputs:
        raise ExportError(f"{path} has no output {wanted}. Its outputs: {listed}.")
    if not _may_be_embedding(outputs[wanted]):
        raise ExportError(
            f"The output {wanted} of {path} is {_type_name(outputs[wanted].type.tensor_type.elem_type)} "
            f"{_shape(outputs[wanted])}; an embedding is float32 (batch, dim). Pool over time in the model."
        )
    return wanted


def _may_be_embedding(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.elem_type == onnx.TensorProto.FLOAT and (not kind.HasField("shape") or len(kind.shape.dim) == _RANK)


def _shape(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return "(unknown shape)"
    dims = (str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim)
    return f"({', '.join(dims)})"


def _type_name(kind: int) -> str:
    return "of no tensor type" if not kind else str(onnx.helper.tensor_dtype_to_np_dtype(kind))
