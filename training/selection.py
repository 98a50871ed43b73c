"""Selects the weights nearest to the target on held-out mixtures, and stops a run that no longer improves."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.config import LoopConfig
from training.processes import Processes
from training.retention import SELECTING_SNR, SNRS_DB, HeldOut, Retention
from training.trainer import Trainer

_BEST = "best."  # prefix of the selected weights in a checkpoint


class Selection:
    """The best weights so far, by the held-out distance at 0 dB."""

    def __init__(self, trainer: Trainer, held_out: HeldOut | None, processes: Processes, config: LoopConfig) -> None:
        """Select among the weights of a trainer.

        Args:
            trainer: trainer of the student, which gets the best weights at the end.
            held_out: held-out mixtures; None if no clip is held out, and then the last weights are selected.
            processes: processes of the run; the first one measures.
            config: steps between measurements, and patience.
        """
        self._trainer = trainer
        self._held_out = held_out
        self._processes = processes
        self._config = config
        # Tagging has no target: its weights are measured, and the last ones are selected.
        self._selects = trainer.config.objective.kind != "tagging"
        self._distance = float("inf")
        self._step = 0
        self._worse = 0
        self._best: dict[str, Tensor] = {}

    @property
    def exhausted(self) -> bool:
        """Return whether `loop.patience` measurements have passed without an improvement."""
        return 0 < self._config.patience <= self._worse

    def measure(self, step: int, *, last: bool) -> Sequence[Retention]:
        """Measure the student after `step` if a measurement is due, and keep its weights if they are the best."""
        every = self._config.evaluate_steps
        due = every and (last or step % every == 0)
        if self._held_out is None or not due:
            return ()
        with self._trainer.optimizer.averaged():
            found = self._measured(self._held_out)
            distance = next(one.distance for one in found if one.snr_db == SELECTING_SNR)
            self._worse += 1
            if distance < self._distance:
                self._distance, self._step, self._worse = distance, step, 0
                if self._selects:
                    state = self._trainer.learner.state_dict()
                    self._best = {name: value.detach().clone() for name, value in state.items()}
        return found

    def _measured(self, held_out: HeldOut) -> tuple[Retention, ...]:
        """Measure in the first process and share the figures, so that all processes stop at the same step."""
        table = torch.zeros(len(SNRS_DB), 5, dtype=torch.float64, device=self._processes.device)
        if self._processes.first:
            rows = [tuple(vars(one).values()) for one in held_out.measure(self._trainer.learner.vectors)]
            table = torch.tensor(rows, dtype=torch.float64, device=self._processes.device)
        self._processes.share(table)
        return tuple(Retention(*row) for row in table.tolist())

    def tensors(self) -> dict[str, Tensor]:
        """Return the best weights, named as in a checkpoint."""
        return {_BEST + name: value for name, value in self._best.items()}

    def state(self) -> dict[str, Any]:
        """Return the state that `load` needs in addition to the tensors."""
        return {"distance": self._distance, "step": self._step, "worse": self._worse} if self._step else {}

    def load(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._best = {name.removeprefix(_BEST): value for name, value in tensors.items() if name.startswith(_BEST)}
        if state:
            self._distance, self._step, self._worse = state["distance"], state["step"], state["worse"]

    def finish(self, step: int) -> int:
        """Load the best weights into the student, or the averaged or last ones if none were selected.

        Args:
            step: number of steps that were made.

        Returns:
            The step of the loaded weights.
        """
        if not self._best:
            self._trainer.optimizer.keep_average()
            return step
        self._trainer.learner.load_state_dict(self._best)
        return self._step
