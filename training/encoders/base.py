"""What every encoder is: a front end, then layers that each give a token grid."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn


def mel_edges(low_hz: float, high_hz: float, mels: int) -> tuple[float, ...]:
    """Return `mels + 2` frequencies, Hz, equally spaced in Kaldi's mel, 1127 ln(1 + f / 700).

    Triangular filter n begins at the n-th, has its peak at the next and ends at the one after that.
    """
    low, high = (1127.0 * math.log1p(hertz / 700.0) for hertz in (low_hz, high_hz))
    spacing = (high - low) / (mels + 1)
    return tuple(700.0 * math.expm1((low + edge * spacing) / 1127.0) for edge in range(mels + 2))


class FrontEnd(nn.Module, ABC):
    """Waveform `(batch, samples)` in [-1, 1] -> normalized log-mel `(batch, frames, mels)`.

    It is part of the exported graph, so it is made of operators that ONNX has and takes any batch and length.
    """

    sample_rate: int  # Hz
    mels: int
    low_hz: float  # where the lowest band begins
    high_hz: float  # where the highest band ends

    @property
    def bands(self) -> int:
        """How many bands, from the lowest, the sample rate can fill; the others stay at the log floor."""
        return self.mels

    @property
    def centers_hz(self) -> tuple[float, ...]:
        """The center of each of `bands`, Hz."""
        return tuple(round(hertz, 1) for hertz in mel_edges(self.low_hz, self.high_hz, self.mels)[1 : self.bands + 1])


class Encoder(nn.Module, ABC):
    """Waveform -> per-layer token grids `(batch, time, freq, dim)`.

    Every architecture keeps its frequency axis: an encoder without one gives `freq` = 1. Tokens that stand
    for the whole clip (CLS) are not part of a grid.
    """

    name: ClassVar[str]  # as configs and the registry call it
    license: ClassVar[str]  # of the published weights
    attribution: ClassVar[str]  # who made them, and where
    front_end: FrontEnd

    @property
    @abstractmethod
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be read out, first to last."""

    @property
    @abstractmethod
    def min_samples(self) -> int:
        """The shortest waveform that can be encoded."""

    @abstractmethod
    def layer_shape(self, layer: str) -> tuple[int, int]:
        """`(freq, dim)` of a layer's grid."""

    @abstractmethod
    def grids(self, logmel: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Run as far as the last of `layers` and return their grids.

        Args:
            logmel: what `front_end` gives, `(batch, frames, mels)`.
            layers: names out of `self.layers`.

        Returns:
            For each name a grid `(batch, time, freq, dim)`.
        """

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, path: Path) -> Self:
        """Load the published checkpoint format, with `weights_only=True`.

        Raises:
            CheckpointError: the file is no such checkpoint; missing and unexpected keys are named.
        """

    @property
    @abstractmethod
    def sizes(self) -> dict[str, float | None]:
        """What `of_sizes` makes the same architecture from, with other weights."""

    @classmethod
    @abstractmethod
    def of_sizes(cls, sizes: Mapping[str, Any]) -> Self:
        """An encoder with weights that are still to be loaded.

        Raises:
            TypeError, ValueError: these are no sizes of this architecture.
        """

    @classmethod
    @abstractmethod
    def tiny(cls, seed: int) -> Self:
        """A small instance with random weights, for tests: real code, no published weights."""

    def forward(self, waveform: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """`front_end`, then `grids`. Waveform `(batch, samples)`."""
        return self.grids(self.front_end(waveform), layers)


class CheckpointError(Exception):
    """A checkpoint file is not what the encoder needs."""
