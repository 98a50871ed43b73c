"""AdamW for a student and its heads: parameter groups, learning-rate schedule, clipping and weight average."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from training.config import OptimConfig
from training.learner import Learner
from training.run import RunError


class Optimizer:
    """Updates a learner, and keeps a moving average of the encoder's weights if `optim.ema_decay` is set."""

    def __init__(self, learner: Learner, config: OptimConfig) -> None:
        """Create AdamW for a learner that is on its device."""
        self.config = config
        self._encoder = learner.student.encoder
        self._parameters = [*self._encoder.parameters(), *learner.added_parameters]
        rates = (config.learning_rate, config.head_learning_rate)
        parts = (list(self._encoder.parameters()), learner.added_parameters)
        self._rates, groups = parameter_groups(parts, rates, config)
        self.adamw = torch.optim.AdamW(groups)
        self.average: dict[str, Tensor] = {}
        if config.ema_decay:
            self.average = {name: value.detach().clone() for name, value in self._encoder.named_parameters()}

    def learning_rate(self, number: int) -> float:
        """Return the encoder's learning rate in step `number`, counted from 0."""
        return self._rates[0] * learning_rate_factor(number, self.config)

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.adamw.zero_grad()

    def step(self, number: int) -> None:
        """Update the weights with the gradients of step `number`. Raises `RunError` if they are not finite."""
        factor = learning_rate_factor(number, self.config)
        for group, rate in zip(self.adamw.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        norm = nn.utils.clip_grad_norm_(self._parameters, self.config.clip_norm)
        if not torch.isfinite(norm):
            raise RunError(
                f"The gradient of step {number + 1} is not finite. Lower `optim.learning_rate`, or look for "
                "damaged audio; the newest checkpoint is from before."
            )
        self.adamw.step()
        with torch.no_grad():
            for name, value in self._encoder.named_parameters() if self.average else ():
                self.average[name].lerp_(value, 1 - self.config.ema_decay)

    def keep_average(self) -> None:
        """Load the averaged weights into the encoder, if an average is kept."""
        self._encoder.load_state_dict({**self._encoder.state_dict(), **self.average})

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Load the averaged weights into the encoder for the time of a block, if an average is kept."""
        training = {name: x.detach().clone() for name, x in self._encoder.named_parameters() if name in self.average}
        self.keep_average()
        yield
        self._encoder.load_state_dict({**self._encoder.state_dict(), **training})


def parameter_groups(
    parts: Sequence[Sequence[nn.Parameter]], rates: Sequence[float], optim: OptimConfig
) -> tuple[tuple[float, ...], list[dict[str, Any]]]:
    """Split parameters into groups of the optimizer; return the learning rate of each group, and the groups.

    Only weights of convolutions and linear layers decay. Decay of a norm's scale or of a bias changes what a layer
    computes and regularizes nothing.

    Args:
        parts: parameters of the encoder, then of the heads.
        rates: learning rate of each part.
        optim: weight decay and other settings.
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
    """Compute the share of the full learning rate at `step`: linear warm-up, then half a cosine down to 0."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
