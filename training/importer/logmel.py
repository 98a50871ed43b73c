"""A log-mel spectrogram in ONNX operators, so that the service can localize with any encoder.

It has 35 bands, as the spectrograms that the service stores. The encoder does not use it.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from service.domain.spectrogram import MOST_BANDS
from training.encoders.base import mel_edges

_WINDOW_SECONDS = 0.032  # frames overlap by half; DFT bins are 31 Hz apart
_LOW_HZ = 20.0
_FLOOR = 1e-8  # minimum power of a band: 60 dB below white noise, because a window has an RMS of 0.1


@dataclass(frozen=True)
class LogMel:
    """Hann windows, DFT, power, triangular mel filters, logarithm."""

    sample_rate: int  # Hz

    @property
    def window(self) -> int:
        """Length of a frame, and of the shortest waveform, in samples."""
        return 2 * round(_WINDOW_SECONDS * self.sample_rate / 2)

    @property
    def centers_hz(self) -> tuple[float, ...]:
        """Center of each band, in Hz."""
        return tuple(round(hertz, 1) for hertz in self._edges[1:-1])

    @property
    def _edges(self) -> tuple[float, ...]:
        return mel_edges(_LOW_HZ, self.sample_rate / 2, MOST_BANDS)

    def nodes(self, waveform: str, output: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return nodes and constants that compute `(batch, frames, bands)` of a waveform `(batch, 1, samples)`.

        The operators have the same meaning in every opset from 8 on.
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
        """Compute the DFT `(2 bins, 1, window)`, scaled so that a bin of white noise has the noise's power."""
        place = np.arange(self.window)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * place / self.window)
        hann /= np.sqrt(np.sum(hann**2))
        angle = 2 * np.pi * (np.outer(np.arange(self.window // 2 + 1), place) % self.window) / self.window
        rows = np.concatenate([np.cos(angle), np.sin(angle)]) * hann
        return rows.astype(np.float32)[:, None, :]

    def _bank(self) -> NDArray[np.float32]:
        """Compute triangular filters `(bins, bands)`, linear in Hz."""
        edges = np.array(self._edges)
        bins = (np.arange(self.window // 2 + 1) * self.sample_rate / self.window)[:, None]
        left, center, right = edges[:-2], edges[1:-1], edges[2:]
        triangles = np.minimum((bins - left) / (center - left), (right - bins) / (right - center))
        bank: NDArray[np.float32] = np.maximum(triangles, 0.0).astype(np.float32)
        return bank
