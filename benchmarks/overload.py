"""`POST /score` at many times what the service can do: how soon it refuses, and what the accepted requests get.

    python benchmarks/overload.py

The load comes from `hey` on the same cores, at a fixed rate that waits for answers only as far as its connections
require. Every request carries a 10 s clip.
"""

import os
import tempfile
from pathlib import Path

import hey
from machine import write
from rich.console import Console
from rich.table import Table
from serving import CORES, MACHINE, Side, load, offkey, prepare, running

from service.settings import shipped_bundle

SECONDS = 20
CONNECTIONS = 100
TIMES = (5, 10)  # the service's own rate
QUEUE_LIMIT = 16


def main() -> None:
    """Measure and write results/overload.json."""
    hey.require()
    table = Table("load, of capacity", "sent/s", "answer", "answers/s", "p50, ms", "p90, ms", "p99, ms")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clip, train = prepare(root, shipped_bundle())
        os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OFFKEY_QUEUE_LIMIT": str(QUEUE_LIMIT)}
        side = offkey()[0]
        with running(side, root, train) as server:
            capacity = load(server, side, clip, root, 320, CORES + 2).rate
            for times in TIMES:
                found = press(server.url, side, clip, times * capacity)
                results[str(times)] = {"asked_for": times * capacity, "answers": found}
                sent = sum(answer["rate"] for answer in found.values())
                for status, answer in found.items():
                    figures = [f"{1e3 * answer[name]:.0f}" for name in ("p50", "p90", "p99")]
                    table.add_row(f"{sent / capacity:.1f}", f"{sent:.0f}", status, f"{answer['rate']:.0f}", *figures)
    Console().print(table)
    print(
        write(
            "overload",
            "python benchmarks/overload.py",
            {"capacity": capacity, "seconds": SECONDS, "queue_limit": QUEUE_LIMIT, "load": results},
        )
    )


def press(url: str, side: Side, clip: Path, rate: float) -> dict[str, dict[str, float]]:
    """Send at a rate, clips per second; per status of an answer their rate and percentiles, seconds."""
    how = ["-z", f"{SECONDS}s", "-c", str(CONNECTIONS), "-q", f"{rate / CONNECTIONS:.2f}"]
    by_status: dict[int, list[float]] = {}
    for answer in hey.post(url + side.path, clip, "audio/wav", how):
        by_status.setdefault(answer.status, []).append(answer.seconds)
    if not set(by_status) <= {200, 503}:
        raise SystemExit(f"{MACHINE}: answers of {sorted(by_status)}.")
    return {
        str(status): {
            "rate": len(times) / SECONDS,
            **{f"p{share}": hey.percentile(times, share) for share in (50, 90, 99)},
        }
        for status, times in sorted(by_status.items())
    }


if __name__ == "__main__":
    main()
