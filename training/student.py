"""The network that is trained and exported: level, front end, encoder, read-out."""

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.encoders.base import Encoder
from training.readout import Reading, Readout

LOGMEL = "logmel"  # the layer before the encoder's first

# RMS of about -20 dBFS, where AudioSet's recordings lie and where an encoder's log floor is far below.
LEVEL = 0.1
_SILENCE = 1e-5


def remove_level(waveform: Tensor) -> Tensor:
    """Take the mean away and bring each clip to an RMS of `LEVEL`; `(batch, samples)` in and out.

    A microphone's gain and distance are not the machine's health: loudness alone would split many data sets.
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
Vectors = tuple[Tensor, ...]  # each (batch, ..., dim), of unit norm along dim unless the space is another


class Heard(NamedTuple):
    """What an alignment compares, and what a tagging head takes."""

    vectors: Vectors
    whitened: Tensor  # (batch, dim)


class Student(nn.Module):
    """Waveform `(batch, samples)` -> `Outputs`."""

    def __init__(self, encoder: Encoder, layers: tuple[str, ...], pooling: str) -> None:
        """Read `layers` of an encoder, one of its own at least; `LOGMEL` may be among them."""
        super().__init__()
        self.encoder = encoder
        ordered = sorted(layers, key=self.layers_of(encoder).index)
        self.readout = Readout({layer: self._shape(layer) for layer in ordered}, pooling)

    @staticmethod
    def layers_of(encoder: Encoder) -> tuple[str, ...]:
        """What can be read: the log-mel, as a grid `(batch, frames, bands, 1)`, and the encoder's layers."""
        return (LOGMEL, *encoder.layers)

    @property
    def frames_shape(self) -> tuple[int, int]:
        """`(freq, dim)` of `Outputs.frames`."""
        return self._shape(self.readout.layers[-1])

    def _shape(self, layer: str) -> tuple[int, int]:
        return (self.encoder.front_end.bands, 1) if layer == LOGMEL else self.encoder.layer_shape(layer)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.encoder.front_end.sample_rate

    @property
    def dim(self) -> int:
        """Length of the embedding."""
        return self.readout.dim

    def read(self, waveform: Tensor) -> Reading:
        """Pooled, whitened and unit embedding."""
        reading: Reading = self.readout(self._grids(self._logmel(waveform)))
        return reading

    def embed(
        self,
        waveform: Tensor,
        level: Level,
        space: Space = "unit",
        augment: Callable[[Tensor], Tensor] | None = None,
        *,
        half: bool = False,
    ) -> Heard:
        """Vectors to align, of one level.

        Args:
            waveform: `(batch, samples)`.
            level: `clip` gives the embedding `(batch, dim)`; `token` the centered grid `(batch, time, freq, dim)` of
                each layer that is read; `frame` its mean over frequency, `(batch, time, dim)`.
            space: of `clip`: `unit` gives the embedding that is served, `whitened` the one before it is normalized,
                `pooled` the one before it is whitened.
            augment: works on the log-mel `(batch, frames, mels)`.
            half: run the encoder's layers in bfloat16. Spectrum and whitening stay in float32, which they need.
        """
        logmel = self._logmel(waveform)
        if augment is not None:
            logmel = augment(logmel)
        with torch.autocast(waveform.device.type, torch.bfloat16, enabled=half):
            grids = self._grids(logmel)
        grids = {layer: grid.float() for layer, grid in grids.items()}
        reading: Reading = self.readout(grids)
        if level == "clip":
            stages = {"unit": reading.embedding, "whitened": reading.whitened, "pooled": reading.pooled}
            return Heard((stages[space],), reading.whitened)
        tokens = self.readout.centered(grids)
        vectors = tokens if level == "token" else tuple(grid.mean(dim=2) for grid in tokens)
        return Heard(tuple(functional.normalize(each, dim=-1) for each in vectors), reading.whitened)

    def _logmel(self, waveform: Tensor) -> Tensor:
        logmel: Tensor = self.encoder.front_end(remove_level(waveform))
        return logmel

    def _grids(self, logmel: Tensor) -> dict[str, Tensor]:
        """A grid `(batch, time, freq, dim)` of each layer that is read."""
        grids = self.encoder.grids(logmel, [layer for layer in self.readout.layers if layer != LOGMEL])
        if LOGMEL in self.readout.layers:
            grids[LOGMEL] = self._sounding(logmel).unsqueeze(-1)
        return grids

    def _sounding(self, logmel: Tensor) -> Tensor:
        """The bands that the sample rate can fill, `(batch, frames, bands)`."""
        return logmel[..., : self.encoder.front_end.bands]

    def forward(self, waveform: Tensor) -> Outputs:
        logmel = self._logmel(waveform)
        grids = self._grids(logmel)
        return Outputs(self.readout(grids).embedding, grids[self.readout.layers[-1]], self._sounding(logmel))

    def fingerprint(self) -> str:
        """SHA-256 over all that decides an embedding: weights, layers, pooling, projection."""
        digest = hashlib.sha256()
        digest.update(f"{self.encoder.name} {self.readout.layers} {self.readout.pooling.name} {LEVEL}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()
