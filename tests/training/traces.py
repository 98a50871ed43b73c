"""Reuses the trace of a student for students of the same architecture with other weights: tracing takes seconds.

The first trace of an architecture is a real one, and exports compare every graph with PyTorch.
"""

import hashlib
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch

from training.student import Student

_export = torch.onnx.export


def reuse(folder: Path) -> Any:
    """Create a replacement of `torch.onnx.export` that keeps traces in a folder."""

    def export(model: torch.nn.Module, *arguments: Any, **options: Any) -> Any:
        if not isinstance(model, Student) or any(map(callable, vars(model.encoder).values())):  # a test changed it
            return _export(model, *arguments, **options)
        weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        shapes = [(name, value.dtype, tuple(value.shape)) for name, value in weights.items()]
        key = f"{model} {model.readout.layers} {model.encoder.sizes} {shapes}"
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.onnx"
        if not path.exists():
            temporary = folder / f"{id(model)}.part"
            onnx.save(_export(model, *arguments, optimize=False, **options).model_proto, str(temporary))
            temporary.replace(path)
        program = torch.onnx.ONNXProgram(onnx_ir.from_proto(onnx.load(str(path))), None)
        stored = program.model.graph.initializers
        program.apply_weights({name: value.detach() for name, value in weights.items() if name in stored})
        program.optimize()
        return program

    return export
