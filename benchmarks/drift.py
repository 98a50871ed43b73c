"""Measure how often a healthy machine gets a drift verdict, and after how many clips real drift is detected.

    python benchmarks/drift.py [--streams N]

Banks and clips are drawn as in calibration.py and scored as the service does. The verdict is computed after every
second clip of a stream, over the last 100 clips and over all stored clips, as `GET /machines/{machine_id}/drift`
does. A shift moves all scores of the stream, in deviations of the bank's self-scores. Synthetic: the clips are
independent, which clips of one afternoon are not.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from calibration import DIM, SOURCE, draw_recordings, fit, score
from machine import write
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from offkey.vocabulary import Verdict
from service.domain.drift import MIN_SCORES, Drift
from service.domain.self_scores import SelfScores
from service.store.scores import RECENT_SCORES
from service.usecases.drift import LAST_CLIPS

RECORDINGS = (10, 20, 50, 100, 200)
SHIFTS = (0.0, 0.5, 1.0, 2.0)
CLIPS = 1_000  # clips of a stream
EVERY = 2  # clips between two verdicts


def first_verdict(own: SelfScores, scores: NDArray[np.float64], every: int = EVERY) -> float:
    """Return the number of clips until the first verdict of drift. Infinity if there is none."""
    for scored in range(MIN_SCORES, len(scores) + 1, every):
        for window in (LAST_CLIPS, RECENT_SCORES):
            if Drift.of(own, scores[max(scored - window, 0) : scored]).verdict is not Verdict.STEADY:
                return scored
    return np.inf


def streams(recordings: int, clips: int, count: int) -> Iterator[tuple[SelfScores, NDArray[np.float64]]]:
    """Self-scores of banks, and the scores of healthy clips after them."""
    rng = np.random.default_rng(recordings)
    for _ in range(count):
        center = rng.standard_normal(DIM)
        enrolled = draw_recordings(rng, center, recordings, 1)
        detector = fit(enrolled, np.arange(recordings))
        yield detector.self_scores[SOURCE], score(detector, draw_recordings(rng, center, clips, 1), enrolled)


def main() -> None:
    """Simulate, print a table, write results/drift.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    given = parser.parse_args()
    rows = []
    for recordings in track(RECORDINGS, description="simulating"):
        drawn = list(streams(recordings, CLIPS, given.streams))
        for shift in SHIFTS:
            first = np.array([first_verdict(own, scores + shift * own.scores.std()) for own, scores in drawn])
            detected = np.isfinite(first)
            rows.append(
                {
                    "recordings": recordings,
                    "shift_sigma": shift,
                    "detected": round(float(detected.mean()), 4),
                    "detected_within_100": round(float((first <= 100).mean()), 4),
                    "median_clips": float(np.median(first[detected])) if detected.any() else None,
                }
            )
    table = Table("recordings", "shift, sigma", "detected", "within 100 clips", "after clips, median")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    result = {"streams": given.streams, "clips": CLIPS, "looks_every": EVERY, "rows": rows}
    print(write("drift", f"python benchmarks/drift.py --streams {given.streams}", result))


if __name__ == "__main__":
    main()
