"""Compare `offkey enroll FOLDER` with `offkey score FOLDER`: the cost of storing embeddings.

    python benchmarks/enrollment.py [--clips 1000]

Both commands send the same synthetic 10 s clips to the same service, in turn; every round enrolls into a new machine.
The zip archive is a job of low priority on one thread.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import soundfile
from machine import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from serving import offkey, running

from service.synthetic import MACHINES

ROUNDS = 3


def main() -> None:
    """Measure and write results/enrollment.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1_000)
    count = parser.parse_args().clips
    rates: dict[str, list[float]] = {"enroll": [], "score": [], "enroll a zip": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clips, archive = root / "clips", root / "clips.zip"
        record(clips, archive, count)
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        with running(offkey()[0], root, []) as server:
            for turn in range(ROUNDS):
                for name, command, files in (
                    ("enroll", "enroll", clips),
                    ("score", "score", clips),
                    ("enroll a zip", "enroll", archive),
                ):
                    machine = f"zip-{turn}" if files is archive else f"fan-{turn}"
                    rates[name].append(
                        count / seconds([command, str(files), "--machine", machine, "--url", server.url])
                    )
    medians = {name: statistics.median(found) for name, found in rates.items()}
    table = Table("command", "clips/s", "of scoring")
    for name, rate in medians.items():
        table.add_row(name, f"{rate:.0f}", f"{rate / medians['score']:.2f}")
    Console().print(table)
    result = {"clips": count, "clips_per_s": medians, "of_scoring": medians["enroll"] / medians["score"]}
    print(write("enrollment", "python benchmarks/enrollment.py", result))


def record(folder: Path, archive: Path, count: int) -> None:
    """Write so many healthy clips, and all of them as a zip archive."""
    folder.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for number in track(range(count), f"{count} clips", transient=True):
            samples = MACHINES["fan-synthetic"].clip(
                split="train", domain="source", number=number, severity=0.0, seconds=10.0
            )
            path = folder / f"{number:05d}.wav"
            soundfile.write(path, samples, 16_000, subtype="PCM_16")
            packed.write(path, path.name)


def seconds(arguments: list[str]) -> float:
    """How long a command takes, with its own start."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "service.cli", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
