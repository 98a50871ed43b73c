"""Exact search beside HNSW on embeddings of clips: where does the graph begin to pay, and what does it miss?

    python benchmarks/search.py [--audio FOLDER] [--sizes 1000 3000 10000 20000]

The shipped student hears windows of 5 s, cut from the folder's recordings as densely as the largest size needs;
without a folder the clips are synthetic. Queries are windows of recordings that no bank holds. All sides answer the
same queries in turn, one thread each. Half precision is what a bank takes in memory with `OFFKEY_HALF_PRECISION`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from machine import write
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from threadpoolctl import threadpool_limits

from service.bank.index import ExactIndex, HnswIndex, Index
from service.encoder.encoder import Encoder
from service.settings import Device, shipped_bundle
from service.synthetic import MACHINES

WINDOW_SECONDS = 5.0
QUERIES = 1_000
SAME = 1e-6  # two windows as near as each other are both right
SYNTHETIC_CLIPS = 40


def main() -> None:
    """Measure and write results/search.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, help="folder of recordings; none: synthetic clips")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 3_000, 10_000, 20_000])
    options = parser.parse_args()
    threadpool_limits(1, user_api="blas")
    encoder = Encoder(shipped_bundle(), Device.CPU)
    vectors, queries = embed(recordings(options.audio, encoder.sample_rate), encoder, max(options.sizes))
    rows = [measure(vectors[:size], queries) for size in options.sizes]
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    command = "python benchmarks/search.py" + (" --audio FOLDER" if options.audio else "")
    print(write("search", command, {"dim": vectors.shape[1], "rows": rows}))


def recordings(folder: Path | None, sample_rate: int) -> list[NDArray[np.float32]]:
    """Recordings `(samples,)` of at least a window, in an order that mixes kinds."""
    if folder is None:
        machine = MACHINES["fan-synthetic"]
        return [
            machine.clip(split="train", domain="source", number=number, severity=0.0, seconds=20.0)
            for number in range(SYNTHETIC_CLIPS)
        ]
    found = []
    for path in sorted(folder.rglob("*.*")):
        if path.suffix in {".wav", ".flac", ".ogg"}:
            samples, rate = soundfile.read(path, dtype="float32")
            if rate == sample_rate and samples.ndim == 1 and len(samples) > WINDOW_SECONDS * rate:
                found.append(samples)
    return [found[at] for at in np.random.default_rng(0).permutation(len(found))]


def embed(
    recordings: list[NDArray[np.float32]], encoder: Encoder, most: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Windows for a bank `(most, dim)` in mixed order, and queries `(QUERIES, dim)` of other recordings."""
    rng = np.random.default_rng(0)
    length = round(WINDOW_SECONDS * encoder.sample_rate)
    held = max(1, len(recordings) // 10)
    vectors = []
    for group, count in ((recordings[held:], most), (recordings[:held], QUERIES)):
        room = np.array([len(samples) - length for samples in group], dtype=float)
        places = rng.choice(len(group), count, p=room / room.sum())
        rows = []
        for at in track(places, f"{count} windows", transient=True):
            start = int(rng.integers(len(group[at]) - length))
            rows.append(encoder.embed(group[at][start : start + length])[0])
        vectors.append(np.concatenate(rows))
    return vectors[0], vectors[1]


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def measure(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> dict[str, float]:
    """Medians over the queries, and the share of them whose nearest window is found."""
    start = time.perf_counter()
    graph = HnswIndex(vectors)
    build = time.perf_counter() - start
    sides: dict[str, Index] = {"exact": ExactIndex(vectors), "half": ExactIndex(vectors, half=True), "hnsw": graph}
    times: dict[str, list[float]] = {name: [] for name in sides}
    right = dict.fromkeys(sides, 0)
    for query in queries[:, None, :]:
        for name, side in sides.items():
            times[name].append(milliseconds(lambda side=side, query=query: side.search(query, 1)))
        nearest = float(1.0 - (vectors @ query[0]).max())
        for name, side in sides.items():
            found = vectors[side.search(query, 1)[1][0, 0]]
            right[name] += bool(1.0 - found @ query[0] <= nearest + SAME)
    return {
        "windows": len(vectors),
        **{f"{name}_ms": round(statistics.median(each), 3) for name, each in times.items()},
        "hnsw_build_s": round(build, 2),
        **{f"{name}_recall": right[name] / len(queries) for name in ("half", "hnsw")},
    }


if __name__ == "__main__":
    main()
