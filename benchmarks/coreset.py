"""Measure the loss and the gain of comparing with a coreset of a bank instead of the whole bank.

    python benchmarks/coreset.py --machines DIR --noise DIR [--bundle DIR]

AUC: the clips of the machines in DIR (DCASE Task 2 layout) are cut into pieces of two seconds, one a second, and every
piece is mixed with noise at 0 dB several times. Bank and test have different recordings of noise. Pieces are enrolled
with the name of their file, so a file is left out as a whole. False alarms and time: simulated Gaussian embeddings. Two
ways of choosing: `in rounds`, which the service has (service/domain/coreset.py), and `k-center`, greedily the window
that is farthest from those chosen.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from machine import write
from numpy.typing import NDArray
from rich.progress import track

from offkey.vocabulary import Domain
from service.audio.decode import AudioLimits, decode
from service.bank import Bank, BankRows, Calibration, CalibrationRows
from service.domain.coreset import coreset
from service.domain.detector import Detector
from service.domain.distance import Vectors, cosine_distances, nearest_rows
from service.domain.threshold import conformal_threshold
from service.encoder.encoder import Encoder
from service.settings import Device, shipped_bundle
from training.evaluation.noise import KINDS, Noise, Role
from training.evaluation.tables import table
from training.evaluation.tree import JudgedClip, JudgedMachine, read_tree
from training.metrics import auc

SECONDS, HOP_SECONDS = 2.0, 1.0
BACKENDS = ("mahalanobis", "nearest")
CAPS = (100, 300, 1_000, 0)  # windows of a domain, 0 for all
DRAWS = {"bank": 20, "test": 2}  # noisy copies of each piece
TIMED = (1_000, 3_000, 0)
RATE, SIMULATED, DIM, DIM_TIMED = 0.05, 1_000, 16, 2_048
Rows = NDArray[np.int64]
Choose = Callable[[Vectors, Rows, Rows, int], Rows]


def k_center(vectors: Vectors, clips: Rows, recordings: Rows, most: int) -> Rows:
    """Choose the window nearest to the mean, then repeatedly the one that is farthest from all chosen ones."""
    del clips, recordings
    if len(vectors) <= most:
        return np.arange(len(vectors))
    chosen = [int(np.argmax(vectors @ vectors.mean(axis=0)))]
    away = cosine_distances(vectors, vectors[chosen])[:, 0]
    while len(chosen) < most:
        chosen.append(int(np.argmax(away)))
        away = np.minimum(away, cosine_distances(vectors, vectors[chosen[-1:]])[:, 0])
    return np.sort(np.array(chosen))


WAYS: dict[str, Choose] = {"in rounds": coreset, "k-center": k_center}


def main() -> None:
    """Measure, print the tables, write results/coreset.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=Path, required=True)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, default=shipped_bundle())
    parser.add_argument("--work", type=Path, default=Path("runs/coreset"), help="embeddings; may be deleted")
    parser.add_argument("--banks", type=int, default=100, help="simulated, for false alarms")
    given = parser.parse_args()
    encoder = Encoder(given.bundle, Device.CPU)
    noise = Noise.read(given.noise, encoder.sample_rate)
    aucs: list[dict[str, object]] = []
    for machine in read_tree(given.machines):
        aucs += Pieces(machine, encoder, noise, given.work).figures()
    alarms = list(track(false_alarms(given.banks), "false alarms", total=len(BACKENDS) * len(WAYS)))
    times = list(track(spent(), "time", total=len(BACKENDS) * len(TIMED)))
    for rows in (aucs, alarms, times):
        print(f"\n{table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])}")
    command = "python benchmarks/coreset.py --machines DIR --noise DIR --bundle DIR"
    print(f"\n{write('coreset', command, {'auc': aucs, 'false_alarms': alarms, 'seconds': times})}")


class Pieces:
    """Embedded pieces of a machine's clips, mixed with noise."""

    def __init__(self, machine: JudgedMachine, encoder: Encoder, noise: Noise, work: Path) -> None:
        self.machine = machine
        self._path = work / f"{encoder.manifest.model_sha256[:12]}-{machine.name}.npz"
        if not self._path.exists():
            work.mkdir(parents=True, exist_ok=True)
            found = {role: self._embed(role, encoder, noise) for role in ("bank", "test")}
            np.savez(self._path, **{f"{role}_{name}": one for role, own in found.items() for name, one in own.items()})
        self._found = dict(np.load(self._path))

    def figures(self) -> Iterator[dict[str, object]]:
        """Compute the AUC by backend, way and cap."""
        vectors, domains = self._found["bank_vectors"], self._found["bank_source"]
        test = self._found["test_vectors"]
        anomalous = self._found["test_anomalous"]
        for backend in BACKENDS:
            for way, choose in WAYS.items():
                row: dict[str, object] = {"machine": self.machine.name, "windows": len(vectors)}
                row |= {"backend": backend, "chosen": way}
                for cap in CAPS:
                    members = {
                        domain: np.flatnonzero(domains == (domain is Domain.SOURCE))
                        for domain in Domain
                        if (domains == (domain is Domain.SOURCE)).any()
                    }
                    if cap:
                        members = {domain: at[self._chosen(choose, at, cap)] for domain, at in members.items()}
                    scores = judged(backend, vectors, self._found["bank_recording"], members, test)
                    value = auc(scores, ~anomalous, anomalous, np.ones((1, len(scores))))
                    row[f"{cap:,}" if cap else "all"] = round(float(np.ravel(value)[0]), 4)
                yield row

    def _chosen(self, choose: Choose, at: Rows, cap: int) -> Rows:
        return choose(self._found["bank_vectors"][at], at, self._found["bank_recording"][at], cap)

    def _embed(self, role: Role, encoder: Encoder, noise: Noise) -> dict[str, NDArray[np.generic]]:
        clips = self.machine.train if role == "bank" else self.machine.test
        rng = np.random.default_rng(0)
        vectors, facts = [], []
        for number, clip in enumerate(track(clips, description=f"{self.machine.name}, {role}")):
            for piece in pieces(clip, encoder.sample_rate):
                for draw in range(DRAWS[role]):
                    kind = KINDS[draw % len(KINDS)]
                    recordings = noise.recordings[kind, role]
                    recording = recordings[int(rng.integers(len(recordings)))]
                    room = max(1, len(recording.samples) - len(piece))
                    other = recording.cut(int(rng.integers(room)), len(piece))
                    level = np.sqrt(np.mean(piece**2) / max(float(np.mean(other**2)), 1e-12))
                    vectors.append(encoder.embed((piece + level * other).astype(np.float32))[0])
                    facts.append((number, clip.domain is Domain.SOURCE, clip.anomalous))
        number, source, anomalous = (np.array(column) for column in zip(*facts, strict=True))
        return {
            "vectors": np.concatenate(vectors),
            "recording": number.astype(np.int64),
            "source": source,
            "anomalous": anomalous,
        }


