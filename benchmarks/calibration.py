"""Compare realized with requested false-alarm rates over simulated banks, with and without a guard of the bank.

    python benchmarks/calibration.py [--banks N] [--plot FILE]

Healthy recordings are Gaussian around one center, normalized to unit norm. If they are cut into pieces, the pieces of
one recording differ little. Each bank is calibrated as the service does, and scores clips of new healthy recordings.
The simulation shows that the threshold holds if its assumption does. It does not show that the assumption holds for a
microphone in a hall.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from machine import write
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from offkey.vocabulary import Domain
from service.domain.detector import Detector
from service.domain.distance import Vectors, nearest_rows
from service.domain.self_scores import SelfScores
from service.domain.threshold import conformal_threshold, guard_bound

CLIPS = (20, 50, 100, 200, 500, 1_000)
RATES = (0.01, 0.05, 0.1)
PIECES = 5
DIM = 16
SCORED = 50  # clips of new healthy recordings, per bank
WITHIN = 0.1  # deviation of the pieces of one recording
BETWEEN = 0.4  # deviation of the recordings
SOURCE = Domain.SOURCE


@dataclass(frozen=True)
class Case:
    """Origin of the clips of a bank.

    Attributes:
        title: name in the table.
        pieces: number of clips cut from each recording.
        named: whether clips are enrolled with the name of their recording.
    """

    title: str
    pieces: int
    named: bool

    def recordings(self, clips: int) -> int:
        """Return the number of recordings that the service assumes in a bank of `clips` clips."""
        return clips // self.pieces if self.named else clips


CASES = (
    Case("one clip each", 1, named=True),
    Case(f"cut into {PIECES} pieces each", PIECES, named=True),
    Case(f"cut into {PIECES} pieces that pass for recordings", PIECES, named=False),
)
# Bound above which a clip is not enrolled. The last one is the service's.
GUARDS: dict[str, Callable[[SelfScores, float], float]] = {
    "none": lambda own, threshold: np.inf,
    "at the threshold": lambda own, threshold: threshold,
    "as the service": guard_bound,
}


def main() -> None:
    """Simulate, print tables, write results/calibration.json, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--banks", type=int, default=1_000)
    parser.add_argument("--plot", type=Path, default=Path("docs/measurements/calibration.png"))
    given = parser.parse_args()
    points = [(case, clips) for case in CASES for clips in CLIPS]
    found = {point: realized(*point, given.banks) for point in track(points, description="simulating")}
    guards = {name: guarded(bound, given.banks // 5) for name, bound in GUARDS.items()}
    rows = [row for point in points for row in summarize(*point, found[point])]
    show(rows, guards)
    draw(found, given.plot)
    result = {"banks": given.banks, "dim": DIM, "scored": SCORED, "rows": rows, "guards": guards}
    print(write("calibration", "python benchmarks/calibration.py", result))
    print(given.plot)


def realized(case: Case, clips: int, banks: int) -> NDArray[np.float64]:
    """Share of clips of new healthy recordings that raise an alarm, `(rates, banks)`."""
    rng = np.random.default_rng([clips, case.pieces])  # the same banks, named or not
    numbers = np.arange(clips) // (case.pieces if case.named else 1)
    alarms = np.empty((len(RATES), banks))
    for bank in range(banks):
        center = rng.standard_normal(DIM)
        enrolled = draw_recordings(rng, center, clips // case.pieces, case.pieces)
        detector = fit(enrolled, numbers)
        scores = score(detector, draw_recordings(rng, center, SCORED, 1), enrolled)
        for row, rate in enumerate(RATES):
            alarms[row, bank] = np.mean(scores > conformal_threshold(detector.self_scores, rate).value)
    return alarms


def guarded(bound: Callable[[SelfScores, float], float], banks: int, rate: float = 0.05) -> dict[str, float]:
    """What comes of a guard when nobody overrides it: from 20 recordings on, 180 healthy ones are offered by eights.

    Returns:
        Share of them held back, and the realized false-alarm rate of the bank in the end.
    """
    rng = np.random.default_rng(0)
    held, alarms = [], []
    for _ in range(banks):
        center = rng.standard_normal(DIM)
        enrolled = draw_recordings(rng, center, 20, 1)
        for offered in np.split(draw_recordings(rng, center, 176, 1), 22):
            detector = fit(enrolled, np.arange(len(enrolled)))
            threshold = conformal_threshold(detector.self_scores, rate).value
            welcome = score(detector, offered, enrolled) <= bound(detector.self_scores[SOURCE], threshold)
            enrolled = np.concatenate([enrolled, offered[welcome]])
            held.append(1 - welcome.mean())
        detector = fit(enrolled, np.arange(len(enrolled)))
        scores = score(detector, draw_recordings(rng, center, SCORED, 1), enrolled)
        alarms.append(np.mean(scores > conformal_threshold(detector.self_scores, rate).value))
    return {
        "requested": rate,
        "held_back": round(float(np.mean(held)), 4),
        "realized": round(float(np.mean(alarms)), 4),
    }


def draw_recordings(rng: np.random.Generator, center: NDArray[np.float64], count: int, pieces: int) -> Vectors:
    """Draw unit embeddings `(count * pieces, DIM)`, the pieces of a recording one after the other."""
    own = np.repeat(center + BETWEEN * rng.standard_normal((count, DIM)), pieces, axis=0)
    own += WITHIN * rng.standard_normal(own.shape)
    unit: Vectors = (own / np.linalg.norm(own, axis=1, keepdims=True)).astype(np.float32)
    return unit


def fit(enrolled: Vectors, recordings: NDArray[np.int64]) -> Detector:
    """Calibrate a bank of one domain."""
    return Detector.fit({SOURCE: enrolled}, {SOURCE: np.arange(len(enrolled))}, {SOURCE: recordings})


def score(detector: Detector, windows: Vectors, enrolled: Vectors) -> NDArray[np.float64]:
    """Score clips of one window each."""
    return detector.window_scores(windows, {SOURCE: nearest_rows(windows, enrolled, detector.neighbors)})[SOURCE]


def summarize(case: Case, clips: int, alarms: NDArray[np.float64]) -> list[dict[str, object]]:
    """Compute a row per rate: mean over banks, its 95 % interval, and the range of nine in ten banks."""
    rows: list[dict[str, object]] = []
    for rate, shares in zip(RATES, alarms, strict=True):
        promised = max(rate, 1 / (case.recordings(clips) + 1))
        low, high = np.quantile(shares, [0.05, 0.95])
        rows.append(
            {
                "case": case.title,
                "clips": clips,
                "recordings": case.recordings(clips),
                "requested": rate,
                "promised": round(promised, 4),
                "realized": round(float(shares.mean()), 4),
                "error": round(float(1.96 * shares.std() / np.sqrt(len(shares))), 4),
                "banks_5_to_95": [round(float(low), 4), round(float(high), 4)],
            }
        )
    return rows


def show(rows: list[dict[str, object]], guards: dict[str, dict[str, float]]) -> None:
    """Print the tables."""
    table = Table("case", "clips", "recordings", *(f"{rate:.0%} requested" for rate in RATES))
    for start in range(0, len(rows), len(RATES)):
        own = rows[start : start + len(RATES)]
        cells = (f"{row['realized']:.2%} ± {row['error']:.2%} of {row['promised']:.2%}" for row in own)
        table.add_row(*(str(own[0][key]) for key in ("case", "clips", "recordings")), *cells)
    Console().print(table)
    table = Table("guard", "held back", "realized, 5% requested")
    for name, row in guards.items():
        table.add_row(name, f"{row['held_back']:.2%}", f"{row['realized']:.2%}")
    Console().print(table)


def draw(found: dict[tuple[Case, int], NDArray[np.float64]], path: Path) -> None:
    """Draw a panel for each case with named recordings. The band is the promised range."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    named = [case for case in CASES if case.named]
    figure, panels = plt.subplots(1, len(named), figsize=(9, 3.8), sharey=True, layout="constrained")
    grid = np.geomspace(CLIPS[0], CLIPS[-1], 300)
    for panel, case in zip(panels, named, strict=True):
        for row, rate in enumerate(RATES):
            lowest = 1 / (grid / case.pieces + 1)
            promised = np.maximum(rate, lowest)
            panel.fill_between(grid, promised - lowest, promised, color=f"C{row}", alpha=0.2, linewidth=0)
            shares = np.stack([found[case, clips][row] for clips in CLIPS])  # (clips, banks)
            errors = 1.96 * shares.std(axis=1) / np.sqrt(shares.shape[1])
            panel.errorbar(
                CLIPS,
                shares.mean(axis=1),
                errors,
                color=f"C{row}",
                marker="o",
                markersize=4,
                label=f"{rate:.0%} requested",
            )
        panel.set_xscale("log", base=10)
        panel.set_xticks(CLIPS, [f"{clips:,}" for clips in CLIPS])
        panel.minorticks_off()
        panel.set_xlabel("enrolled clips")
        panel.set_title(case.title, fontsize=10)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("realized false-alarm rate")
    panels[0].set_ylim(0)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(RATES), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
