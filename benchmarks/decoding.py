"""Measure what decoding in a child process adds to decoding in this process.

A plain WAV file is also read with numpy alone, as `service.audio.decoder` does.

    python benchmarks/decoding.py

They decode the same file in turn.
"""

import argparse
import io
import statistics
import time

import numpy as np
import soundfile
from machine import write
from rich.console import Console
from rich.table import Table

from service.audio.budget import UNLIMITED
from service.audio.decode import AudioLimits, decode
from service.audio.plain_wav import read_plain_wav
from service.audio.processes import DecoderPool
from service.audio.processes.messages import DecodeLimits

RATE = 16_000


def clip(container: str, sample_rate: int) -> bytes:
    """Encode 10 s of noise."""
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * sample_rate).astype(np.float32)
    soundfile.write(file, samples, sample_rate, format=container, subtype="PCM_16")
    return file.getvalue()


def main() -> None:
    """Measure and write results/decoding.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    rounds = parser.parse_args().rounds
    limits = AudioLimits()
    pool = DecoderPool(DecodeLimits(limits, 20 * 2**20, 10), wall_seconds=30.0)
    pool.check()
    table = Table("10 s clip", "in process, ms", "in a child, ms", "added, ms", "plain, ms")
    result = {}
    for container, sample_rate in (("WAV", 16_000), ("WAV", 48_000), ("FLAC", 16_000)):
        data = clip(container, sample_rate)
        times: dict[str, list[float]] = {"in_process": [], "in_child": []}
        for _ in range(rounds):
            start = time.perf_counter()
            decode(data, sample_rate=RATE, limits=limits)
            between = time.perf_counter()
            pool.decode(data, RATE)
            times["in_process"].append(between - start)
            times["in_child"].append(time.perf_counter() - between)
            start = time.perf_counter()
            if read_plain_wav(data, RATE, limits, UNLIMITED) is not None:
                times.setdefault("plain", []).append(time.perf_counter() - start)
        row = {name: statistics.median(taken) for name, taken in times.items()}
        row = {**row, "added": row["in_child"] - row["in_process"]}
        name = f"{container} {sample_rate} Hz"
        result[name] = row
        shown = (row.get(column) for column in ("in_process", "in_child", "added", "plain"))
        table.add_row(name, *("" if seconds is None else f"{seconds * 1e3:.2f}" for seconds in shown))
    pool.close()
    Console().print(table)
    print(write("decoding", "python benchmarks/decoding.py", result))


if __name__ == "__main__":
    main()
