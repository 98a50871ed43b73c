"""The network that is trained and exported: level removal, front end, encoder, read-out."""

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoders.base import Encoder
from training.readout import Readout, ReadoutOutput

LOGMEL = "logmel"  # the layer before the encoder's first

# RMS of about -20 dBFS, as AudioSet's recordings have; the log floor of an encoder is far below.
LEVEL = 0.1
_SILENCE = 1e-5


def remove_level(waveform: Tensor) -> Tensor:
    """Remove the mean of each clip and scale it to an RMS of `LEVEL`; `(batch, samples)` in and out.

    Loudness depends on the microphone's gain and distance, and it alone would separate many data sets.
    """
    centered = waveform - waveform.mean(dim=1, keepdim=True)
    rms = torch.sqrt((centered * centered).mean(dim=1, keepdim=True))
    return centered * (LEVEL / rms.clamp(min=_SILENCE))


class Outputs(NamedTuple):
    """The outputs of a bundle, in the order of its graph."""

    embedding: Tensor  # (batch, dim), unit norm
    frames: Tensor  # (batch, time, freq, dim) of the deepest layer read
    logmel: Tensor  # (batch, frames, bands)


Level = Literal["clip", "frame", "token"]
Space = Literal["unit", "whitened", "pooled"]
Vectors = tuple[Tensor, ...]  # each (batch, ..., dim), of unit norm along dim in the space `unit`


class StudentVectors(NamedTuple):
    """The vectors that are aligned, and the input of the tagging head."""

    vectors: Vectors
    whitened: Tensor  # (batch, dim)


class Student(nn.Module):
    """Computes `Outputs` of waveforms `(batch, samples)`."""

    def __init__(self, encoder: Encoder, layers: tuple[str, ...], pooling: str) -> None:
        """Read `layers` of an encoder: at least one of its own layers, and optionally `LOGMEL`."""
        super().__init__()
        self.encoder = encoder
        ordered = sorted(layers, key=self.layers_of(encoder).index)
        self.readout = Readout({layer: self._shape(layer) for layer in ordered}, pooling)

    @staticmethod
    def layers_of(encoder: Encoder) -> tuple[str, ...]:
        """List the layers that can be read: the log-mel, as a grid `(batch, frames, bands, 1)`, and the encoder's."""
        return (LOGMEL, *encoder.layers)

    @property
    def frames_shape(self) -> tuple[int, int]:
        """Shape `(freq, dim)` of `Outputs.frames`."""
        return self._shape(self.readout.layers[-1])

    def _shape(self, layer: str) -> tuple[int, int]:
        return (self.encoder.front_end.bands, 1) if layer == LOGMEL else self.encoder.layer_shape(layer)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms, in Hz."""
        return self.encoder.front_end.sample_rate

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.readout.dim

    def read(self, waveform: Tensor) -> ReadoutOutput:
        """Compute the pooled, the whitened and the unit embedding."""
        output: ReadoutOutput = self.readout(self._grids(self._logmel(waveform)))
        return output

    def embed(
        self,
        waveform: Tensor,
        level: Level,
        space: Space = "unit",
        augment: Callable[[Tensor], Tensor] | None = None,
        *,
        half: bool = False,
    ) -> StudentVectors:
        """Compute the vectors of one level that are aligned.

        Args:
            waveform: `(batch, samples)`.
            level: `clip` gives the embedding `(batch, dim)`; `token` the centered grid `(batch, time, freq, dim)` of
                each layer that is read; `frame` its mean over frequency, `(batch, time, dim)`.
            space: stage of the embedding at level `clip`: `unit` is served, `whitened` is before the normalization,
                `pooled` is before the projection.
            augment: masking of the log-mel `(batch, frames, mels)`.
            half: whether the encoder's layers run in bfloat16. Spectrum and whitening need float32.
        """
        logmel = self._logmel(waveform)
        if augment is not None:
            logmel = augment(logmel)
        with torch.autocast(waveform.device.type, torch.bfloat16, enabled=half):
            grids = self._grids(logmel)
        grids = {layer: grid.float() for layer, grid in grids.items()}
        output: ReadoutOutput = self.readout(grids)
        if level == "clip":
            stages = {"unit": output.embedding, "whitened": output.whitened, "pooled": output.pooled}
            return StudentVectors((stages[space],), output.whitened)
        tokens = self.readout.centered(grids)
        vectors = tokens if level == "token" else tuple(grid.mean(dim=2) for grid in tokens)
        return StudentVectors(tuple(functional.normalize(each, dim=-1) for each in vectors), output.whitened)

    def _logmel(self, waveform: Tensor) -> Tensor:
        logmel: Tensor = self.encoder.front_end(remove_level(waveform))
        return logmel

    def _grids(self, logmel: Tensor) -> dict[str, Tensor]:
        """Compute the grid `(batch, time, freq, dim)` of each layer that is read."""
        grids = self.encoder.grids(logmel, [layer for layer in self.readout.layers if layer != LOGMEL])
        if LOGMEL in self.readout.layers:
            grids[LOGMEL] = self._audible_bands(logmel).unsqueeze(-1)
        return grids

    def _audible_bands(self, logmel: Tensor) -> Tensor:
        """Select the bands below the Nyquist frequency, `(batch, frames, bands)`."""
        return logmel[..., : self.encoder.front_end.bands]

    def forward(self, waveform: Tensor) -> Outputs:
        logmel = self._logmel(waveform)
        grids = self._grids(logmel)
        return Outputs(self.readout(grids).embedding, grids[self.readout.layers[-1]], self._audible_bands(logmel))

    def fingerprint(self) -> str:
        """Hash everything that determines an embedding: weights, layers, pooling, projection (SHA-256)."""
        digest = hashlib.sha256()
        digest.update(f"{self.encoder.name} {self.readout.layers} {self.readout.pooling.name} {LEVEL}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()
