"""Small ONNX encoders made by hand: real graphs, no framework."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

DIM = 8
Step = tuple[str, list[str], str, dict[str, object]]


class Sketch:
    """A graph from `audio` `(batch, samples)` to `pooled` `(batch, DIM)`, to be changed before it is saved.

    A frame of 25 ms is multiplied with random filters; the magnitudes are averaged over time.
    """

    def __init__(self) -> None:
        filters = np.random.default_rng(0).standard_normal((DIM, 1, 400)) / 20
        self.weights: dict[str, np.ndarray] = {
            "row": np.array([0, 1, -1]),
            "flat": np.array([0, -1]),
            "filters": filters.astype(np.float32),
        }
        self.steps: list[Step] = [
            ("Reshape", ["audio", "row"], "rows", {}),
            ("Conv", ["rows", "filters"], "filtered", {"strides": [160]}),
            ("Abs", ["filtered"], "magnitudes", {}),
            ("GlobalAveragePool", ["magnitudes"], "means", {}),
            ("Reshape", ["means", "flat"], "pooled", {}),
        ]
        self.inputs = [("audio", TensorProto.FLOAT, ["n", "t"])]
        self.outputs = [("pooled", TensorProto.FLOAT, ["n", DIM])]
        self.opset = 13
        self.domains: Sequence[tuple[str, int]] = ()

    def then(self, kind: str, other: str | None, output: str, **attributes: object) -> "Sketch":
        """Append an operator to the embedding, which from then on is called `output`."""
        before = self.outputs[0][0]
        self.steps.append((kind, [before, *([other] if other else [])], output, attributes))
        self.outputs[0] = (output, *self.outputs[0][1:])
        return self

    def rename(self, old: str, new: str) -> "Sketch":
        self.steps = [
            (kind, [new if name == old else name for name in names], new if output == old else output, attributes)
            for kind, names, output, attributes in self.steps
        ]
        for values in (self.inputs, self.outputs):
            values[:] = [(new if name == old else name, *rest) for name, *rest in values]
        return self

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            [helper.make_node(kind, names, [output], **attributes) for kind, names, output, attributes in self.steps],
            "sketch",
            [helper.make_tensor_value_info(*value) for value in self.inputs],
            [helper.make_tensor_value_info(*value) for value in self.outputs],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(*domain) for domain in self.domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), str(path))
        return path


@pytest.fixture
def sketch() -> Sketch:
    return Sketch()


@pytest.fixture
def saved(sketch: Sketch, tmp_path: Path) -> Callable[[], Path]:
    """`saved()`: the file of the graph as it is now."""
    return lambda: sketch.save(tmp_path / "their-encoder.onnx")
