"""From token grids to one embedding: pooling over time, a whitening projection, unit norm."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_VARIANCE_FLOOR = 1e-8


class Pooling(nn.Module, ABC):
    """Pools a token grid `(batch, time, freq, dim)` over time to `(batch, statistics * freq * dim)`."""

    name: ClassVar[str]
    statistics: ClassVar[int]

    @abstractmethod
    def forward(self, grid: Tensor) -> Tensor:
        """Pool one grid over time."""


class MeanPooling(Pooling):
    """Mean over time."""

    name = "mean"
    statistics = 1

    def forward(self, grid: Tensor) -> Tensor:
        return grid.mean(dim=1).flatten(1)


class MeanDeviationPooling(Pooling):
    """Mean and standard deviation over time, concatenated."""

    name = "mean-deviation"
    statistics = 2

    def forward(self, grid: Tensor) -> Tensor:
        # Time stays innermost, as convolutions return it: moving it takes a tenth of the time of a graph.
        rows = grid.permute(0, 3, 2, 1)  # (batch, dim, freq, time)
        mean = rows.mean(dim=3, keepdim=True)
        off = rows - mean
        deviation = torch.sqrt((off * off).mean(dim=3, keepdim=True) + _VARIANCE_FLOOR)
        return torch.cat([mean, deviation], dim=3).permute(0, 3, 2, 1).flatten(1)


POOLINGS: dict[str, type[Pooling]] = {pooling.name: pooling for pooling in (MeanPooling, MeanDeviationPooling)}


class Whitening(nn.Module):
    """z = (x - mean) (S + eps tr(S)/d I)^(-1/2), the identity until `fit`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))  # (dim, dim), symmetric
        self.mean: Tensor
        self.matrix: Tensor

    def fit(self, mean: Tensor, covariance: Tensor, epsilon: float) -> None:
        """Set the projection in closed form.

        Args:
            mean: `(dim,)`.
            covariance: S, `(dim, dim)`.
            epsilon: share of the mean variance that is added to each direction, which bounds the scale of directions
                without variance.

        Raises:
            ValueError: the covariance is not finite or has no variance at all.
        """
        covariance = covariance.double()
        dim = len(covariance)
        variance = covariance.trace() / dim
        if not torch.isfinite(covariance).all() or variance <= 0:
            raise ValueError(f"The covariance cannot whiten: its mean variance is {variance.item():g}.")
        values, vectors = torch.linalg.eigh(covariance)
        scale = (values.clamp(min=0) + epsilon * variance).rsqrt()
        self.matrix.copy_((vectors * scale) @ vectors.T)
        self.mean.copy_(mean)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.matrix


class ReadoutOutput(NamedTuple):
    """The stages of an embedding, each `(batch, dim)`."""

    pooled: Tensor
    whitened: Tensor
    embedding: Tensor  # unit norm


class Readout(nn.Module):
    """Concatenates the pooled grids of layers, whitens them together, and scales them to unit norm."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], pooling: str) -> None:
        """Create a read-out from the shape `(freq, dim)` of each layer and the name of a pooling."""
        super().__init__()
        self.layers: Sequence[str] = tuple(shapes)
        self.pooling = POOLINGS[pooling]()
        self._shapes = dict(shapes)
        self.dim = self.pooling.statistics * sum(freq * dim for freq, dim in shapes.values())
        self.whitening = Whitening(self.dim)

    def forward(self, grids: Mapping[str, Tensor]) -> ReadoutOutput:
        pooled = torch.cat([self.pooling(grids[layer]) for layer in self.layers], dim=1)
        whitened = self.whitening(pooled)
        return ReadoutOutput(pooled, whitened, functional.normalize(whitened, dim=1))

    def centered(self, grids: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Subtract from the grids of the layers their mean over the audio of the projection.

        The projection has this mean because every pooling starts with the mean over time. Uncentered tokens of any two
        sounds have nearly the same direction.
        """
        found, begin = [], 0
        for layer, (freq, dim) in self._shapes.items():
            found.append(grids[layer] - self.whitening.mean[begin : begin + freq * dim].view(freq, dim))
            begin += self.pooling.statistics * freq * dim
        return tuple(found)
