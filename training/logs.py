"""What a run says of its losses: a table, a picture, and TensorBoard where that is installed."""

import csv
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from training.run import Run

PLOT_FILE = "loss.png"
_SMOOTH = 50  # at most so many points of a smoothed line; single batches are noisy
_COLORS = {"alignment": "#2166ac", "tagging": "#b2182b"}


class Logs:
    """Rows by step into `log.csv`, `loss.png` and, with the package `tensorboard`, event files in `tensorboard/`."""

    def __init__(self, run: Run, step: int) -> None:
        """Go on behind `step`: what an interrupted run logged after it is taken back."""
        self.run = run
        run.rewind_log(step)
        self._board = _tensorboard(run.folder / "tensorboard", step)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self.run.log({"step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def plot(self) -> None:
        """Draw the losses so far."""
        if self.run.log_file.exists():
            plot_losses(self.run.log_file, self.run.folder / PLOT_FILE)

    def close(self) -> None:
        """Write out what is pending."""
        if self._board is not None:
            self._board.close()


def plot_losses(log: Path, picture: Path) -> None:
    """Draw both losses of a `log.csv` over the steps, each with a running mean."""
    with log.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(8, 5), layout="constrained")
    width = max(1, len(rows) // _SMOOTH)
    panels = figure.subplots(len(_COLORS), 1, sharex=True)
    for panel, (name, color) in zip(panels, _COLORS.items(), strict=True):
        values = [float(row[name]) for row in rows]
        smooth = [
            sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - width) : end])
        ]
        marker = "o" if len(values) == 1 else ""  # a line needs two points
        panel.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
        panel.plot(steps, smooth, color=color, linewidth=1.6, marker=marker)
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
        panel.set_ylim(bottom=0)
    panels[0].set_title(f"Losses of {log.parent.name}" + (f", and their mean over {width} steps" if width > 1 else ""))
    panels[-1].set_xlabel("step")
    temporary = picture.with_suffix(".part")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(picture)


def _tensorboard(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
