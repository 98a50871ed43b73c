"""Bundles side by side on machines under noise: AUC of 1-NN cosine scores, and milliseconds per clip.

    python benchmarks/student.py TREE --noise NOISE --bundle NAME=DIR [--bundle NAME=DIR ...]

TREE holds machines in the DCASE Task 2 layout, NOISE the folders `stationary/` and `nonstationary/`. Clips are
brought to equal level; noise has unit power and the clip is scaled to the SNR. Noise for the bank and for the
tests comes from disjoint recordings. A clip's score is its cosine distance to the nearest of the train folder.
Nothing is ever fitted on test clips. The log-mel baseline is the time mean of the first bundle's `logmel`, less
its mean over bands. The figures of a bundle whose training heard these machines or noises would mean nothing.
The result is results/student.json, which `offkey export --measured` reads.
"""

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from machine import write
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from service.audio import AudioLimits, decode
from service.manifest import MODEL_FILE, load_manifest

Array = NDArray[np.float32]
KINDS = ("stationary", "nonstationary")
SECONDS = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--bundle", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--snr", type=float, nargs="+", default=[0.0, -5.0], help="dB")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=40, help="timed runs of each bundle, alternating")
    given = parser.parse_args()
    bundles = dict(pair.split("=", 1) for pair in given.bundle)
    encoders = {name: Bundle(Path(folder)) for name, folder in bundles.items()}
    views: dict[str, Callable[[Array], Array]] = {"log-mel mean": next(iter(encoders.values())).logmel_mean}
    views |= {name: encoder.embed for name, encoder in encoders.items()}
    rate = {encoder.sample_rate for encoder in encoders.values()}
    if len(rate) != 1:
        sys.exit(f"The bundles take different sample rates, {sorted(rate)} Hz; compare those of one rate.")
    found = measure(given.tree, Noise(given.noise, rate.copy().pop()), views, rate.pop(), given.snr, given.seeds)
    speed = timings(encoders, given.rounds)
    show(found, speed)
    command = shlex.join(["python", "benchmarks/student.py", *sys.argv[1:]])
    write("student", command, {"figures": figures(found, speed, command), "machines": found})


class Bundle:
    """An ONNX bundle on one CPU thread."""

    def __init__(self, folder: Path) -> None:
        self.sample_rate = load_manifest(folder).input.sample_rate
        import onnxruntime  # here, after `service` has turned its telemetry off

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, samples: Array) -> Array:
        """Unit embedding `(dim,)` of one clip."""
        row: Array = self.session.run(["embedding"], {"waveform": samples[None]})[0][0]
        return row

    def logmel_mean(self, samples: Array) -> Array:
        """Unit vector `(bands,)`: mean log-mel spectrum without its level."""
        logmel: Array = self.session.run(["logmel"], {"waveform": samples[None]})[0][0]
        mean = logmel.mean(axis=0)
        mean = mean - mean.mean()
        unit: Array = mean / np.linalg.norm(mean)
        return unit


class Noise:
    """Recordings of each kind; every second one is for the bank, the others are for tests."""

    def __init__(self, folder: Path, sample_rate: int) -> None:
        self.samples = round(SECONDS * sample_rate)
        self.recordings: dict[tuple[str, str], list[Array]] = {}
        for kind in KINDS:
            files = sorted(path for path in (folder / kind).iterdir() if path.is_file())
            for role, chosen in (("bank", files[::2]), ("test", files[1::2])):
                if not chosen:
                    sys.exit(f"{folder / kind} needs two recordings at least, to keep bank and test apart.")
                self.recordings[kind, role] = [read(path, sample_rate) for path in chosen]

    def draw(self, kind: str, role: str, rng: np.random.Generator) -> Array:
        """A random stretch of a random recording, `(samples,)`, unit power."""
        choices = self.recordings[kind, role]
        recording = choices[rng.integers(len(choices))]
        recording = np.resize(recording, max(len(recording), self.samples))
        start = rng.integers(len(recording) - self.samples + 1)
        return unit_power(recording[start : start + self.samples])


def read(path: Path, sample_rate: int) -> Array:
    return decode(path.read_bytes(), sample_rate=sample_rate, limits=AudioLimits()).samples


def unit_power(samples: Array) -> Array:
    centered = samples - samples.mean()
    scaled: Array = (centered / np.sqrt(np.mean(centered**2))).astype(np.float32)
    return scaled


def mixture(clip: Array, noise: Array, snr: float) -> Array:
    mixed: Array = (0.1 * (10 ** (snr / 20) * clip + noise[: len(clip)])).astype(np.float32)
    return mixed


def auc(normal: Sequence[float], anomalous: Sequence[float]) -> float:
    """Share of pairs that are in the right order; ties count half."""
    low, high = np.asarray(normal)[:, None], np.asarray(anomalous)[None]
    return float(((high > low) + 0.5 * (high == low)).mean())


