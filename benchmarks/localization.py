"""Measure whether localization finds the fault, and what it adds to a request.

    python benchmarks/localization.py [--machines DIR] [--bundle DIR]

Faults last two seconds of a healthy clip. The sound of a synthetic fault is the difference of a healthy and a faulty
rendering with the same random numbers. In test clips of the machines in DIR (DCASE Task 2 layout), two seconds of a
healthy clip are replaced by two seconds of a faulty one at the same level; the bands of that fault are unknown. The
train clips are enrolled under their domains, and the reference is fitted as the service does. The service stores the
log-mel spectrogram in bands of three mels. Three alternatives run through the same code: bands of one mel (`fine`) and
of seven (`broad`), and the token grid of the encoder (`frames`), with each band and channel by itself.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import soundfile
from machine import write
from numpy.typing import NDArray
from rich.progress import track
from threadpoolctl import threadpool_limits

from offkey.vocabulary import Domain
from service.audio.decode import AudioLimits, decode
from service.domain.access import COMMAND_LINE
from service.domain.localization import Reference
from service.domain.spectrogram import Spectrogram, downsampled
from service.encoder.bundle import MODEL_FILE
from service.settings import Device, Settings, shipped_bundle
from service.synthetic import MACHINES
from service.synthetic.machines import LEVEL_DBFS, SAMPLE_RATE, Split, SyntheticMachine
from service.synthetic.signal import gain, rms
from service.usecases.clip import Clip
from service.usecases.enroll import EnrollOptions, enroll_clips
from service.usecases.score import ScoreOptions, score_clips
from service.usecases.service import Service
from training.evaluation.tables import table
from training.evaluation.tree import JudgedMachine, read_tree

SECONDS, FAULT_SECONDS, FADE_SECONDS = 10.0, 2.0, 0.02
SEVERITIES = (30, 60, 100)  # percent
RAISED = np.log(10) / 10 / 5  # 1 dB, in the log-mel units of the shipped bundles: (ln power + 4.5) / 5
VIEWS = ("log-mel", "fine", "broad", "frames")
REQUESTS = 300
Samples = NDArray[np.float64]
Views = dict[str, Spectrogram]  # spectrograms by view
Bank = Sequence[tuple[Domain, int, Views]]  # domain and recording of each clip


@dataclass(frozen=True)
class Trial:
    """Test clip.

    Attributes:
        machine: machine name.
        fault: name of the fault in the table, "healthy" if there is none.
        views: spectrograms of the clip, by view.
        inside: whether the fault is in a step, `(steps,)`.
        raised: whether the fault adds 1 dB or more to a cell, `(steps, bands)`. None if unknown.
    """

    machine: str
    fault: str
    views: Views
    inside: NDArray[np.bool_]
    raised: NDArray[np.bool_] | None


class Graph:
    """Graph of a bundle with all outputs."""

    def __init__(self, bundle: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(bundle / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, samples: Samples) -> Views:
        """Compute the views of one window."""
        waveform = samples[None].astype(np.float32)
        frames, logmel = (one[0] for one in self._session.run(["frames", "logmel"], {"waveform": waveform}))
        cells = downsampled(logmel, len(samples) / SAMPLE_RATE)
        fine = over_time(logmel, len(cells))
        broad = np.stack([fine[:, start : start + 7].mean(axis=1) for start in range(0, fine.shape[1], 7)], axis=1)
        return {"log-mel": cells, "fine": fine, "broad": broad, "frames": over_time(frames, len(cells))}


def over_time(grid: NDArray[np.float32], steps: int) -> Spectrogram:
    """Average `(time, ...)` over equal spans of time. Returns `(steps, values)`."""
    at = np.arange(steps + 1) * len(grid) // steps
    return np.stack([grid[start:end].mean(axis=0).ravel() for start, end in pairwise(at)])


def main() -> None:
    """Measure, print the tables, write results/localization.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=Path, help="machines in the DCASE Task 2 layout; synthetic ones if absent")
    parser.add_argument("--bundle", type=Path, default=shipped_bundle())
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    threadpool_limits(1, user_api="blas")  # as in the service
    graph, rng = Graph(given.bundle), np.random.default_rng(given.seed)
    rows = []
    for machine in track(list(MACHINES.values()), description="synthetic"):
        rows += judged(synthetic_bank(machine, graph), list(synthetic_trials(machine, graph, rng)))
    for folder in read_tree(given.machines) if given.machines else ():
        bank, trials = recorded(folder, graph, rng)
        rows += judged(bank, trials)
    added = request_times(given.bundle)
    print(shown(rows))
    for name, row in added.items():
        print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    command = "python benchmarks/localization.py --machines DIR --bundle DIR"
    print(f"\n{write('localization', f'{command} --seed {given.seed}', {'faults': rows, 'request': added})}")


