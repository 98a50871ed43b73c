"""The trainable module: a student with a tagging head and, for a teacher of another kind, a projection."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.config import Config
from training.objective import Predictions
from training.student import Student, Vectors


class Learner(nn.Module):
    """A student, a tagging head, and a projection into the space of a teacher of another kind."""

    def __init__(self, student: Student, classes: int, teacher_dim: int | None, config: Config) -> None:
        """Wrap a student.

        Args:
            student: whitened student.
            classes: number of classes of the tagging head.
            teacher_dim: length of the teacher's embedding; None if teacher and student share one space.
            config: config of the run.
        """
        super().__init__()
        self.student = student
        self.head = nn.Linear(student.dim, classes)
        self.projection = None if teacher_dim is None else nn.Linear(student.dim, teacher_dim)
        self._level = config.objective.level
        self._space = config.objective.space
        self._half = config.loop.precision == "bfloat16"

    @classmethod
    def seeded(cls, student: Student, classes: int, teacher_dim: int, config: Config) -> Self:
        """Create a learner whose random weights depend on `seed` alone, with a projection if the teacher needs one."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return cls(student, classes, None if config.teacher.is_copy else teacher_dim, config)

    @property
    def added_parameters(self) -> list[nn.Parameter]:
        """Parameters of the head and the projection, which only training needs."""
        modules = [module for module in (self.head, self.projection) if module is not None]
        return [parameter for module in modules for parameter in module.parameters()]

    def forward(self, mixtures: Tensor, singles: Tensor, augment: Callable[[Tensor], Tensor]) -> Predictions:
        """Compute vectors to align, and logits of the mixtures.

        Args:
            mixtures: `(batch, samples)`.
            singles: unmixed sounds, `(rows, samples)`; may be empty.
            augment: masking of log-mel spectra, applied to the mixtures only.
        """
        count = len(mixtures)

        def augment_mixtures(logmel: Tensor) -> Tensor:
            return torch.cat([augment(logmel[:count]), logmel[count:]]) if len(singles) else augment(logmel)

        waveforms = torch.cat([mixtures, singles]) if len(singles) else mixtures
        vectors, whitened = self._vectors(waveforms, augment_mixtures)
        return Predictions(
            tuple(each[:count] for each in vectors),
            self.head(whitened[:count]),
            tuple(each[count:] for each in vectors) if len(singles) else (),
        )

    def vectors(self, waveform: Tensor) -> Vectors:
        """Compute the vectors to align of waveforms `(batch, samples)`, without masks: as the student is served."""
        return self._vectors(waveform, None)[0]

    def _vectors(self, waveform: Tensor, augment: Callable[[Tensor], Tensor] | None) -> tuple[Vectors, Tensor]:
        vectors, whitened = self.student.embed(waveform, self._level, self._space, augment, half=self._half)
        if self.projection is not None:
            vectors = (functional.normalize(self.projection(whitened), dim=1),)
        return vectors, whitened
