"""Losses of a student: tag both sounds of a mixture, and keep its embedding where those of its sources lie.

arXiv 2510.25182: tagging is binary cross-entropy over C machine and N noise classes; mixture alignment is the
squared distance to lambda T(clean) + (1 - lambda) T(noise), with T a frozen teacher. The anchor is an addition of ours:
the squared distance between the student's and the teacher's embedding of a sound that is not mixed.
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

        `energy` takes the clean sound's share of the mixture's energy, which is 1/2 at 0 dB.
        """
        if self.config.kind == "denoise":
            return torch.ones_like(snr_db)
        if self.config.share == "energy":
            return 1 / (1 + 10 ** (-snr_db / 10))
        return torch.full_like(snr_db, self.config.clean_share)

    def distance(self, found: Vectors, expected: Vectors) -> Tensor:
        """Squared distance, averaged over rows, places of a grid and layers.

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

    def __call__(self, answers: "Answers", clean: Vectors, noise: Vectors, tags: Tensor, share: Tensor) -> "Losses":
        """Compute the weighted losses of a batch.

        Args:
            answers: what the student computed for the mixtures and for the sounds that are not mixed.
            clean: the teacher's vectors of the clean sounds, each `(batch, ..., dim)`; one for an embedding, one for
                each layer where grids are aligned.
            noise: the teacher's vectors of the noises, in the same form.
            tags: multi-hot `(batch, classes)`.
            share: lambda, `(batch,)`.
        """
        alignment = self.distance(answers.mixtures, targets(clean, noise, share))
        tagging = functional.binary_cross_entropy_with_logits(answers.logits, tags)
        anchor = torch.zeros_like(alignment)
        if answers.singles:
            expected = tuple(anchored(a, b) for a, b in zip(clean, noise, strict=True))
            anchor = self.distance(answers.singles, expected)
        total = torch.zeros_like(alignment)
        if self.config.kind != "tagging":
            total = total + self.config.alignment_weight * alignment
        if self.config.kind != "alignment":
            total = total + self.config.tagging_weight * tagging
        return Losses(total + self.config.anchor_weight * anchor, alignment.detach(), tagging.detach(), anchor.detach())


class Answers(NamedTuple):
    """What a student computed for a batch."""

    mixtures: Vectors  # each (batch, ..., dim)
    logits: Tensor  # (batch, classes), of the mixtures
    singles: Vectors = ()  # each (batch // 2, ..., dim), of the sounds that `anchored` picks


# Of four mixtures the anchor embeds the sound of one and the noise of another alone. All of them would double the time
# of a step and lower the noise of this loss little.
ANCHOR_PERIOD = 4


def anchored(sources: Tensor, noises: Tensor) -> Tensor:
    """Pick the sounds of a batch that are also embedded alone, `(batch // 2, ...)`."""
    return torch.cat([sources[::ANCHOR_PERIOD], noises[ANCHOR_PERIOD // 2 :: ANCHOR_PERIOD]])


def targets(clean: Vectors, noise: Vectors, share: Tensor) -> Vectors:
    """Compute `target` for each pair of vectors."""
    return tuple(target(a, b, share) for a, b in zip(clean, noise, strict=True))


def target(clean: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """Compute where a mixture should lie, from the teacher's vectors `(batch, ..., dim)` and lambda `(batch,)`."""
    share = share.reshape(-1, *(1,) * (clean.dim() - 1))
    return share * clean + (1 - share) * noise


@dataclass(frozen=True)
class Losses:
    """Scalars: the weighted sum with its graph, and its unweighted parts."""

    total: Tensor
    alignment: Tensor
    tagging: Tensor
    anchor: Tensor
