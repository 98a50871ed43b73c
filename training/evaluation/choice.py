"""Chooses a method without one machine, and measures it on that machine.

A method that was selected on the machines of a table has better figures there than on other machines. Here the choice
is made on all machines but one, and measured on the one that was left out.

Each bootstrap replicate repeats the choice, so an interval includes the choice, the training seeds of groups, the seeds
of the noise and the test recordings. Machines are not drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import Interval
from training.evaluation.comparison import ALL, NOISY_MEAN, Cell, Comparison, Key
from training.evaluation.tree import JudgedMachine

FIGURE = Key("", "served", "", Cell(NOISY_MEAN, None), "auc")  # criterion of the choice, and figure of the result


@dataclass(frozen=True)
class Choice:
    """The choice of a method without one machine."""

    machine: str  # left-out machine with all its sections; `all` for the mean over machines
    method: str  # chosen method; empty for the mean over machines
    share: float  # share of replicates with this choice; NaN for the mean over machines
    figure: Interval  # result of the chosen method on the left-out machine
    difference: Interval  # paired difference from the reference


def leave_one_out(comparison: Comparison, candidates: Sequence[str], reference: str) -> list[Choice]:
    """Choose a method without each machine in turn; return the choices, their mean over machines last.

    Args:
        comparison: figures of all methods on at least two machines.
        candidates: methods or groups; the first one wins a tie.
        reference: method or group that the choice is compared with.
    """
    machines = machine_names(comparison.machines)
    figures = np.stack([_by_machine(comparison, method, machines) for method in candidates])  # (methods, machines, r)
    references = _by_machine(comparison, reference, machines)  # (machines, replicates)
    found, chosen = [], np.empty_like(references)
    for place, machine in enumerate(machines):
        best = np.delete(figures, place, axis=1).mean(axis=1).argmax(axis=0)  # (replicates,)
        chosen[place] = np.take_along_axis(figures[:, place], best[None], axis=0)[0]
        intervals = Interval.of(chosen[place]), Interval.of(chosen[place] - references[place])
        found.append(Choice(machine, candidates[best[0]], float((best[1:] == best[0]).mean()), *intervals))
    intervals = Interval.of(chosen.mean(axis=0)), Interval.of((chosen - references).mean(axis=0))
    return [*found, Choice(ALL, "", float("nan"), *intervals)]


def machine_names(machines: Sequence[JudgedMachine]) -> list[str]:
    """List the names of the machines, without their sections."""
    return list(dict.fromkeys(machine.folder for machine in machines))


def _by_machine(comparison: Comparison, method: str, machines: Sequence[str]) -> NDArray[np.float64]:
    """Compute the figure of each machine, a mean over its sections, `(machines, 1 + replicates)`."""
    rows = []
    for name in machines:
        sections = [machine.name for machine in comparison.machines if machine.folder == name]
        rows.append(
            np.mean([comparison.replicates(FIGURE._replace(method=method, machine=own)) for own in sections], axis=0)
        )
    return np.stack(rows)
