"""Writes the log and the checkpoints of a run; only the first process has a writer."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from training.config import Config, to_table
from training.logs import Logs
from training.objective import Losses
from training.retention import Retention
from training.run import Run
from training.teacher import Teacher


class RunWriter:
    """Writes into a run folder."""

    def __init__(self, config: Config, run: Run, teacher: Teacher, step: int) -> None:
        """Continue after `step`; rows logged after it by an interrupted run are removed."""
        self._config = config
        self._run = run
        self._teacher = teacher
        self._logs = Logs(run, step)

    def log(self, step: int, losses: Losses, learning_rate: float, measured: Sequence[Retention]) -> None:
        """Log the losses of a step and the held-out figures measured after it."""
        row = {name: value.item() for name, value in vars(losses).items()}
        self._logs.add(step, {**row, "learning_rate": learning_rate}, measured)

    def save(self, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Write a checkpoint and draw the plot."""
        state = {
            **about,
            "config": to_table(self._config),
            "teacher_hits": self._teacher.hits,
            "teacher_misses": self._teacher.misses,
        }
        self._run.save(step, tensors, state, keep=self._config.loop.keep_checkpoints)
        self._logs.plot()

    def close(self) -> None:
        """Close the log."""
        self._logs.close()
