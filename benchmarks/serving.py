"""`POST /score` beside the same work in a loop in one process: what does serving cost?

    python benchmarks/serving.py

Both sides decode, embed and search the same 10 s clip against the same bank, and take turns. Figures are ratios of
medians; seconds are of this machine alone. The load generator is Python and runs on the same cores, so the
throughput ratio is a lower bound.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from machine import write
from rich.console import Console
from rich.table import Table

from service.client import Client
from service.settings import Settings
from service.store.restore import restore
from service.store.snapshot import write_snapshot
from service.synthetic import plan_tree, write_tree
from service.usecases.clip import Upload
from service.usecases.context import Context
from service.usecases.score import score_clips

MACHINE = "fan-synthetic"


@contextmanager
def server(data_dir: Path) -> Iterator[str]:
    """`offkey serve` in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {**os.environ, "OFFKEY_PORT": str(port), "OFFKEY_DATA_DIR": str(data_dir)}
    process = subprocess.Popen([sys.executable, "-m", "service.cli", "serve"], env=environ, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        with Client(url) as client:
            while not client.ready():
                if process.poll() is not None:
                    raise SystemExit("the service did not start")
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    """Measure and write results/serving.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="requests per side, one at a time")
    parser.add_argument("--load", type=int, default=200, help="requests per side, concurrently")
    parser.add_argument("--concurrency", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clips = plan_tree([MACHINE], test_each=1)
        write_tree(root / "clips", clips)
        train = [root / "clips" / clip.path for clip in clips if clip.split == "train"]
        probe = next(root / "clips" / clip.path for clip in clips if clip.split == "test")
        upload = Upload(probe.name, probe.read_bytes())
        with server(root / "data") as url, Client(url) as client:
            client.put_machine(MACHINE)
            client.enroll(MACHINE, train)
            write_snapshot(root / "data", root / "snapshot.tar")
            restore(root / "snapshot.tar", root / "copy", replace=False)  # one process may use a data folder
            context = Context.open(Settings(data_dir=root / "copy"))

            def inside(_: int = 0) -> None:
                score_clips(context, MACHINE, [upload], 1, localize=True)

            def served(_: int = 0) -> None:
                client.score(MACHINE, [probe])

            result = {
                "latency": latency(inside, served, options.rounds),
                "throughput": throughput(inside, served, options.load, options.concurrency),
            }
            context.close()
    table = Table("", "in process", "served", "ratio")
    for name, row in result.items():
        table.add_row(name, *(f"{row[column]:.4g}" for column in ("in_process", "served", "ratio")))
    Console().print(table)
    print(write("serving", "python benchmarks/serving.py", result))


def latency(inside, served, rounds: int) -> dict[str, float]:
    """Median seconds of one request at a time; ratio served / in process, 1 is ideal."""
    times: dict[str, list[float]] = {"inside": [], "served": []}
    for _ in range(rounds):
        for name, call in (("inside", inside), ("served", served)):
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    one, other = statistics.median(times["inside"]), statistics.median(times["served"])
    return {"in_process": one, "served": other, "ratio": other / one}


def throughput(inside, served, load: int, concurrency: int) -> dict[str, float]:
    """Clips per second; in process on one thread per core; ratio served / in process, 1 is ideal."""
    rates: dict[str, list[float]] = {"inside": [], "served": []}
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as few, ThreadPoolExecutor(concurrency) as many:
        for _ in range(3):
            for name, call, pool in (("inside", inside, few), ("served", served, many)):
                start = time.perf_counter()
                list(pool.map(call, range(load // 3)))
                rates[name].append((load // 3) / (time.perf_counter() - start))
    one, other = statistics.median(rates["inside"]), statistics.median(rates["served"])
    return {"in_process": one, "served": other, "ratio": other / one}


if __name__ == "__main__":
    main()
