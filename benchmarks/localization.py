"""Does localization point at the fault, and what does it add to a request?

    python benchmarks/localization.py [--machines DIR] [--bundle DIR]

Faults that last two seconds of a healthy clip. Of a synthetic machine the fault's own sound is known: the difference of
two renderings that draw the same random numbers, healthy and faulty. Of the machines in DIR (DCASE Task 2 layout) two
seconds of a healthy test clip give way to two seconds of a faulty one at the same level; there the bands are not known.
The train clips are enrolled under their domains, and the reference is fitted as the service does. Beside the log-mel
spectrogram that the service keeps, in bands of three mels, three others go through the same code: bands of one mel
(`fine`) and of seven (`broad`), and the token grid of the encoder (`frames`), each of its bands and channels by itself.
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

from offkey.vocabulary import Domain
from service.audio.decode import AudioLimits, decode
from service.domain.localization import Reference
from service.domain.spectrogram import Spectrogram, downsampled
from service.encoder.bundle import MODEL_FILE
from service.settings import Device, Settings, shipped_bundle
from service.synthetic import MACHINES
from service.synthetic.machines import LEVEL_DBFS, SAMPLE_RATE, Split, SyntheticMachine
from service.synthetic.signal import gain, rms
from service.usecases.clip import Upload
from service.usecases.enroll import Condition, enroll_clips
from service.usecases.score import score_clips
from service.usecases.service import Context
from training.evaluation.tables import table
from training.evaluation.tree import JudgedMachine, read_tree

SECONDS, FAULT_SECONDS, FADE_SECONDS = 10.0, 2.0, 0.02
SEVERITIES = (30, 60, 100)  # percent
RAISED = np.log(10) / 10 / 5  # 1 dB, in the log-mel units of the shipped bundles: (ln power + 4.5) / 5
VIEWS = ("log-mel", "fine", "broad", "frames")
REQUESTS = 300
Samples = NDArray[np.float64]
Embedding = dict[str, Spectrogram]  # by view
Bank = Sequence[tuple[Domain, int, Embedding]]  # domain and recording of each clip


@dataclass(frozen=True)
class Trial:
    """A test clip.

    Attributes:
        machine: its name.
        fault: what a row of the table stands for; "healthy" if there is none.
        heard: what the encoder gives.
        inside: `(steps,)`, where the fault is.
        raised: `(steps, bands)`, where it adds 1 dB or more; None: not known.
    """

    machine: str
    fault: str
    heard: Embedding
    inside: NDArray[np.bool_]
    raised: NDArray[np.bool_] | None


class Ears:
    """The graph of a bundle, all outputs."""

    def __init__(self, bundle: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(bundle / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, samples: Samples) -> Embedding:
        """One window."""
        waveform = samples[None].astype(np.float32)
        frames, logmel = (one[0] for one in self._session.run(["frames", "logmel"], {"waveform": waveform}))
        cells = downsampled(logmel, len(samples) / SAMPLE_RATE)
        fine = over_time(logmel, len(cells))
        broad = np.stack([fine[:, start : start + 7].mean(axis=1) for start in range(0, fine.shape[1], 7)], axis=1)
        return {"log-mel": cells, "fine": fine, "broad": broad, "frames": over_time(frames, len(cells))}


def over_time(grid: NDArray[np.float32], steps: int) -> Spectrogram:
    """Means over equal stretches of time, `(time, ...)` to `(steps, values)`."""
    at = np.arange(steps + 1) * len(grid) // steps
    return np.stack([grid[start:end].mean(axis=0).ravel() for start, end in pairwise(at)])


def main() -> None:
    """Measure, print the tables, write results/localization.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=Path, help="machines in the DCASE Task 2 layout; synthetic ones if absent")
    parser.add_argument("--bundle", type=Path, default=shipped_bundle())
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ears, rng = Ears(given.bundle), np.random.default_rng(given.seed)
    rows = []
    for machine in track(list(MACHINES.values()), description="synthetic"):
        rows += judged(synthetic_bank(machine, ears), list(synthetic_trials(machine, ears, rng)))
    for folder in read_tree(given.machines) if given.machines else ():
        bank, trials = recorded(folder, ears, rng)
        rows += judged(bank, trials)
    added = request_times(given.bundle)
    print(shown(rows))
    for name, row in added.items():
        print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()))
    command = "python benchmarks/localization.py --machines DIR --bundle DIR"
    print(f"\n{write('localization', f'{command} --seed {given.seed}', {'faults': rows, 'request': added})}")


