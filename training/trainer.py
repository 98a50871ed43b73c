"""A student, its teacher and its optimizer, one update at a time."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from training.config import Config, ConfigError, OptimConfig
from training.data.batches import Batch
from training.data.shard import Shard
from training.mixing import Snr, SpecAugment, generator_at, mix
from training.objective import ANCHOR_PERIOD, Answers, Losses, Objective, anchored
from training.processes import Processes
from training.run import RunError
from training.student import Student, Vectors
from training.teacher import Teacher


class Learner(nn.Module):
    """The student with what only training needs: a tagging head, and a projection to a teacher of another kind."""

    def __init__(self, student: Student, classes: int, teacher_dim: int | None, config: Config) -> None:
        """`teacher_dim` is None where the teacher speaks the student's own space."""
        super().__init__()
        self.student = student
        self.head = nn.Linear(student.dim, classes)
        self.projection = None if teacher_dim is None else nn.Linear(student.dim, teacher_dim)
        self._level = config.objective.level
        self._space = config.objective.space
        self._half = config.loop.precision == "bfloat16"

    def forward(self, mixtures: Tensor, singles: Tensor, augment: Callable[[Tensor], Tensor]) -> Answers:
        """Compute vectors to align, and logits of the mixtures.

        Args:
            mixtures: `(batch, samples)`.
            singles: sounds that are not mixed, `(rows, samples)`; there may be none.
            augment: masks the log-mel of the mixtures alone.
        """
        count = len(mixtures)

        def augment_mixtures(logmel: Tensor) -> Tensor:
            return torch.cat([augment(logmel[:count]), logmel[count:]]) if len(singles) else augment(logmel)

        waveforms = torch.cat([mixtures, singles]) if len(singles) else mixtures
        vectors, whitened = self._vectors(waveforms, augment_mixtures)
        return Answers(
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


class Trainer:
    """Updates by number: all that is random depends on the seed and the number of the step.

    The encoder is in evaluation mode throughout: batch statistics of a few mixtures are a worse guess than those of
    the data it was trained on. So no row of a batch knows of the others, and a batch may be parted at will, among
    processes and into parts that a process handles one after the other.
    """

    def __init__(self, config: Config, learner: Learner, teacher: Teacher, processes: Processes) -> None:
        """Take a learner whose student is whitened.

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
        world, parts, batch = processes.shard.world, config.optim.accumulate, config.optim.batch
        if parts < 1 or batch % (world * parts):
            raise ConfigError(
                f"`optim.batch` is {batch}, which does not divide among {world} processes with `optim.accumulate` "
                f"{parts}."
            )
        if config.objective.anchor_weight and batch // (world * parts) % ANCHOR_PERIOD:
            raise ConfigError(
                f"With `objective.anchor_weight` a part of a batch must be a multiple of {ANCHOR_PERIOD} mixtures, not "
                f"{batch // (world * parts)}. Change `optim.batch` or `optim.accumulate`."
            )
        encoder = learner.student.encoder
        extra = [part for part in (learner.head, learner.projection) if part is not None]
        self._extra = [parameter for part in extra for parameter in part.parameters()]
        rates = (config.optim.learning_rate, config.optim.head_learning_rate)
        self._rates, groups = parameter_groups((list(encoder.parameters()), self._extra), rates, config.optim)
        self.optimizer = torch.optim.AdamW(groups)
        self.average: dict[str, Tensor] = {}
        if config.optim.ema_decay:
            self.average = {name: value.detach().clone() for name, value in encoder.named_parameters()}
        # Layers behind the deepest one that is read never get a gradient.
        self._parallel = (
            DistributedDataParallel(learner, broadcast_buffers=False, find_unused_parameters=True)
            if world > 1
            else learner
        )

    def learning_rate(self, number: int) -> float:
        """Of the encoder, in step `number`, from 0."""
        return self._rates[0] * learning_rate_factor(number, self.config.optim)

    def step(self, batch: Batch) -> Losses:
        """One update on this process's rows of a batch; losses are those of the whole batch."""
        batch = batch.to(self.processes.device)
        parts = self.config.optim.accumulate
        rows = len(batch.tags) // parts
        self.optimizer.zero_grad()
        found = []
        for part in range(parts):
            with self._sync(last=part == parts - 1):
                losses = self._losses(batch, slice(part * rows, (part + 1) * rows), part)
                torch.autograd.backward(losses.total / parts)
            found.append(torch.stack([losses.total.detach(), losses.alignment, losses.tagging, losses.anchor]))
        self._update(batch.number)
        return Losses(*self.processes.mean(torch.stack(found).mean(dim=0)))

    def _losses(self, batch: Batch, rows: slice, part: int) -> Losses:
        own, parts = self.processes.shard, self.config.optim.accumulate
        shard = Shard(own.rank * parts + part, own.world * parts)
        generator = generator_at(self.config.seed, batch.number, self.processes.device)
        snr_db = self.snr.draw(rows.stop - rows.start, generator, shard)
        sources, noises = batch.sources[rows], batch.noises[rows]
        augment = partial(self.augment, generator=generator, shard=shard)
        singles = sources[:0]
        if self.config.objective.anchor_weight:
            singles = anchored(sources, noises)
        return self.objective(
            self._parallel(mix(sources, noises, snr_db), singles, augment),
            self.teacher.vectors(batch.source_windows[rows], sources),
            self.teacher.vectors(batch.noise_windows[rows], noises),
            batch.tags[rows],
            self.objective.clean_share(snr_db),
        )

    def _sync(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients travel between processes once for every update."""
        if isinstance(self._parallel, DistributedDataParallel) and not last:
            waiting: AbstractContextManager[None] = self._parallel.no_sync()
            return waiting
        return nullcontext()

    def _update(self, number: int) -> None:
        factor = learning_rate_factor(number, self.config.optim)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        encoder = self.learner.student.encoder
        norm = nn.utils.clip_grad_norm_([*encoder.parameters(), *self._extra], self.config.optim.clip_norm)
        if not torch.isfinite(norm):
            raise RunError(
                f"The gradient of step {number + 1} is not finite. Lower `optim.learning_rate`, or look for "
                "damaged audio; the newest checkpoint is from before."
            )
        self.optimizer.step()
        with torch.no_grad():
            for name, value in encoder.named_parameters() if self.average else ():
                self.average[name].lerp_(value, 1 - self.config.optim.ema_decay)

    def keep_average(self) -> None:
        """Give the student the averaged weights, if an average is kept."""
        encoder = self.learner.student.encoder
        encoder.load_state_dict({**encoder.state_dict(), **self.average})

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the student the averaged weights for a block, if an average is kept: it is measured with them."""
        encoder = self.learner.student.encoder
        training = {name: value.detach().clone() for name, value in encoder.named_parameters() if name in self.average}
        self.keep_average()
        yield
        encoder.load_state_dict({**encoder.state_dict(), **training})

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on: weights, moments of the optimizer, the average."""
        found = dict(self.learner.state_dict())
        for index, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
        return found | {f"average.{name}": value for name, value in self.average.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors` gave."""
        moments: dict[int, dict[str, Tensor]] = {}
        weights = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, key = rest.partition(".")
                moments.setdefault(int(index), {})[key] = value
            elif kind == "average":
                self.average[rest].copy_(value)
            elif kind not in ("teacher", "best"):
                weights[name] = value
        self.learner.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


def parameter_groups(
    parts: Sequence[Sequence[nn.Parameter]], rates: Sequence[float], optim: OptimConfig
) -> tuple[tuple[float, ...], list[dict[str, Any]]]:
    """Split parameters into groups of the optimizer, with the learning rate of each.

    Only weights of convolutions and linear layers decay. Decay of a norm's scale or of a bias changes what a layer
    computes and regularizes nothing.

    Args:
        parts: parameters of the encoder, then of the heads.
        rates: the learning rate of each part.
        optim: has the weight decay.
    """
    found = [
        (rate, {"params": chosen, "weight_decay": decay})
        for part, rate in zip(parts, rates, strict=True)
        for decay, chosen in (
            (optim.weight_decay, [parameter for parameter in part if parameter.dim() > 1]),
            (0.0, [parameter for parameter in part if parameter.dim() <= 1]),
        )
        if chosen
    ]
    return tuple(rate for rate, _ in found), [group for _, group in found]


def learning_rate_factor(step: int, optim: OptimConfig) -> float:
    """Share of the full learning rate at `step`: a line up over the warm-up, then half a cosine down to 0."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
