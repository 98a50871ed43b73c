"""Draws a picture of each machine: ROC curves, and the distribution of scores."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray
from rich.progress import Progress

from training.evaluation.challenge.evaluation import Evaluation, Judged
from training.evaluation.plots import save
from training.evaluation.tree import JudgedMachine
from training.metrics import MAX_FPR, Flags

_SOURCE, _TARGET = "#2166ac", "#b2182b"
_BINS = 30
_TICKS = (*(-(10.0**power) for power in range(4, -1, -1)), 0.0, *(10.0**power for power in range(7)))


def draw_pictures(found: Evaluation, folder: Path, progress: Progress) -> None:
    """Draw `<bundle>/<machine>.png`, a row for each section."""
    task = progress.add_task("drawing", total=len(found.manifests) * len(found.folders))
    for bundle in found.manifests:
        for name in found.folders:
            machines = [machine for machine in found.machines if machine.folder == name]
            figure = Figure(figsize=(11.0, 3.4 * len(machines) + 0.6), layout="constrained")
            grid = figure.subplots(len(machines), 2, squeeze=False, width_ratios=(2, 3))
            for (left, right), machine in zip(grid, machines, strict=True):
                judged = found.judged[bundle, machine.name]
                _roc(left, machine, judged)
                _histogram(right, machine, judged)
            figure.suptitle(f"{name}, {bundle}")
            save(figure, folder / bundle / f"{name}.png")
            progress.advance(task)


def _roc(panel: Axes, machine: JudgedMachine, judged: Judged) -> None:
    for label, key, color, normal, anomalous in _curves(machine):
        rates = _rates(judged.scores, normal, anomalous)
        panel.plot(*rates, color=color, label=f"{label}, AUC {judged.figures[key][0]:.3f}")
    panel.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, zorder=0)
    panel.axvspan(0, MAX_FPR, color="#eeeeee", zorder=-1)
    panel.set(xlabel="false-positive rate", ylabel="true-positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
    panel.set_title(f"{machine.name}, pAUC {judged.figures['pauc'][0]:.3f}", fontsize=10)
    panel.legend(loc="lower right", fontsize=8, frameon=False)


def _curves(machine: JudgedMachine) -> Iterable[tuple[str, str, str, Flags, Flags]]:
    """Yield label, figure, color and clips of each curve, according to the AUC of the year."""
    if machine.form in ("2020", "plain"):
        yield "all clips", "auc", _SOURCE, ~machine.anomalous, machine.anomalous
        return
    for label, color, own in (("source", _SOURCE, ~machine.target), ("target", _TARGET, machine.target)):
        anomalous = machine.anomalous & own if machine.form == "2021" else machine.anomalous
        normal = ~machine.anomalous & own
        if normal.any() and anomalous.any():
            yield label, f"auc_{label}", color, normal, anomalous


def _rates(scores: NDArray[np.float64], normal: Flags, anomalous: Flags) -> tuple[list[float], list[float]]:
    """Compute false-positive and true-positive rates at every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique(scores[normal | anomalous])[::-1]
    false = [float(np.mean(scores[normal] >= value)) for value in thresholds]
    true = [float(np.mean(scores[anomalous] >= value)) for value in thresholds]
    return [0.0, *false], [0.0, *true]


def _histogram(panel: Axes, machine: JudgedMachine, judged: Judged) -> None:
    """Draw counts of clips by score, source upward, target downward; the axis is linear near 0, then logarithmic."""
    bins = _bins(judged.scores, judged.threshold.value)
    for domain, color, own, sign in (
        ("source", _SOURCE, ~machine.target, 1),
        ("target", _TARGET, machine.target, -1),
    ):
        named = f" {domain}" if machine.target.any() else ""
        for faulty in (False, True):
            scores = judged.scores[own & (machine.anomalous == faulty)]
            if len(scores):
                panel.hist(
                    scores,
                    bins,
                    weights=np.full(len(scores), sign),
                    color=color,
                    histtype="step" if faulty else "stepfilled",
                    alpha=1.0 if faulty else 0.35,
                    linewidth=1.5 if faulty else 0.0,
                    label=f"{'anomaly' if faulty else 'normal'}{named}",
                )
    panel.axvline(judged.threshold.value, color="black", linestyle="--", linewidth=1, label="threshold")
    panel.axhline(0, color="black", linewidth=0.8)
    panel.set_xscale("asinh")
    panel.set_xticks([tick for tick in _TICKS if bins[0] <= tick <= bins[-1]])
    panel.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.yaxis.set_major_formatter(lambda count, _: f"{abs(count):.0f}")
    panel.set(xlabel="anomaly score", ylabel="test clips")
    panel.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _bins(scores: NDArray[np.float64], threshold: float) -> list[float]:
    """Compute equal bins in arcsinh; the threshold is an edge, so that no bar is on both sides of it."""
    places = np.arcsinh(scores) - np.arcsinh(threshold)
    step = max(float(np.ptp(np.append(places, 0.0))) / _BINS, 0.01)
    first, last = np.floor(min(places.min(), 0.0) / step), np.ceil(max(places.max(), 0.0) / step)
    # A score at the threshold is not an alarm and belongs to the bin below.
    edges = np.nextafter(np.sinh(np.arcsinh(threshold) + step * np.arange(first - 1, last + 2)), np.inf)
    return [float(edge) for edge in edges]
