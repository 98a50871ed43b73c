"""Measure the encoder of a bundle on one thread: time of a 10 s clip, share of each stage, and ratio to another graph.

    python benchmarks/encoder.py [--beside OTHER/model.onnx]

Both graphs run on the same waveform in turn; the ratio is the median over rounds. Times are CPU times of the thread, so
other programs hardly affect them.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from machine import write
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from service.encoder.bundle import MODEL_FILE, load_manifest
from service.encoder.session import open_session
from service.settings import Device, shipped_bundle

WANTED = ["embedding", "logmel"]
SECONDS = 10
BATCHES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    """Measure and write results/encoder.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=shipped_bundle())
    parser.add_argument("--beside", type=Path, help="graph of another bundle to compare with")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    manifest, graph = load_manifest(options.bundle), options.bundle / MODEL_FILE
    rng = np.random.default_rng(0)
    waveform = (0.05 * rng.standard_normal((1, SECONDS * manifest.input.sample_rate))).astype(np.float32)
    sessions = {"this": session(graph)} | ({"other": session(options.beside)} if options.beside else {})
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(options.rounds + 5):
        for name, one in sessions.items():
            start = time.thread_time()
            one.run(WANTED, {"waveform": waveform})
            if turn >= 5:
                times[name].append(time.thread_time() - start)
    result = {
        "bundle": f"{manifest.name}/{manifest.version}",
        "milliseconds": {name: 1000 * statistics.median(values) for name, values in times.items()},
        "shares": shares(graph, waveform),
        "batches": batches(graph, waveform),
    }
    if options.beside:
        ratios = [this / other for this, other in zip(times["this"], times["other"], strict=True)]
        found = [one.run(["embedding"], {"waveform": waveform})[0] for one in sessions.values()]
        result["ratio"] = statistics.median(ratios)
        result["largest_difference_of_embeddings"] = float(np.abs(found[0] - found[1]).max())
    table = Table("stage, operator", "share")
    for name, share in result["shares"].items():
        table.add_row(name, f"{share:.3f}")
    Console().print(table)
    table = Table("windows in a batch", "ms per window")
    for name, value in result["batches"]["milliseconds_per_window"].items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    print({key: value for key, value in result.items() if key not in ("shares", "batches")})
    command = "python benchmarks/encoder.py" + (" --beside OTHER/model.onnx" if options.beside else "")
    print(write("encoder", command, result))


def session(graph: Path, *, profile: str | None = None) -> ort.InferenceSession:
    """Open a graph on one thread of the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def batches(graph: Path, waveform: NDArray[np.float32], rounds: int = 10) -> dict[str, Any]:
    """Measure the time of a window in batches of several sizes, in turn, on the GPU if there is one."""
    one = open_session(graph, Device.AUTO)
    stacked = {size: np.repeat(waveform, size, axis=0) for size in BATCHES}
    times: dict[int, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for size, batch in stacked.items():
            start = time.perf_counter()
            one.run(WANTED, {"waveform": batch})
            if turn:
                times[size].append((time.perf_counter() - start) / size)
    found = {str(size): 1000 * statistics.median(values) for size, values in times.items()}
    return {"provider": one.get_providers()[0], "milliseconds_per_window": found}


def shares(graph: Path, waveform: NDArray[np.float32], runs: int = 50) -> dict[str, float]:
    """Measure the share of each stage and kind of operator in the total time, largest first, profiler included.

    Nodes run in the order of the graph: before the first convolution lies the front end, after the last the read-out.
    """
    profiled = session(graph, profile="offkey-encoder")
    for _ in range(runs):
        profiled.run(WANTED, {"waveform": waveform})
    path = Path(profiled.end_profiling())
    events = [event for event in json.loads(path.read_text()) if event["name"].endswith("_kernel_time")]
    path.unlink()
    names = [event["args"]["op_name"] for event in events]
    each = len(events) // runs
    layers = [place for place in range(each) if names[place] == "Conv"]
    spent: dict[str, float] = defaultdict(float)
    for place, event in enumerate(events):
        after = place % each
        stage = "front end" if after < layers[0] else "layers" if after <= layers[-1] else "read-out"
        spent[f"{stage}, {names[place]}"] += event["dur"]
    total = sum(spent.values())
    return {name: value / total for name, value in sorted(spent.items(), key=lambda item: -item[1])}


if __name__ == "__main__":
    main()
