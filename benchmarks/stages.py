"""Where the time of a `POST /score` goes, by its own `timing_ms`: one at a time, and while others press.

python benchmarks/stages.py
"""

import os
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from machine import write
from rich.console import Console
from rich.table import Table
from serving import CONCURRENCY, Side, offkey, prepare, running

from service.settings import shipped_bundle

CLIPS = 300
WARM = 20


def main() -> None:
    """Measure and write results/stages.json."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clip, train = prepare(root, shipped_bundle())
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        side = offkey()[0]
        with running(side, root, train) as server:
            found = {"one at a time": stages(server.url + side.path, clip)}
            with pressed(server.url, side, clip):
                found[f"beside {CONCURRENCY} others"] = stages(server.url + side.path, clip)
    names = dict.fromkeys(name for each in found.values() for name in each)
    table = Table("stage", *(f"{name}, ms" for name in found))
    for name in names:
        table.add_row(name, *(f"{each.get(name, 0.0):.2f}" for each in found.values()))
    Console().print(table)
    print(write("stages", "python benchmarks/stages.py", {"milliseconds": found}))


@contextmanager
def pressed(url: str, side: Side, clip: Path) -> Iterator[None]:
    """Run other requests of the same kind meanwhile."""
    command = ["hey", "-z", "10m", "-c", str(CONCURRENCY), "-m", "POST", "-T", "audio/wav", "-D", str(clip)]
    process = subprocess.Popen([*command, url + side.path], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield
    finally:
        process.kill()
        process.wait()


def stages(url: str, clip: Path) -> dict[str, float]:
    """Medians of each stage, and of the time that the client sees, milliseconds."""
    body = clip.read_bytes()
    times: dict[str, list[float]] = defaultdict(list)
    with httpx2.Client(timeout=60) as http:
        for number in range(CLIPS):
            start = time.perf_counter()
            answer = http.post(url, content=body).raise_for_status()
            seen = 1e3 * (time.perf_counter() - start)
            if number >= WARM:
                for name, value in {**answer.json()["timing_ms"], "seen by the client": seen}.items():
                    times[name].append(value)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
