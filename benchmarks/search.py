"""Compare exact search with HNSW on embeddings of clips: the size from which the graph is faster, and its recall.

    python benchmarks/search.py [--audio FOLDER] [--sizes 1000 3000 10000 20000]

The shipped student embeds windows of 5 s, cut from the folder's recordings as densely as the largest size needs.
Without a folder the clips are synthetic. Queries are windows of recordings that are not in the bank. The indexes search
for the same queries in turn, on one thread.
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
SAME = 1e-6  # windows whose distances differ by less are both correct
SYNTHETIC_CLIPS = 40


def main() -> None:
    """Measure and write results/search.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, help="folder of recordings; synthetic clips if absent")
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
    """Read recordings `(samples,)` of at least one window, in random order."""
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
    """Embed windows for a bank `(most, dim)` in random order, and queries `(QUERIES, dim)` of other recordings."""
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
    """Measure the median time of a query, and the share of queries whose nearest window is found."""
    start = time.perf_counter()
    graph = HnswIndex(vectors)
    build = time.perf_counter() - start
    sides: dict[str, Index] = {"exact": ExactIndex(vectors), "hnsw": graph}
    times: dict[str, list[float]] = {name: [] for name in sides}
    correct = 0
    for query in queries[:, None, :]:
        for name, side in sides.items():
            times[name].append(milliseconds(lambda side=side, query=query: side.search(query, 1)))
        nearest = float(1.0 - (vectors @ query[0]).max())
        found = vectors[graph.search(query, 1).rows[0, 0]]
        correct += bool(1.0 - found @ query[0] <= nearest + SAME)
    return {
        "windows": len(vectors),
        **{f"{name}_ms": round(statistics.median(each), 3) for name, each in times.items()},
        "hnsw_build_s": round(build, 2),
        "hnsw_recall": correct / len(queries),
    }


if __name__ == "__main__":
    main()
