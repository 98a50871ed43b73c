"""Base classes of encoders: a front end, then layers with a token grid each."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn


def mel_edges(low_hz: float, high_hz: float, mels: int) -> tuple[float, ...]:
    """Return `mels + 2` frequencies, Hz, equally spaced in Kaldi's mel, 1127 ln(1 + f / 700).

    Triangular filter n rises from frequency n to its peak at n + 1, and falls to n + 2.
    """
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (low_hz, high_hz))
    spacing = (high - low) / (mels + 1)
    return tuple(700.0 * math.expm1((low + edge * spacing) / 1127.0) for edge in range(mels + 2))


class FrontEnd(nn.Module, ABC):
    """Computes the normalized log-mel `(batch, frames, mels)` of waveforms `(batch, samples)` in [-1, 1].

    A front end is part of the exported graph, so it uses operators of ONNX and accepts any batch and length.
    """

    sample_rate: int  # Hz
    mels: int
    low_hz: float  # lower edge of the lowest band
    high_hz: float  # upper edge of the highest band
    limit_hz: float | None = None  # sound above it is ignored; None if all sound counts

    @property
    def bands(self) -> int:
        """Number of bands below the Nyquist frequency and `limit_hz`; the others have the log floor."""
        return self.mels

    @property
    def centers_hz(self) -> tuple[float, ...]:
        """Center of each of `bands`, in Hz."""
        return tuple(round(hertz, 1) for hertz in mel_edges(self.low_hz, self.high_hz, self.mels)[1 : self.bands + 1])


class Encoder(nn.Module, ABC):
    """Computes token grids `(batch, time, freq, dim)` of layers from a waveform.

    Every architecture keeps its frequency axis; without one, `freq` is 1. Tokens of the whole clip (CLS) are not part
    of a grid.
    """

    name: ClassVar[str]  # name in configs and in the registry
    license: ClassVar[str]  # license of the published weights
    attribution: ClassVar[str]  # authors and source of the weights
    fits: ClassVar[tuple[str, ...]] = ()  # names of encoders whose weights fit this one too
    front_end: FrontEnd

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be read, from first to last."""

    @property
    @abstractmethod
    def min_samples(self) -> int:
        """Length of the shortest waveform that can be encoded, in samples."""

    @abstractmethod
    def layer_shape(self, layer: str) -> tuple[int, int]:
        """Return `(freq, dim)` of a layer's grid."""

    @abstractmethod
    def grids(self, logmel: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute the grids of layers; later layers are not run.

        Args:
            logmel: output of `front_end`, `(batch, frames, mels)`.
            layers: some of `self.layers`.

        Returns:
            Grids `(batch, time, freq, dim)` by layer.
        """

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, path: Path) -> Self:
        """Load a published checkpoint with `weights_only=True`.

        Raises:
            CheckpointError: the file is not such a checkpoint; the message names missing and unexpected keys.
        """

    @property
    @abstractmethod
    def sizes(self) -> dict[str, float | None]:
        """Arguments with which `of_sizes` creates the same architecture."""

    @classmethod
    @abstractmethod
    def of_sizes(cls, sizes: Mapping[str, Any]) -> Self:
        """Create an encoder with random weights from its sizes.

        Raises:
            TypeError, ValueError: the sizes do not belong to this architecture.
        """

    @classmethod
    @abstractmethod
    def tiny(cls, seed: int) -> Self:
        """Create a small encoder with random weights, for tests."""

    def forward(self, waveform: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute the grids of layers from a waveform `(batch, samples)`."""
        return self.grids(self.front_end(waveform), layers)


class CheckpointError(Exception):
    """A checkpoint does not fit the encoder."""