def judged(bank: Bank, trials: Sequence[Trial]) -> Iterator[dict[str, object]]:
    """A row for each fault of a machine."""
    references = {view: reference(bank, view) for view in VIEWS}
    for fault in dict.fromkeys(trial.fault for trial in trials):
        own = [trial for trial in trials if trial.fault == fault]
        row: dict[str, object] = {"machine": own[0].machine, "fault": fault, "clips": len(own)}
        for view, fitted in references.items():
            found = [fitted.locate(trial.heard[view]) for trial in own]
            p_values = [one.regions[0].p_value if one.regions else 1.0 for one in found]
            row[f"{view}: any region"] = share([bool(one.regions) for one in found])
            row[f"{view}: p at most 0.1"] = share([value <= 0.1 for value in p_values])
            if fault != "healthy":
                hits = [trial.inside[one.profile.argmax()] for trial, one in zip(own, found, strict=True)]
                row[f"{view}: strongest step"] = share(hits)
        if fault != "healthy":
            row["strongest step, by chance"] = share([trial.inside.mean() for trial in own])
            found = [references["log-mel"].locate(trial.heard["log-mel"]) for trial in own]
            covered = [(one.regions[0], trial) for one, trial in zip(found, own, strict=True) if one.regions]
            row["first region in time"] = share([trial.inside[slice(*top.steps)].mean() for top, trial in covered])
            marked = [(top, trial.raised) for top, trial in covered if trial.raised is not None]
            row["first region on raised cells"] = share(
                [raised[slice(*top.steps), slice(*top.bands)].mean() for top, raised in marked]
            )
            row["raised cells, by chance"] = share([t.raised.mean() for t in own if t.raised is not None])
        yield row


def reference(bank: Bank, view: str) -> Reference:
    """As the service fits it."""
    members = {domain: [one for one in bank if one[0] is domain] for domain in Domain}
    return Reference.fit(
        {domain: [heard[view] for _, _, heard in own] for domain, own in members.items() if own},
        {domain: np.array([number for _, number, _ in own]) for domain, own in members.items() if own},
    )


def share(values: Sequence[float | np.bool_]) -> float | None:
    """Mean, rounded; None of nothing."""
    return round(float(np.mean(values)), 3) if values else None


def synthetic_bank(machine: SyntheticMachine, ears: Ears) -> Bank:
    """20 source clips and 5 target clips."""
    return [
        (domain, number, ears.embed(machine.clip(split="train", domain=domain.value, number=number)))
        for domain, clips in ((Domain.SOURCE, 20), (Domain.TARGET, 5))
        for number in range(clips)
    ]


def synthetic_trials(machine: SyntheticMachine, ears: Ears, rng: np.random.Generator) -> Iterator[Trial]:
    """20 healthy clips of either domain, and faults of every severity in 10 each."""
    size = (round(SECONDS * SAMPLE_RATE), SAMPLE_RATE)
    for domain in Domain:
        condition = machine.condition(domain.value)
        for number in range(20):
            healthy = ears.embed(machine.clip(split="test", domain=domain.value, number=number))
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
                heard, before = ears.embed(level * clip), ears.embed(level * (without + background))
                raised = heard["log-mel"] - before["log-mel"] >= RAISED
                yield Trial(machine.machine_id, f"severity {severity} %", heard, inside(span, heard), raised)


