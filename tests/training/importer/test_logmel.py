"""The log-mel that an import adds, held against a slow one in numpy."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from training.importer.logmel import LogMel


def run(front_end: LogMel, samples: np.ndarray) -> np.ndarray:
    nodes, weights = front_end.nodes("x", "y")
    graph = helper.make_graph(
        nodes,
        "logmel",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, "samples"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "frames", 35])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": samples.astype(np.float32)[:, None]})
    return found


@pytest.mark.parametrize("rate", [2_000, 8_000, 16_000, 22_050, 48_000])
def test_it_is_the_power_in_each_band(rate: int) -> None:
    front_end = LogMel(rate)
    samples = 0.1 * np.random.default_rng(0).standard_normal((2, rate))
    found = run(front_end, samples)
    size, hop = front_end.window, front_end.window // 2
    hann = np.hanning(size + 1)[:-1]
    starts = range(0, rate - size + 1, hop)
    power = np.stack([np.abs(np.fft.rfft(samples[:, s : s + size] * hann)) ** 2 for s in starts], axis=1)
    bands = (power / (hann**2).sum()) @ front_end._bank()
    np.testing.assert_allclose(found, np.log(bands + 1e-8), atol=2e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_a_tone_is_loudest_in_the_band_around_it(rate: int) -> None:
    front_end = LogMel(rate)
    centers = front_end.centers_hz
    assert len(centers) == 35
    time = np.arange(rate) / rate
    for band in range(2, 34, 4):
        found = run(front_end, 0.1 * np.sin(2 * np.pi * centers[band] * time)[None])
        assert int(found[0].mean(axis=0).argmax()) == band


def test_every_band_has_a_bin_at_every_rate() -> None:
    for rate in (2_000, 4_000, 11_025, 16_000, 44_100, 192_000):
        assert (LogMel(rate)._bank().sum(axis=0) > 0.1).all(), rate
