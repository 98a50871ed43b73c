"""What the student is asked for: to name both sounds in a mixture, and to stay where they were apart.

arXiv 2510.25182: tagging is binary cross-entropy over C machine and N noise classes; mixture alignment is the
squared distance to lambda T(clean) + (1 - lambda) T(noise), with T a frozen teacher.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.config import ObjectiveConfig


class Objective:
    """The weighted sum of tagging and alignment that `ObjectiveConfig` asks for."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def target(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Where the mixture's embedding should lie; teacher embeddings `(batch, dim)` in, the same out."""
        share = 1.0 if self.config.kind == "denoise" else self.config.clean_share
        return share * clean + (1 - share) * noise

    def __call__(self, embedding: Tensor, logits: Tensor, clean: Tensor, noise: Tensor, tags: Tensor) -> "Losses":
        """Weighted losses of a batch.

        Args:
            embedding: the student's, of the mixture, `(batch, dim)`, unit norm.
            logits: `(batch, classes)` of the tagging head.
            clean: the teacher's embedding of the clean sound, `(batch, dim)`.
            noise: the teacher's embedding of the noise, `(batch, dim)`.
            tags: multi-hot `(batch, classes)`.
        """
        alignment = (embedding - self.target(clean, noise)).square().sum(dim=1).mean()
        tagging = functional.binary_cross_entropy_with_logits(logits, tags)
        total = torch.zeros_like(alignment)
        if self.config.kind != "tagging":
            total = total + self.config.alignment_weight * alignment
        if self.config.kind != "alignment":
            total = total + self.config.tagging_weight * tagging
        return Losses(total, alignment.detach(), tagging.detach())


@dataclass(frozen=True)
class Losses:
    """Scalars: the weighted sum with its graph, and the two parts unweighted.

    The squared distance is summed over the embedding's axes, so its scale does not hang on their number.
    """

    total: Tensor
    alignment: Tensor
    tagging: Tensor


def multi_hot(sources: Tensor, noises: Tensor, source_classes: int, noise_classes: int) -> Tensor:
    """Tags `(batch, C + N)`: one machine class and one noise class per mixture.

    Args:
        sources: machine class per row, `(batch,)`, below `source_classes`.
        noises: noise class per row, `(batch,)`, below `noise_classes`.
        source_classes: C.
        noise_classes: N.
    """
    return torch.cat(
        [functional.one_hot(sources, source_classes), functional.one_hot(noises, noise_classes)], dim=1
    ).float()