def recorded(folder: JudgedMachine, ears: Ears, rng: np.random.Generator) -> tuple[Bank, list[Trial]]:
    """The bank of a machine, its healthy test clips, and each of them with two seconds of two faulty ones."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clip.recording for clip in folder.train))}
    bank = [(clip.domain, numbers[clip.recording], ears.embed(read(clip.path))) for clip in folder.train]
    faulty = [(clip.domain, read(clip.path)) for clip in folder.test if clip.anomalous]
    trials = []
    for clip in folder.test:
        if clip.anomalous:
            continue
        whole = read(clip.path)
        heard = ears.embed(whole)
        trials.append(Trial(folder.name, "healthy", heard, np.zeros(len(heard["log-mel"]), bool), None))
        others = [samples for domain, samples in faulty if domain is clip.domain]
        for number in rng.choice(len(others), 2, replace=False):
            length = min(len(whole), len(others[number]))
            if length < 2 * FAULT_SECONDS * SAMPLE_RATE:
                continue
            fade, span = when(length, rng)
            other = others[number][:length] * (rms(whole) / rms(others[number]))
            heard = ears.embed(whole[:length] * np.sqrt(1 - fade) + other * np.sqrt(fade))
            trials.append(Trial(folder.name, "fault of two seconds", heard, inside(span, heard), None))
    return bank, trials


def read(path: Path) -> Samples:
    """At the rate of the bundles, at most one window."""
    samples = decode(path.read_bytes(), sample_rate=SAMPLE_RATE, limits=AudioLimits()).samples
    return samples[: round(SECONDS * SAMPLE_RATE)].astype(np.float64)


def when(samples: int, rng: np.random.Generator) -> tuple[Samples, tuple[float, float]]:
    """A fault's envelope `(samples,)` and its begin and end as shares of the clip."""
    seconds = samples / SAMPLE_RATE
    begin = rng.uniform(0.0, seconds - FAULT_SECONDS)
    at = np.arange(samples) / SAMPLE_RATE
    fade = np.clip((at - begin) / FADE_SECONDS, 0, 1) * np.clip((begin + FAULT_SECONDS - at) / FADE_SECONDS, 0, 1)
    return fade, (begin / seconds, (begin + FAULT_SECONDS) / seconds)


def inside(span: tuple[float, float], heard: Embedding) -> NDArray[np.bool_]:
    """Which steps lie in the fault for half their length or more."""
    steps = len(heard["log-mel"])
    middles = (np.arange(steps) + 0.5) / steps
    return (middles >= span[0]) & (middles <= span[1])


def wav(split: Split, number: int, severity: float = 0.0) -> Upload:
    """A synthetic clip of 10 s as a file."""
    file = io.BytesIO()
    samples = MACHINES["fan-synthetic"].clip(split=split, domain="source", number=number, severity=severity)
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return Upload(f"{number}.wav", file.getvalue())


def request_times(bundle: Path) -> dict[str, dict[str, float]]:
    """One clip from decoding to JSON in this process, without HTTP, by turns: p50.

    `cpu_ms` is the time that this thread spends on a core: all but the decoding, which a child process does, and not
    moved by what else the cores have to do.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = Context.open(Settings(data_dir=Path(folder), bundle=bundle, device=Device.CPU, workers=1))
        context.store.put_machine("fan", description="")
        enroll_clips(context, "fan", Condition(Domain.SOURCE), [wav("train", number) for number in range(25)])
        edges, upload = context.encoder.band_edges_hz, wav("test", 0, 1.0)
        kinds = {"no spectrogram at all": (None, False), "not asked for": (edges, False), "localized": (edges, True)}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for _ in track(range(REQUESTS), description="requests"):
            for name, (known, asked) in kinds.items():
                context.encoder.band_edges_hz = known
                begin, core = time.perf_counter(), time.thread_time()
                score_clips(context, "fan", [upload], 1, asked).model_dump_json()
                spent[name].append((time.perf_counter() - begin, time.thread_time() - core))
        context.close()
    medians = {name: [1e3 * median(column) for column in zip(*own, strict=True)] for name, own in spent.items()}
    _, base = medians["no spectrogram at all"]
    return {
        name: {"ms": round(whole, 2), "cpu_ms": round(core, 2), "added_percent": round(100 * (core / base - 1), 1)}
        for name, (whole, core) in medians.items()
    }


def shown(rows: Sequence[dict[str, object]]) -> str:
    """Faults in a few lines: of the synthetic machines the mean of each severity."""
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
