"""Time the log-mel spectrogram that `offkey bundle import` adds to a graph, by sample rate.

    python benchmarks/imported_logmel.py

Milliseconds for a window of 10 s on one CPU thread, median of nine runs (decision 0019).
"""

import statistics
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from training.importer.logmel import LogMel

SECONDS = 10
ROUNDS = 10  # the first warms up


def main() -> None:
    """Measure and print."""
    for rate in (8_000, 16_000, 32_000, 48_000):
        print(f"{rate} Hz: {milliseconds(rate):.1f} ms")


def milliseconds(rate: int) -> float:
    """Return the median time of a window."""
    nodes, weights = LogMel(rate).nodes("rows", "logmel")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None]) for name in ("rows", "logmel")]
    graph = helper.make_graph(nodes, "logmel", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rows = np.random.default_rng(0).standard_normal((1, 1, SECONDS * rate)).astype(np.float32)
    spent = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        session.run(None, {"rows": rows})
        spent.append(1000 * (time.perf_counter() - begin))
    return statistics.median(spent[1:])


if __name__ == "__main__":
    main()
