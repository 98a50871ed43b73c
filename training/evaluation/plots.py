"""Draws scores over the signal-to-noise ratio, by condition and by machine."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offkey import atomic
from training.evaluation.comparison import ALL, Cell, Key
from training.evaluation.config import LOGMEL, ORACLE
from training.evaluation.experiment import Result
from training.evaluation.protocol import NOISY

_COLORS = ("#2166ac", "#b2182b", "#1b7837", "#762a83", "#e08214", "#01665e", "#8c510a", "#c51b7d")
_FIXED = {LOGMEL: "#7f7f7f", ORACLE: "#000000"}
_RELATIONS = ("matched", "mismatch")


def draw(result: Result, path: Path) -> list[Path]:
    """Draw `-auc.png`, `-official.png` and `-machines.png` next to the JSON file at `path`; return the files."""
    conditions = [condition.name for condition in NOISY]
    panels = [(name, ALL, name) for name in conditions]
    wanted = {
        "auc": ("AUC, distance to the nearest train clip", "nearest", "auc", panels, len(conditions)),
        "official": ("Official score, as served", "served", "official", panels, len(conditions)),
        "machines": (
            "AUC by machine, distance to the nearest train clip",
            "nearest",
            "auc",
            [(f"{m.name}, {relation}", m.name, relation) for relation in _RELATIONS for m in result.machines],
            len(result.machines),
        ),
    }
    written = []
    for name, (title, scorer, metric, shown, columns) in wanted.items():
        picture = path.with_name(f"{path.stem}-{name}.png")
        _figure(result, title, scorer, metric, shown, columns, picture)
        written.append(picture)
    return written


def _figure(
    result: Result,
    title: str,
    scorer: str,
    metric: str,
    panels: Sequence[tuple[str, str, str]],
    columns: int,
    picture: Path,
) -> None:
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(3.2 * columns, 6.4), 3.2 * rows + 1.0), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, (name, machine, condition) in zip(grid.flat, panels, strict=False):
        _panel(result, panel, scorer, metric, machine, condition)
        panel.set_title(name, fontsize=10)
    for panel in grid[-1]:
        panel.set_xlabel("signal-to-noise ratio, dB")
    for row in grid:
        row[0].set_ylabel(metric if metric == "official" else metric.upper())
    figure.suptitle(f"{title}; bands are 95 % intervals")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    save(figure, picture)


def save(figure: Figure, picture: Path) -> None:
    """Write a picture atomically; create its folder."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _panel(result: Result, panel: Axes, scorer: str, metric: str, machine: str, condition: str) -> None:
    snrs = sorted(result.config.snr_db)
    grouped = {name for names in result.config.groups.values() for name in names}
    shown = [method for method in result.compared if method not in grouped]  # a group replaces its methods
    free = [method for method in shown if method not in _FIXED]
    colors = _FIXED | dict(zip(free, _COLORS * len(free), strict=False))
    for method in shown:
        keys = [Key(method, scorer, machine, Cell(condition, snr), metric) for snr in snrs]
        found = [interval for key in keys if (interval := result.comparison.interval(key)) is not None]
        color, style = colors[method], "--" if method in _FIXED else "-"
        panel.plot(snrs, [one.value for one in found], style, marker="o", markersize=3, color=color, label=method)
        ends = [one.low for one in found], [one.high for one in found]
        panel.fill_between(snrs, *ends, color=color, alpha=0.1, linewidth=0)
    panel.axhline(0.5, color="#bbbbbb", linewidth=0.8, zorder=0)
    panel.grid(alpha=0.3)
    panel.set_xticks(snrs)
