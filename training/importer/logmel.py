"""A plain log-mel spectrogram in ONNX operators, so that the service can localize with any encoder.

It is what localization and the stored spectrograms need: 35 bands, as many as the service keeps. The encoder does not
see it.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from service.domain.spectrogram import MOST_BANDS
from training.encoders.base import mel_edges

_WINDOW_SECONDS = 0.032  # half overlapping; DFT bins 31 Hz apart
_LOW_HZ = 20.0
_FLOOR = 1e-8  # under the power of a band; a window has an RMS of 0.1, so 60 dB below white noise


@dataclass(frozen=True)
class LogMel:
    """Hann windows, DFT, power, triangular mel filters, logarithm."""

    sample_rate: int  # Hz

    @property
    def window(self) -> int:
        """Samples of a frame, which is also the shortest waveform."""
        return 2 * round(_WINDOW_SECONDS * self.sample_rate / 2)

    @property
    def centers_hz(self) -> tuple[float, ...]:
        """The center of each band."""
        return tuple(round(hertz, 1) for hertz in self._edges[1:-1])

    @property
    def _edges(self) -> tuple[float, ...]:
        return mel_edges(_LOW_HZ, self.sample_rate / 2, MOST_BANDS)

    def nodes(self, waveform: str, output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return nodes and their constants for a waveform `(batch, 1, samples)` -> `(batch, frames, bands)`.

        All operators mean the same in every opset from 8 on.
        """
        weights = {"dft": self._dft(), "bank": np.tile(self._bank(), (2, 1)), "floor": np.array(_FLOOR, np.float32)}
        own = {
            name: f"offkey/{output}/{name}" for name in (*weights, "spectrum", "power", "frames", "bands", "floored")
        }
        nodes = [
            # (batch, 2 bins, frames): real parts, then imaginary ones
            helper.make_node("Conv", [waveform, own["dft"]], [own["spectrum"]], strides=[self.window // 2]),
            helper.make_node("Mul", [own["spectrum"], own["spectrum"]], [own["power"]]),
            helper.make_node("Transpose", [own["power"]], [own["frames"]], perm=[0, 2, 1]),
            helper.make_node("MatMul", [own["frames"], own["bank"]], [own["bands"]]),
            helper.make_node("Add", [own["bands"], own["floor"]], [own["floored"]]),
            helper.make_node("Log", [own["floored"]], [output]),
        ]
        return nodes, [numpy_helper.from_array(value, own[name]) for name, value in weights.items()]

    def _dft(self) -> NDArray[np.float32]:
        """Return `(2 bins, 1, window)`, scaled so that a bin of white noise has the noise's power."""
        place = np.arange(self.window)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * place / self.window)
        hann /= np.sqrt(np.sum(hann**2))
        angle = 2 * np.pi * (np.outer(np.arange(self.window // 2 + 1), place) % self.window) / self.window
        rows = np.concatenate([np.cos(angle), np.sin(angle)]) * hann
        return rows.astype(np.float32)[:, None, :]

    def _bank(self) -> NDArray[np.float32]:
        """Return triangles `(bins, bands)`, linear in Hz."""
        edges = np.array(self._edges)
        bins = (np.arange(self.window // 2 + 1) * self.sample_rate / self.window)[:, None]
        left, center, right = edges[:-2], edges[1:-1], edges[2:]
        triangles = np.minimum((bins - left) / (center - left), (right - bins) / (right - center))
        bank: NDArray[np.float32] = np.maximum(triangles, 0.0).astype(np.float32)
        return bank