def judged(bank: Bank, trials: Sequence[Trial]) -> Iterator[dict[str, object]]:
    """Compute a row for each fault of a machine."""
    references = {view: reference(bank, view) for view in VIEWS}
    for fault in dict.fromkeys(trial.fault for trial in trials):
        own = [trial for trial in trials if trial.fault == fault]
        row: dict[str, object] = {"machine": own[0].machine, "fault": fault, "clips": len(own)}
        for view, fitted in references.items():
            found = [fitted.locate(trial.views[view]) for trial in own]
            p_values = [one.regions[0].p_value if one.regions else 1.0 for one in found]
            row[f"{view}: any region"] = share([bool(one.regions) for one in found])
            row[f"{view}: p at most 0.1"] = share([value <= 0.1 for value in p_values])
            if fault != "healthy":
                hits = [trial.inside[one.profile.argmax()] for trial, one in zip(own, found, strict=True)]
                row[f"{view}: strongest step"] = share(hits)
        if fault != "healthy":
            row["strongest step, by chance"] = share([trial.inside.mean() for trial in own])
            found = [references["log-mel"].locate(trial.views["log-mel"]) for trial in own]
            covered = [(one.regions[0], trial) for one, trial in zip(found, own, strict=True) if one.regions]
            row["first region in time"] = share([trial.inside[slice(*top.steps)].mean() for top, trial in covered])
            marked = [(top, trial.raised) for top, trial in covered if trial.raised is not None]
            row["first region on raised cells"] = share(
                [raised[slice(*top.steps), slice(*top.bands)].mean() for top, raised in marked]
            )
            row["raised cells, by chance"] = share([t.raised.mean() for t in own if t.raised is not None])
        yield row


def reference(bank: Bank, view: str) -> Reference:
    """Fit a reference as the service does."""
    members = {domain: [one for one in bank if one[0] is domain] for domain in Domain}
    return Reference.fit(
        {domain: [views[view] for _, _, views in own] for domain, own in members.items() if own},
        {domain: np.array([number for _, number, _ in own]) for domain, own in members.items() if own},
    )


def share(values: Sequence[float | np.bool_]) -> float | None:
    """Return the rounded mean, or None if there are no values."""
    return round(float(np.mean(values)), 3) if values else None


def synthetic_bank(machine: SyntheticMachine, graph: Graph) -> Bank:
    """Embed 20 source clips and 5 target clips."""
    return [
        (domain, number, graph.embed(machine.clip(split="train", domain=domain.value, number=number)))
        for domain, clips in ((Domain.SOURCE, 20), (Domain.TARGET, 5))
        for number in range(clips)
    ]


def synthetic_trials(machine: SyntheticMachine, graph: Graph, rng: np.random.Generator) -> Iterator[Trial]:
    """Yield 20 healthy clips per domain, and 10 faulty clips per domain and severity."""
    size = (round(SECONDS * SAMPLE_RATE), SAMPLE_RATE)
    for domain in Domain:
        condition = machine.condition(domain.value)
        for number in range(20):
            healthy = graph.embed(machine.clip(split="test", domain=domain.value, number=number))
            yield Trial(machine.machine_id, "healthy", healthy, np.zeros(len(healthy["log-mel"]), bool), None)
        for severity in SEVERITIES:
            for _ in range(10):
                seed = int(rng.integers(2**32))
                without, faulty = (
                    machine.physics.render(condition, one / 100, np.random.default_rng(seed), size)
                    for one in (0, severity)
                )
                background = condition.background.render(np.random.default_rng([seed, 1]), *size)
                fade, span = when(len(without), rng)
                clip = without + background + (faulty - without) * fade
                level = gain(LEVEL_DBFS) / rms(clip)
                views, before = graph.embed(level * clip), graph.embed(level * (without + background))
                raised = views["log-mel"] - before["log-mel"] >= RAISED
                yield Trial(machine.machine_id, f"severity {severity} %", views, inside(span, views), raised)


