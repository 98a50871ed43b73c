"""Losses of a student: tag both sounds of a mixture, and keep its embedding at the mean of its sources' embeddings.

arXiv 2510.25182: tagging is binary cross-entropy over C machine and N noise classes; mixture alignment is the
squared distance to lambda T(clean) + (1 - lambda) T(noise), with T a frozen teacher. The anchor is not in the paper:
the squared distance between the student's and the teacher's embedding of an unmixed sound.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from training.config import ObjectiveConfig
from training.student import Vectors


class Objective:
    """The weighted sum of losses that `ObjectiveConfig` describes."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def clean_share(self, snr_db: Tensor) -> Tensor:
        """Compute lambda of each mixture, `(batch,)`, from its ratio in dB.

        With `energy` it is the clean sound's share of the mixture's energy, 1/2 at 0 dB.
        """
        if self.config.kind == "denoise":
            return torch.ones_like(snr_db)
        if self.config.share == "energy":
            return 1 / (1 + 10 ** (-snr_db / 10))
        return torch.full_like(snr_db, self.config.clean_share)

    def distance(self, found: Vectors, expected: Vectors) -> Tensor:
        """Compute the squared distance, averaged over rows, cells of a grid and layers.

        Vectors of unit norm are summed over their axes, so that the scale does not depend on their number; raw vectors
        (`space` is whitened or pooled) are averaged, which is the MSE of the paper.
        """
        raw = self.config.level == "clip" and self.config.space != "unit"
        return torch.stack(
            [
                (squares.mean(dim=-1) if raw else squares.sum(dim=-1)).mean()
                for squares in ((own - other).square() for own, other in zip(found, expected, strict=True))
            ]
        ).mean()

    def __call__(
        self, predictions: "Predictions", clean: Vectors, noise: Vectors, tags: Tensor, share: Tensor
    ) -> "Losses":
        """Compute the weighted losses of a batch.

        Args:
            predictions: student's vectors and logits of the mixtures, and its vectors of the unmixed sounds.
            clean: teacher's vectors of the clean sounds, each `(batch, ..., dim)`: one for embeddings, one per layer
                for grids.
            noise: teacher's vectors of the noises, in the same form.
            tags: multi-hot labels, `(batch, classes)`.
            share: lambda, `(batch,)`.
        """
        alignment = self.distance(predictions.mixtures, targets(clean, noise, share))
        tagging = functional.binary_cross_entropy_with_logits(predictions.logits, tags)
        anchor = torch.zeros_like(alignment)
        if predictions.singles:
            expected = tuple(anchored(a, b) for a, b in zip(clean, noise, strict=True))
            anchor = self.distance(predictions.singles, expected)
        total = torch.zeros_like(alignment)
        if self.config.kind != "tagging":
            total = total + self.config.alignment_weight * alignment
        if self.config.kind != "alignment":
            total = total + self.config.tagging_weight * tagging
        return Losses(total + self.config.anchor_weight * anchor, alignment.detach(), tagging.detach(), anchor.detach())


class Predictions(NamedTuple):
    """Outputs of a student for a batch."""

    mixtures: Vectors  # each (batch, ..., dim)
    logits: Tensor  # (batch, classes)
    singles: Vectors = ()  # vectors of the sounds that `anchored` selects, each (batch // 2, ..., dim)


# Of four mixtures the anchor embeds the source of one and the noise of another. Embedding all of them would double the
# time of a step and reduce the variance of this loss little.
ANCHOR_PERIOD = 4


def anchored(sources: Tensor, noises: Tensor) -> Tensor:
    """Select the sounds of a batch that are also embedded unmixed, `(batch // 2, ...)`."""
    return torch.cat([sources[::ANCHOR_PERIOD], noises[ANCHOR_PERIOD // 2 :: ANCHOR_PERIOD]])


def targets(clean: Vectors, noise: Vectors, share: Tensor) -> Vectors:
    """Compute `target` for each pair of vectors."""
    return tuple(target(a, b, share) for a, b in zip(clean, noise, strict=True))


def target(clean: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """Compute the target of mixtures from the teacher's vectors `(batch, ..., dim)` and lambda `(batch,)`."""
    share = share.reshape(-1, *(1,) * (clean.dim() - 1))
    return share * clean + (1 - share) * noise


@dataclass(frozen=True)
class Losses:
    """Scalar losses: the weighted sum with its gradient graph, and its unweighted parts."""

    total: Tensor
    alignment: Tensor
    tagging: Tensor
    anchor: Tensor
