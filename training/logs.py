"""The log of a run: tables of losses and held-out figures, a plot, and TensorBoard events if it is installed."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offkey import atomic
from training.retention import SELECTING_SNR, Retention, as_rows, from_rows
from training.run import Run

PLOT_FILE = "loss.png"
_SMOOTH = 50  # maximum number of independent points of a smoothed line; single batches are noisy
_COLORS = {"alignment": "#2166ac", "tagging": "#b2182b"}
_HELD_OUT, _FROZEN = "#1b7837", "#777777"


class Logs:
    """Writes `log.csv`, `retention.csv`, `loss.png`, and event files in `tensorboard/`."""

    def __init__(self, run: Run, step: int) -> None:
        """Continue after `step`; rows logged after it by an interrupted run are removed."""
        self.run = run
        for table in (run.losses, run.retention):
            table.rewind(step)
        self._board = _tensorboard(run.folder / "tensorboard", step)

    def add(self, step: int, values: Mapping[str, float], measured: Sequence[Retention] = ()) -> None:
        """Log the values of a step and the held-out figures measured after it."""
        self.run.losses.append([{"step": step, **values}])
        self.run.retention.append(as_rows(step, measured))
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            for one in measured:
                for name, value in (("held-out", one.distance), ("frozen", one.frozen_distance)):
                    self._board.add_scalar(f"distance at {one.snr_db:g} dB/{name}", value, step)

    def plot(self) -> None:
        """Draw the losses logged so far."""
        rows = self.run.losses.rows()
        if rows:
            plot_run(rows, from_rows(self.run.retention.rows()), self.run.folder / PLOT_FILE)

    def close(self) -> None:
        """Write pending events."""
        if self._board is not None:
            self._board.close()


def plot_run(rows: Sequence[Mapping[str, float]], measured: Sequence[tuple[int, Retention]], picture: Path) -> None:
    """Draw both losses over the steps, each with a moving average, and below them the held-out distance.

    Args:
        rows: rows of `log.csv`.
        measured: steps and figures of `retention.csv`; if empty, their panel is left out.
        picture: PNG file to write.
    """
    figure = Figure(figsize=(8, 7.5 if measured else 5), layout="constrained")
    panels = figure.subplots(len(_COLORS) + bool(measured), 1, sharex=True)
    width = max(1, len(rows) // _SMOOTH)
    for panel, (name, color) in zip(panels[: len(_COLORS)], _COLORS.items(), strict=True):
        _draw_loss(panel, rows, name, color, width)
    if measured:
        _draw_held_out(panels[-1], [(step, one) for step, one in measured if one.snr_db == SELECTING_SNR])
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.set_ylim(bottom=0)
    name = picture.parent.name
    panels[0].set_title(f"Losses of {name}" + (f", and their mean over {width} steps" if width > 1 else ""))
    panels[-1].set_xlabel("step")
    with atomic.replacing(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _draw_loss(panel: Axes, rows: Sequence[Mapping[str, float]], name: str, color: str, width: int) -> None:
    steps, values = [row["step"] for row in rows], [row[name] for row in rows]
    smooth = [sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - width) : end])]
    panel.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
    panel.plot(steps, smooth, color=color, linewidth=1.6, marker="o" if len(values) == 1 else "")
    panel.set_ylabel(name)


def _draw_held_out(panel: Axes, measured: Sequence[tuple[int, Retention]]) -> None:
    steps = [step for step, _ in measured]
    frozen = measured[0][1].frozen_distance
    panel.plot([0, *steps], [frozen, *(one.distance for _, one in measured)], color=_HELD_OUT, marker="o", ms=3)
    panel.axhline(frozen, color=_FROZEN, linewidth=1.6)
    panel.set_ylim(top=1.2 * max(frozen, *(one.distance for _, one in measured)))  # space for the label above the line
    low = min(measured, key=lambda pair: pair[1].distance)
    panel.plot([low[0]], [low[1].distance], color=_HELD_OUT, marker="o", ms=8, fillstyle="none")
    panel.set_ylabel("held-out distance")
    panel.annotate("frozen encoder", (steps[-1], frozen), ha="right", va="bottom", color=_FROZEN, fontsize=9)
    panel.annotate(
        f"student, {low[1].gain:.0%} nearer at step {low[0]}" if low[1].gain > 0 else "student: farther than frozen",
        (low[0], low[1].distance),
        xytext=(0, -12),
        textcoords="offset points",
        ha="right",
        va="top",
        color=_HELD_OUT,
        fontsize=9,
    )


def _tensorboard(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
