"""Exact search beside HNSW, on random unit vectors: where does the graph begin to pay?

    python benchmarks/search.py

Random vectors are the worst case for a graph (they have no neighborhoods), so the recall here is a lower bound of
what embeddings of real clips give. Both sides answer the same queries, alternating, one thread each.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from machine import write
from rich.console import Console
from rich.table import Table

from service.index import ExactIndex, HnswIndex

DIM = 512
ROUNDS = 15


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def measure(count: int) -> dict[str, float]:
    """Medians over `ROUNDS` queries of one window each."""
    rng = np.random.default_rng(count)
    vectors = unit(rng, count)
    exact = ExactIndex(vectors)
    start = time.perf_counter()
    graph = HnswIndex(vectors)
    build = time.perf_counter() - start
    times: dict[str, list[float]] = {"exact": [], "hnsw": []}
    same = 0
    for _ in range(ROUNDS):
        query = unit(rng, 1)
        times["exact"].append(milliseconds(lambda query=query: exact.search(query, 1)))
        times["hnsw"].append(milliseconds(lambda query=query: graph.search(query, 1)))
        same += int(exact.search(query, 1)[1][0, 0] == graph.search(query, 1)[1][0, 0])
    return {
        "windows": count,
        "exact_ms": round(statistics.median(times["exact"]), 3),
        "hnsw_ms": round(statistics.median(times["hnsw"]), 3),
        "hnsw_build_s": round(build, 2),
        "hnsw_recall": round(same / ROUNDS, 3),
    }


def main() -> None:
    """Measure and write results/search.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 1_000, 3_000, 10_000, 20_000])
    sizes = parser.parse_args().sizes
    rows = [measure(size) for size in sizes]
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    print(write("search", "python benchmarks/search.py", {"dim": DIM, "rows": rows}))


if __name__ == "__main__":
    main()