def measure(
    tree: Path,
    noise: Noise,
    views: dict[str, Callable[[Array], Array]],
    rate: int,
    snrs: Sequence[float],
    seeds: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """AUC by view, machine and condition; noisy conditions are means over seeds and noise kinds."""
    found: dict[str, dict[str, dict[str, float]]] = {view: {} for view in views}
    machines = sorted(path for path in tree.iterdir() if (path / "train").is_dir())
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("machines", total=len(machines) * (1 + len(snrs) * seeds))
        for machine in machines:
            train = [unit_power(read(path, rate)) for path in sorted((machine / "train").iterdir())]
            paths = sorted((machine / "test").iterdir())
            test = [unit_power(read(path, rate)) for path in paths]
            faulty = np.array(["_anomaly_" in path.name for path in paths])
            cells: dict[str, dict[str, list[float]]] = {view: {} for view in views}
            for view, embed in views.items():
                bank = [embed(0.1 * clip) for clip in train]
                cells[view]["clean"] = [separation(bank, [embed(0.1 * clip) for clip in test], faulty)]
            progress.advance(task)
            for snr in snrs:
                for seed in range(seeds):
                    noisy_cells(noise, views, train, test, faulty, snr, seed, cells)
                    progress.advance(task)
            for view in views:
                found[view][machine.name] = {name: statistics.mean(v) for name, v in cells[view].items()}
    return found


def noisy_cells(
    noise: Noise,
    views: dict[str, Callable[[Array], Array]],
    train: Sequence[Array],
    test: Sequence[Array],
    faulty: NDArray[np.bool_],
    snr: float,
    seed: int,
    cells: dict[str, dict[str, list[float]]],
) -> None:
    rng = np.random.default_rng([seed, round(100 * (snr + 100))])
    noisy: dict[tuple[str, str], list[Array]] = {}
    for kind in KINDS:
        for role, clips in (("bank", train), ("test", test)):
            noisy[kind, role] = [mixture(clip, noise.draw(kind, role, rng), snr) for clip in clips]
    for view, embed in views.items():
        embedded = {key: [embed(clip) for clip in clips] for key, clips in noisy.items()}
        for bank in KINDS:
            for tested in KINDS:
                relation = "matched" if bank == tested else "mismatch"
                value = separation(embedded[bank, "bank"], embedded[tested, "test"], faulty)
                cells[view].setdefault(f"{relation} {snr:g} dB", []).append(value)


def separation(bank: Sequence[Array], tests: Sequence[Array], faulty: NDArray[np.bool_]) -> float:
    scores = 1 - (np.stack(tests) @ np.stack(bank).T).max(axis=1)
    return auc(scores[~faulty].tolist(), scores[faulty].tolist())


def timings(encoders: dict[str, Bundle], rounds: int) -> dict[str, float]:
    """Median milliseconds for a clip of 10 s on one thread; bundles take turns, so that load hits all alike."""
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in encoders}
    for round_ in range(rounds + 2):
        for name, encoder in encoders.items():
            clip = (0.1 * rng.standard_normal(round(SECONDS * encoder.sample_rate))).astype(np.float32)
            begin = time.perf_counter()
            encoder.embed(clip)
            if round_ >= 2:
                spent[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in spent.items()}


def overall(machines: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean over machines of each condition, and `noisy`, the mean of all conditions but `clean`."""
    names = list(next(iter(machines.values())))
    means = {name: statistics.mean(cells[name] for cells in machines.values()) for name in names}
    return means | {"noisy": statistics.mean(value for name, value in means.items() if name != "clean")}


def show(found: dict[str, dict[str, dict[str, float]]], speed: dict[str, float]) -> None:
    conditions = list(overall(next(iter(found.values()))))
    table = Table("view", "machine", *conditions, "ms per 10 s")
    for view, machines in found.items():
        rows = {"mean": overall(machines), **{name: overall({name: cells}) for name, cells in machines.items()}}
        for machine, cells in rows.items():
            cost = f"{speed[view]:.1f}" if machine == "mean" and view in speed else ""
            table.add_row(
                view if machine == "mean" else "", machine, *(f"{cells[name]:.3f}" for name in conditions), cost
            )
    Console(width=160).print(table)


def figures(
    found: dict[str, dict[str, dict[str, float]]], speed: dict[str, float], command: str
) -> list[dict[str, str | float]]:
    """What `offkey export --measured` reads."""
    rows: list[dict[str, str | float]] = [
        {"name": f"{view}: AUC, {condition}", "value": round(value, 4), "command": command}
        for view, machines in found.items()
        for condition, value in overall(machines).items()
    ]
    rows += [
        {"name": f"{name}: ms per 10 s clip, one CPU thread", "value": round(value, 2), "command": command}
        for name, value in speed.items()
    ]
    return rows


if __name__ == "__main__":
    main()
