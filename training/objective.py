"""What the student is asked for: to name both sounds in a mixture, and to stay where they were apart.

arXiv 2510.25182: tagging is binary cross-entropy over C machine and N noise classes; mixture alignment is the
squared distance to lambda T(clean) + (1 - lambda) T(noise), with T a frozen teacher.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.config import ObjectiveConfig
from training.student import Vectors


class Objective:
    """The weighted sum of tagging and alignment that `ObjectiveConfig` asks for."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def clean_share(self, snr_db: Tensor) -> Tensor:
        """Lambda of each mixture, `(batch,)` in and out.

        `energy` takes the clean sound's share of the mixture's energy, which is 1/2 at 0 dB.
        """
        if self.config.kind == "denoise":
            return torch.ones_like(snr_db)
        if self.config.share == "energy":
            return 1 / (1 + 10 ** (-snr_db / 10))
        return torch.full_like(snr_db, self.config.clean_share)

    def __call__(
        self, found: Vectors, logits: Tensor, clean: Vectors, noise: Vectors, tags: Tensor, share: Tensor
    ) -> "Losses":
        """Weighted losses of a batch.

        Args:
            found: the student's vectors of the mixture, each `(batch, ..., dim)`; one for an embedding, one for
                each layer where grids are aligned.
            logits: `(batch, classes)` of the tagging head.
            clean: the teacher's vectors of the clean sound, shaped as `found`.
            noise: the teacher's vectors of the noise, shaped as `found`.
            tags: multi-hot `(batch, classes)`.
            share: lambda, `(batch,)`.
        """
        alignment = torch.stack(
            [
                (own - target(sound, other, share)).square().sum(dim=-1).mean()
                for own, sound, other in zip(found, clean, noise, strict=True)
            ]
        ).mean()
        tagging = functional.binary_cross_entropy_with_logits(logits, tags)
        total = torch.zeros_like(alignment)
        if self.config.kind != "tagging":
            total = total + self.config.alignment_weight * alignment
        if self.config.kind != "alignment":
            total = total + self.config.tagging_weight * tagging
        return Losses(total, alignment.detach(), tagging.detach())


def target(clean: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """Where a mixture should lie; the teacher's vectors `(batch, ..., dim)` and lambda `(batch,)` in."""
    share = share.reshape(-1, *(1,) * (clean.dim() - 1))
    return share * clean + (1 - share) * noise


@dataclass(frozen=True)
class Losses:
    """Scalars: the weighted sum with its graph, and the two parts unweighted.

    The squared distance is summed over a vector's axes, so its scale does not hang on their number, and averaged
    over mixtures, places of a grid, and layers.
    """

    total: Tensor
    alignment: Tensor
    tagging: Tensor
