"""The training step: mix sounds, embed the mixtures, compare with the teacher, update the student."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from training.config import Config, ConfigError
from training.data.batches import Batch
from training.data.shard import Shard
from training.learner import Learner
from training.mixing import Snr, SpecAugment, generator_at, mix
from training.objective import ANCHOR_PERIOD, Losses, Objective, anchored
from training.optimizer import Optimizer
from training.processes import Processes
from training.teacher import Teacher


@dataclass(frozen=True)
class _Part:
    """One of the `optim.accumulate` parts of this process's rows of a batch."""

    rows: slice
    snr_db: Tensor  # (rows,)
    augment: partial[Tensor]  # masks log-mel spectra
    last: bool


class Trainer:
    """Updates by number: everything random depends on the seed and the number of the step.

    The encoder stays in evaluation mode: batch statistics of a few mixtures are a worse estimate than those of the data
    that it was trained on. So no row of a batch depends on the others, and a batch can be split among processes, and
    into parts that a process computes one after another.
    """

    def __init__(self, config: Config, learner: Learner, teacher: Teacher, processes: Processes) -> None:
        """Take a learner with a whitened student.

        Raises:
            ConfigError: the batch does not divide, or an SNR is not a number.
        """
        self.config = config
        self.learner = learner.to(processes.device)
        self.teacher = teacher
        self.processes = processes
        self.objective = Objective(config.objective)
        self.snr = Snr(config.mixing.snr_db, config.mixing.draw)
        self.augment = SpecAugment(config.spec_augment)
        _check_batch(config, processes.shard.world)
        self.optimizer = Optimizer(self.learner, config.optim)
        self.learning_rate = self.optimizer.learning_rate
        # Layers after the deepest one that is read never get a gradient.
        self._parallel = (
            DistributedDataParallel(learner, broadcast_buffers=False, find_unused_parameters=True)
            if processes.shard.world > 1
            else learner
        )

    def step(self, batch: Batch) -> Losses:
        """Update the student with this process's rows of a batch; return the losses of the whole batch."""
        batch = batch.to(self.processes.device)
        self.optimizer.zero_grad()
        losses = []
        for part in self._parts(batch):
            sources, noises = batch.sources[part.rows], batch.noises[part.rows]
            mixtures = mix(sources, noises, part.snr_db)
            singles = anchored(sources, noises) if self.config.objective.anchor_weight else sources[:0]
            with self._synchronize(last=part.last):
                predictions = self._parallel(mixtures, singles, part.augment)
                clean = self.teacher.vectors(batch.source_windows[part.rows], sources)
                noise = self.teacher.vectors(batch.noise_windows[part.rows], noises)
                share = self.objective.clean_share(part.snr_db)
                found = self.objective(predictions, clean, noise, batch.tags[part.rows], share)
                torch.autograd.backward(found.total / self.config.optim.accumulate)
            losses.append(torch.stack([found.total.detach(), found.alignment, found.tagging, found.anchor]))
        self.optimizer.step(batch.number)
        return Losses(*self.processes.mean(torch.stack(losses).mean(dim=0)))

    def _parts(self, batch: Batch) -> Iterator[_Part]:
        """Split the rows of a batch, and draw what is random as one process with one part would."""
        own, parts = self.processes.shard, self.config.optim.accumulate
        rows = len(batch.tags) // parts
        for part in range(parts):
            shard = Shard(own.rank * parts + part, own.world * parts)
            generator = generator_at(self.config.seed, batch.number, self.processes.device)
            snr_db = self.snr.draw(rows, generator, shard)
            augment = partial(self.augment, generator=generator, shard=shard)
            yield _Part(slice(part * rows, (part + 1) * rows), snr_db, augment, last=part == parts - 1)

    def _synchronize(self, *, last: bool) -> AbstractContextManager[None]:
        """Exchange gradients between processes in the last part only: once for each update."""
        if isinstance(self._parallel, DistributedDataParallel) and not last:
            local: AbstractContextManager[None] = self._parallel.no_sync()
            return local
        return nullcontext()

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on: weights, moments of the optimizer, weight average."""
        found = dict(self.learner.state_dict())
        for index, moments in self.optimizer.adamw.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
        return found | {f"average.{name}": value for name, value in self.optimizer.average.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Load the tensors that `tensors` returned."""
        moments: dict[int, dict[str, Tensor]] = {}
        weights = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, key = rest.partition(".")
                moments.setdefault(int(index), {})[key] = value
            elif kind == "average":
                self.optimizer.average[rest].copy_(value)
            elif kind not in ("teacher", "best"):
                weights[name] = value
        self.learner.load_state_dict(weights)
        adamw = self.optimizer.adamw
        adamw.load_state_dict({**adamw.state_dict(), "state": moments})


def _check_batch(config: Config, world: int) -> None:
    parts, batch = config.optim.accumulate, config.optim.batch
    if parts < 1 or batch % (world * parts):
        raise ConfigError(
            f"`optim.batch` is {batch}, which does not divide among {world} processes with `optim.accumulate` {parts}."
        )
    if config.objective.anchor_weight and batch // (world * parts) % ANCHOR_PERIOD:
        raise ConfigError(
            f"With `objective.anchor_weight` a part of a batch must be a multiple of {ANCHOR_PERIOD} mixtures, not "
            f"{batch // (world * parts)}. Change `optim.batch` or `optim.accumulate`."
        )