def recorded(folder: JudgedMachine, graph: Graph, rng: np.random.Generator) -> tuple[Bank, list[Trial]]:
    """Embed the bank of a machine, its healthy test clips, and each of them with two seconds of two faulty ones."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clip.recording for clip in folder.train))}
    bank = [(clip.domain, numbers[clip.recording], graph.embed(read(clip.path))) for clip in folder.train]
    faulty = [(clip.domain, read(clip.path)) for clip in folder.test if clip.anomalous]
    trials = []
    for clip in folder.test:
        if clip.anomalous:
            continue
        whole = read(clip.path)
        views = graph.embed(whole)
        trials.append(Trial(folder.name, "healthy", views, np.zeros(len(views["log-mel"]), bool), None))
        others = [samples for domain, samples in faulty if domain is clip.domain]
        for number in rng.choice(len(others), 2, replace=False):
            length = min(len(whole), len(others[number]))
            if length < 2 * FAULT_SECONDS * SAMPLE_RATE:
                continue
            fade, span = when(length, rng)
            other = others[number][:length] * (rms(whole) / rms(others[number]))
            views = graph.embed(whole[:length] * np.sqrt(1 - fade) + other * np.sqrt(fade))
            trials.append(Trial(folder.name, "fault of two seconds", views, inside(span, views), None))
    return bank, trials


def read(path: Path) -> Samples:
    """Read a clip at the rate of the bundles, at most one window."""
    samples = decode(path.read_bytes(), sample_rate=SAMPLE_RATE, limits=AudioLimits()).samples
    return samples[: round(SECONDS * SAMPLE_RATE)].astype(np.float64)


def when(samples: int, rng: np.random.Generator) -> tuple[Samples, tuple[float, float]]:
    """Draw the envelope `(samples,)` of a fault, and its begin and end as shares of the clip."""
    seconds = samples / SAMPLE_RATE
    begin = rng.uniform(0.0, seconds - FAULT_SECONDS)
    at = np.arange(samples) / SAMPLE_RATE
    fade = np.clip((at - begin) / FADE_SECONDS, 0, 1) * np.clip((begin + FAULT_SECONDS - at) / FADE_SECONDS, 0, 1)
    return fade, (begin / seconds, (begin + FAULT_SECONDS) / seconds)


def inside(span: tuple[float, float], views: Views) -> NDArray[np.bool_]:
    """Return which steps are in the fault for half their length or more."""
    steps = len(views["log-mel"])
    middles = (np.arange(steps) + 0.5) / steps
    return (middles >= span[0]) & (middles <= span[1])


def wav(split: Split, number: int, severity: float = 0.0) -> Clip:
    """Encode a synthetic clip of 10 s."""
    file = io.BytesIO()
    samples = MACHINES["fan-synthetic"].clip(split=split, domain="source", number=number, severity=severity)
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return Clip(f"{number}.wav", file.getvalue())


def request_times(bundle: Path) -> dict[str, dict[str, float]]:
    """Measure the median time of one clip from decoding to JSON in this process, without HTTP.

    `cpu_ms` is the CPU time of this thread, which other programs hardly affect.
    """
    with tempfile.TemporaryDirectory() as folder:
        service = Service.open(Settings(data_dir=Path(folder), bundle=bundle, device=Device.CPU, workers=1))
        with service.store.begin() as tx:
            tx.put_machine("fan", "")
        call, encoder = service.call(COMMAND_LINE), service.encoders.current
        enroll_clips(call, "fan", EnrollOptions(Domain.SOURCE), [wav("train", number) for number in range(25)])
        edges, clip = encoder.band_edges_hz, wav("test", 0, 1.0)
        kinds = {"no spectrogram at all": (None, False), "not requested": (edges, False), "localized": (edges, True)}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for _ in track(range(REQUESTS), description="requests"):
            for name, (edges_or_none, localize) in kinds.items():
                encoder.band_edges_hz = edges_or_none
                begin, core = time.perf_counter(), time.thread_time()
                score_clips(call, "fan", [clip], ScoreOptions(localize=localize)).model_dump_json()
                spent[name].append((time.perf_counter() - begin, time.thread_time() - core))
        service.close()
    medians = {name: [1e3 * median(column) for column in zip(*own, strict=True)] for name, own in spent.items()}
    _, base = medians["no spectrogram at all"]
    return {
        name: {"ms": round(whole, 2), "cpu_ms": round(core, 2), "added_percent": round(100 * (core / base - 1), 1)}
        for name, (whole, core) in medians.items()
    }


def shown(rows: Sequence[dict[str, object]]) -> str:
    """Format a table of faults, with the mean over the synthetic machines for each severity."""
    groups: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        if row["fault"] != "healthy":
            machine = "synthetic" if row["machine"] in MACHINES else row["machine"]
            groups.setdefault(f"{machine}, {row['fault']}", []).append(row)
    heads = [head for head in rows[-1] if head.endswith(("step", "chance", "time", "cells"))]
    means = {
        name: [np.mean([row[head] for row in own]) if own[0][head] is not None else None for head in heads]
        for name, own in groups.items()
    }
    lines = [[name, *("-" if value is None else f"{value:.2f}" for value in own)] for name, own in means.items()]
    return table(["fault", *heads], lines)


if __name__ == "__main__":
    main()
