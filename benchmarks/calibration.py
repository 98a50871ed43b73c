"""Realized against requested false-alarm rate, over simulated banks.

    python benchmarks/calibration.py [--banks N] [--plot FILE]

Healthy recordings are Gaussian around one center, brought to unit norm; with pieces, each recording has five that
differ little from each other. Each bank is calibrated as the service does and hears new healthy recordings. Synthetic:
it shows that the arithmetic keeps its promise where its assumption holds, not that a microphone in a hall does.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from service.domain.detector import Detector
from service.domain.distance import Vectors, nearest_rows
from service.domain.machine import Domain
from service.domain.threshold import conformal_threshold

COUNTS = (20, 50, 100, 200, 500, 1_000)
RATES = (0.01, 0.05, 0.1)
PIECES = (1, 5)
DIM = 16
HEARD = 50  # new healthy recordings per bank
WITHIN = 0.1  # deviation of the pieces of one recording
BETWEEN = 0.4  # of recordings


def main() -> None:
    """Simulate, print a table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--banks", type=int, default=1_000)
    parser.add_argument("--plot", type=Path, default=Path("docs/calibration.png"))
    given = parser.parse_args()
    found = {
        (pieces, count): realized(count, pieces, given.banks, RATES)
        for pieces, count in track([(pieces, count) for pieces in PIECES for count in COUNTS], description="simulating")
    }
    table = Table("pieces", "recordings", *(f"{rate:.0%} requested" for rate in RATES))
    for (pieces, count), alarms in found.items():
        cells = (f"{row.mean():.2%} ± {1.96 * row.std() / np.sqrt(len(row)):.2%}" for row in alarms)
        table.add_row(str(pieces), str(count), *cells)
    Console().print(table)
    draw(found, given.plot)
    Console().print(str(given.plot))


def realized(count: int, pieces: int, banks: int, rates: Sequence[float]) -> NDArray[np.float64]:
    """Share of new healthy recordings that raise an alarm, `(rates, banks)`."""
    rng = np.random.default_rng([count, pieces])
    recordings = np.repeat(np.arange(count), pieces)
    alarms = np.empty((len(rates), banks))
    for bank in range(banks):
        center = rng.standard_normal(DIM)
        enrolled = draw_recordings(rng, center, count, pieces)
        detector = Detector.fit(
            {Domain.SOURCE: enrolled}, {Domain.SOURCE: np.arange(len(enrolled))}, {Domain.SOURCE: recordings}
        )
        heard = draw_recordings(rng, center, HEARD, 1)
        scores = detector.window_scores(heard, {Domain.SOURCE: nearest_rows(heard, enrolled, detector.neighbors)})
        for row, rate in enumerate(rates):
            alarms[row, bank] = np.mean(scores > conformal_threshold(detector.self_scores, rate).value)
    return alarms


def draw_recordings(rng: np.random.Generator, center: NDArray[np.float64], count: int, pieces: int) -> Vectors:
    """`(count * pieces, DIM)` unit embeddings, the pieces of a recording one after the other."""
    own = np.repeat(center + BETWEEN * rng.standard_normal((count, DIM)), pieces, axis=0)
    own += WITHIN * rng.standard_normal(own.shape)
    unit: Vectors = (own / np.linalg.norm(own, axis=1, keepdims=True)).astype(np.float32)
    return unit


def draw(found: dict[tuple[int, int], NDArray[np.float64]], path: Path) -> None:
    """A panel for each number of pieces; the band is what is promised."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(PIECES), figsize=(9, 3.6), sharey=True, layout="constrained")
    grid = np.geomspace(COUNTS[0], COUNTS[-1], 200)
    for panel, pieces in zip(panels, PIECES, strict=True):
        for row, rate in enumerate(RATES):
            color = f"C{row}"
            promised = np.maximum(rate, 1 / (grid + 1))
            panel.fill_between(grid, promised - 1 / (grid + 1), promised, color=color, alpha=0.2, linewidth=0)
            means = [found[pieces, count][row].mean() for count in COUNTS]
            errors = [
                1.96 * found[pieces, count][row].std() / np.sqrt(found[pieces, count].shape[1]) for count in COUNTS
            ]
            panel.errorbar(COUNTS, means, errors, color=color, marker="o", markersize=4, label=f"{rate:.0%} requested")
        panel.set_xscale("log", base=10)
        panel.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
        panel.minorticks_off()
        panel.set_xlabel("enrolled recordings n")
        panel.set_title("one clip each" if pieces == 1 else f"cut into {pieces} pieces each")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("realized false-alarm rate")
    panels[0].set_ylim(0)
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=len(RATES), loc="outside upper center", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
