"""Measure many machines on one node: start-up, throughput under a Zipf-like access pattern, and a first score.

    python benchmarks/machines.py [--machines 10 1000 10000] [--windows 100] [--cold-windows 1000]

Banks are random unit vectors of the shipped student's width, the same for every machine. Their calibrations are cached,
as after a restart. The load comes from `wrk`, which scores another machine in each request. `--bank-cache-mb` is the
memory for banks, in MiB.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
from machine import write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from serving import Running, offkey, prepare, running

from offkey.vocabulary import Domain
from service.bank import CalibrationCache
from service.domain.acoustics import measure
from service.domain.backends import DEFAULT_BACKEND
from service.encoder.bundle import load_manifest
from service.settings import Settings, shipped_bundle
from service.store import Action, BankLimits, NewClip, Store

CONNECTIONS = 32
WARM_SECONDS, SECONDS = 10, 20
COLD = 40  # machines
EXPONENT = 1.0  # exponent of the Zipf-like pattern
REQUESTS = 100_000  # length of the sequence of machines
SCRIPT = """
local file = io.open("%s", "rb")
local body = file:read("*a")
file:close()
local machines, at = {}, 0
for name in io.lines("%s") do machines[#machines + 1] = name end
local headers = {["Content-Type"] = "audio/wav"}
request = function()
  at = at %% #machines + 1
  return wrk.format("POST", "/score?machine_id=" .. machines[at], headers, body)
end
"""


def main() -> None:
    """Measure and write results/machines.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=int, nargs="+", default=[10, 1_000, 10_000])
    parser.add_argument("--windows", type=int, default=100, help="of each machine, for throughput")
    parser.add_argument("--cold-windows", type=int, default=1_000, help="of each machine, for the first score")
    parser.add_argument("--bank-cache-mb", type=int, default=Settings.model_fields["bank_cache_mb"].default)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit(
            "The load generator `wrk` is not installed: apt install wrk, or see https://github.com/wg/wrk."
        )
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OFFKEY_BANK_CACHE_MB": str(options.bank_cache_mb)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clip, _ = prepare(root, shipped_bundle())
        rows = [crowd(root, clip, count, options.windows) for count in options.machines]
        cold = first_scores(root, clip, options.cold_windows)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.4g}" for value in row.values()))
    Console().print(table, cold)
    result = {"windows": options.windows, "bank_cache_mb": options.bank_cache_mb, "rows": rows, "cold": cold}
    print(write("machines", "python benchmarks/machines.py", result))


def crowd(root: Path, clip: Path, machines: int, windows: int) -> dict[str, float]:
    """Measure start-up and throughput with a number of machines."""
    with filled(root, machines, windows) as data:
        starts = []
        for _ in range(3):
            start = time.perf_counter()
            with serving(root, data):
                starts.append(time.perf_counter() - start)
        weights = 1.0 / np.arange(1, machines + 1) ** EXPONENT
        rng = np.random.default_rng(0)
        order = rng.permutation(machines)
        sequence = order[rng.choice(machines, REQUESTS, p=weights / weights.sum())]
        (root / "sequence").write_text("\n".join(f"m{number}" for number in sequence))
        (root / "zipf.lua").write_text(SCRIPT % (clip, root / "sequence"))
        with serving(root, data) as (url, pid):
            press(url, root, WARM_SECONDS)
            found = press(url, root, SECONDS)
            memory = resident(pid)
        return {"machines": machines, "start_s": statistics.median(starts), **found, "resident_mib": memory}


def first_scores(root: Path, clip: Path, windows: int) -> dict[str, float]:
    """Measure the first score of a machine since the start, and the second."""
    cold, warm = [], []
    with filled(root, COLD, windows) as data, serving(root, data) as (url, _), httpx2.Client(base_url=url) as http:
        body = clip.read_bytes()
        for number in range(COLD):
            for times in (cold, warm):
                start = time.perf_counter()
                answer = http.post("/score", params={"machine_id": f"m{number}"}, content=body)
                times.append(1e3 * (time.perf_counter() - start))
                answer.raise_for_status()
    more = [first - second for first, second in zip(cold, warm, strict=True)]
    return {
        "windows": windows,
        "warm_ms": statistics.median(warm),
        "cold_ms": statistics.median(cold),
        "more_ms": statistics.median(more),
        "more_p95_ms": sorted(more)[int(0.95 * (COLD - 1))],
    }


@contextmanager
def filled(root: Path, machines: int, windows: int) -> Iterator[Path]:
    """Fill a data folder with a number of machines. It is removed at the end."""
    data = root / "data"
    clips = [_clip(number, vector) for number, vector in enumerate(_vectors(windows))]
    manifest = load_manifest(shipped_bundle())
    store = Store.open(data)
    cache = CalibrationCache(data / "runtime" / "calibrations")
    try:
        for number in track(range(machines), f"{machines} machines of {windows} windows", transient=True):
            with store.begin() as tx:
                key = tx.put_machine(f"m{number}", "")[0].machine_key
            with store.begin(f"m{number}") as tx:
                tx.add_clips(clips, manifest.embedding_space_id, BankLimits(windows, windows), Action.ENROLL)
            if number == 0:
                rows = store.bank_rows(key)
                cache.fit(key, rows, store.calibration_rows(key, rows.generation), DEFAULT_BACKEND, 0)
                first = data / "runtime" / "calibrations" / f"{key}.calibration"
            else:
                os.link(first, first.with_stem(str(key)))
    finally:
        store.close()
    try:
        yield data
    finally:
        shutil.rmtree(data)


def _vectors(count: int) -> np.ndarray:
    """Draw unit vectors `(count, dim)` around a common center, with most of their variance in 20 directions."""
    rng = np.random.default_rng(0)
    dim = load_manifest(shipped_bundle()).dim
    center, *directions = rng.standard_normal((21, dim))
    rows = center + 0.2 * rng.standard_normal((count, 20)) @ np.stack(directions)
    rows += 0.3 * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _clip(number: int, vector: np.ndarray) -> NewClip:
    rng = np.random.default_rng(number)
    noise = (0.1 * rng.standard_normal(160_000)).astype(np.float32)
    return NewClip(
        sha256=f"{number:064x}",
        name=f"{number}.wav",
        recording=None,
        domain=Domain.SOURCE,
        seconds=10.0,
        sample_rate=16_000,
        channels=1,
        vectors=vector[None, :],
        starts=np.zeros(1),
        acoustics=measure(noise, 16_000, source_rate=16_000, channels=1, clipped=0.0),
        spectrograms=(rng.standard_normal((20, 35)).astype(np.float32),),
        audio=None,
    )


@contextmanager
def serving(root: Path, data: Path) -> Iterator[Running]:
    """Run the service on a data folder."""
    with running(offkey()[0], root, [], data) as server:
        yield server


def press(url: str, root: Path, seconds: int) -> dict[str, float]:
    """Score machine after machine of the sequence. Every response must be 200."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    printed = subprocess.run(
        [*command, "-s", str(root / "zipf.lua"), url], check=True, capture_output=True, text=True
    ).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise SystemExit(printed)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    shares = dict(re.findall(r"(50|99)%\s+([\d.]+(?:us|ms|s))", printed))
    assert rate is not None
    return {"clips_per_s": float(rate[1]), **{f"p{share}_ms": _ms(value) for share, value in shares.items()}}


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def resident(pid: int) -> float:
    """Return the memory of a process, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    main()