def pieces(clip: JudgedClip, rate: int) -> Iterator[NDArray[np.float32]]:
    """Cut two seconds of a clip, every second."""
    samples = decode(clip.path.read_bytes(), sample_rate=rate, limits=AudioLimits()).samples
    length, hop = round(SECONDS * rate), round(HOP_SECONDS * rate)
    for start in range(0, len(samples) - length + 1, hop):
        yield samples[start : start + length]


def judged(
    backend: str, vectors: Vectors, recordings: Rows, members: dict[Domain, Rows], test: Vectors
) -> NDArray[np.float64]:
    """Score test windows. Each enrolled window is a clip of its own."""
    banks = {domain: vectors[at] for domain, at in members.items()}
    detector = Detector.fit(banks, members, {domain: recordings[at] for domain, at in members.items()}, backend)
    near = {domain: nearest_rows(test, bank, max(1, detector.neighbors)) for domain, bank in banks.items()}
    scores: NDArray[np.float64] = np.min(list(detector.window_scores(test, near).values()), axis=0)
    return scores


def false_alarms(banks: int) -> Iterator[dict[str, object]]:
    """Measure the false-alarm rate at a requested 5 %, over banks of 1,000 independent clips around one center."""
    for backend in BACKENDS:
        for way, choose in WAYS.items():
            row: dict[str, object] = {"backend": backend, "chosen": way, "requested": RATE}
            for cap in (100, 300, 0):
                alarms = []
                for number in range(banks):
                    rng = np.random.default_rng(number)
                    center = rng.standard_normal(DIM)
                    everything = unit(center + 0.4 * rng.standard_normal((SIMULATED + 200, DIM)))
                    vectors, new = everything[:SIMULATED], everything[SIMULATED:]
                    numbers = np.arange(SIMULATED)
                    at = choose(vectors, numbers, numbers, cap) if cap else numbers
                    bank, own = {Domain.SOURCE: vectors[at]}, {Domain.SOURCE: numbers[at]}
                    detector = Detector.fit(bank, own, own, backend)
                    near = nearest_rows(new, vectors[at], max(1, detector.neighbors))
                    scores = detector.window_scores(new, {Domain.SOURCE: near})[Domain.SOURCE]
                    alarms.append(np.mean(scores > conformal_threshold(detector.self_scores, RATE).value))
                row[f"{cap:,}" if cap else "all"] = round(float(np.mean(alarms)), 4)
            yield row


def spent() -> Iterator[dict[str, object]]:
    """Measure the time to rebuild a bank of 10,000 windows and to score one window."""
    rng = np.random.default_rng(0)
    count = 10_000
    vectors = unit(rng.standard_normal((count, DIM_TIMED)))
    clips = np.arange(count)
    rows = BankRows(
        generation=1,
        embedding_space_id="made up",
        vectors=vectors,
        clips=clips,
        recordings=clips,
        starts=np.zeros(count),
        ends=np.full(count, SECONDS),
        domains=(Domain.SOURCE,) * count,
        names=dict.fromkeys(range(count), ""),
    )
    for backend in BACKENDS:
        for cap in TIMED:
            begin = time.perf_counter()
            bank = Bank.of(rows, Calibration.fit(rows, CalibrationRows(), backend, cap), exact_limit=10_000)
            built = time.perf_counter() - begin
            times = []
            for _ in range(20):
                begin = time.perf_counter()
                bank.score(vectors[:1], 1)
                times.append(time.perf_counter() - begin)
            yield {
                "backend": backend,
                "windows compared": cap or count,
                "rebuild, s": round(built, 2),
                "score, ms": round(1e3 * median(times), 2),
                "memory, MB": round(bank.nbytes / 2**20),
            }


def unit(vectors: NDArray[np.float64]) -> Vectors:
    """Normalize vectors to unit norm."""
    found: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


if __name__ == "__main__":
    main()
