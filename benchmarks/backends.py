"""Compare all backends on machines with known faults: clean and in noise at 0 dB, source and target.

    python benchmarks/backends.py --machines DIR --noise DIR [--bundle DIR]

Two trees: the machines in DIR, and the synthetic ones of `offkey synthesize`. Clips are embedded as in `offkey
experiment`, by the protocol of arXiv 2510.25182, and scored as in the service once the train clips are enrolled under
their domains. Backends that are not served are those of candidates.py. The backends also score a second view of the
same clips, their mean log-mel spectra without the level, and the minimum of both. No statistic is taken over test
clips.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from candidates import FUSED, FUSION, register
from machine import write
from rich.progress import Progress

from offkey.vocabulary import Domain
from service.domain.backends import DEFAULT_BACKEND
from service.settings import shipped_bundle
from service.synthetic import plan_tree, write_tree
from training.evaluation.comparison import ALL, Cell, Comparison, Key, cells
from training.evaluation.embedders import BandsEmbedder, BundleEmbedder, Embedded, Embedder, LogmelEmbedder
from training.evaluation.embedding import MachineEmbeddings
from training.evaluation.embedding_cache import EmbeddingCache
from training.evaluation.noise import Noise
from training.evaluation.protocol import Sound, sounds
from training.evaluation.scores import ServedBank
from training.evaluation.tables import table
from training.evaluation.tree import JudgedMachine, read_tree

SNR = 0.0  # dB
SHOWN = (Cell("clean", None), Cell("noisy", None))
DOMAINS = ("auc_source", "auc_target")
REPLICATES = 1_000
METHODS = (
    "nearest",
    "nearest-mean",
    "density-ratio",
    "density-difference",
    "mahalanobis",
    "pca-residual",
    FUSION,
)
ONE_BANK = "all in one bank"
EMBEDDING, LOGMEL, BOTH = "embedding", "log-mel", "minimum of both"
BANDS_MEAN, BANDS_MAX = "bands, mean", "bands, largest"
VIEWS = (EMBEDDING, LOGMEL, BOTH, BANDS_MEAN, BANDS_MAX)


@dataclass(frozen=True)
class Trial:
    """Clips of a machine, embedded by all views under one condition."""

    bank: dict[str, Embedded]
    test: dict[str, Embedded]
    domains: Sequence[Domain]
    bands: tuple[Sequence[Embedded], Sequence[Embedded]]  # bank and test clips by band

    def scores(self, backend: str) -> dict[str, np.ndarray]:
        """Score the test clips. Returns the scores by view."""
        found = {name: self._scores(bank, self.test[name], backend) for name, bank in self.bank.items()}
        by_band = [self._scores(bank, test, backend) for bank, test in zip(*self.bands, strict=True)]
        found[BOTH] = np.minimum(found[EMBEDDING], found[LOGMEL])
        found[BANDS_MEAN], found[BANDS_MAX] = np.mean(by_band, axis=0), np.max(by_band, axis=0)
        return found

    def _scores(self, bank: Embedded, test: Embedded, backend: str) -> np.ndarray:
        names = FUSED if backend == FUSION else (backend,)
        scores: np.ndarray = np.min(
            [ServedBank.enroll(bank, self.domains, name).scores(test) for name in names], axis=0
        )
        return scores


def main() -> None:
    """Measure, print the tables, write results/backends.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machines", type=Path, required=True, help="machines in the DCASE Task 2 layout")
    parser.add_argument("--noise", type=Path, required=True, help="with stationary/ and nonstationary/ below it")
    parser.add_argument("--bundle", type=Path, default=shipped_bundle())
    parser.add_argument("--seeds", type=int, default=5, help="draws of the noise")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/backends"), help="folder of cached embeddings; may be deleted"
    )
    parser.add_argument("--workers", type=int, default=0, help="number of threads, 0 for one per core")
    given = parser.parse_args()
    register()
    synthetic = given.work / "synthetic"
    if not synthetic.is_dir():
        write_tree(synthetic.with_suffix(".part"), plan_tree())
        synthetic.with_suffix(".part").rename(synthetic)
    bundle = BundleEmbedder(given.bundle)
    views: dict[str, Embedder] = {EMBEDDING: bundle, LOGMEL: LogmelEmbedder(bundle)}
    bands = BandsEmbedder(bundle)
    embeddings = MachineEmbeddings(
        Noise.read(given.noise, bundle.encoder.sample_rate), bundle.encoder.sample_rate, EmbeddingCache(given.work)
    )
    manifest = bundle.encoder.manifest
    found: dict[str, object] = {"bundle": f"{manifest.name}/{manifest.version}", "sha256": manifest.model_sha256}
    measured: dict[str, Comparison] = {}
    together: dict[str, Comparison] = {}
    with Progress() as progress:
        for title, tree in (("development", given.machines), ("synthetic", synthetic)):
            machines = read_tree(tree)
            wanted = [
                (one, sound, [*views.values(), bands])
                for one in machines
                for sound in sounds((SNR,), given.seeds, oracle=False)
            ]
            embeddings.embed(wanted, given.workers, progress)
            trials = Trials(embeddings, views, bands, given.seeds)
            measured[title] = measure([(machine, [machine]) for machine in machines], trials, progress)
            together[title] = measure([(one_bank(machines), machines)], trials, progress)
    print(f"{found['bundle']}, AUC as served\n\n{overview(measured)}")
    for title, comparison in measured.items():
        print(f"\n{title}, mean over conditions and domains\n\n{by_machine(comparison, together[title])}")
        found[title] = [*rows(comparison), *rows(together[title])]
    command = "python benchmarks/backends.py --machines DIR --noise DIR --bundle DIR"
    print(f"\n{write('backends', f'{command} --seeds {given.seeds}', found)}")


def one_bank(machines: Sequence[JudgedMachine]) -> JudgedMachine:
    """Combine all machines to one that runs in as many conditions."""
    train = tuple(clip for machine in machines for clip in machine.train)
    return JudgedMachine(ONE_BANK, train, tuple(clip for machine in machines for clip in machine.test))


@dataclass(frozen=True)
class Trials:
    """Embeddings of all clips of a tree, by all views under all conditions."""

    embeddings: MachineEmbeddings
    views: dict[str, Embedder]
    bands: BandsEmbedder
    seeds: int

    def of(self, machines: Sequence[JudgedMachine]) -> Iterator[tuple[Cell, Trial]]:
        """Yield a trial for each condition and draw of the noise, with the clips of several machines in one bank."""
        domains = [clip.domain for machine in machines for clip in machine.train]
        for cell, condition in cells((SNR,)):
            for seed in range(1 if condition.bank is None else self.seeds):
                by_role, of_bands = [], []
                for role, kind in (("bank", condition.bank), ("test", condition.test)):
                    sound = Sound("clean", role) if kind is None else Sound("mixture", role, kind, SNR, seed)
                    by_role.append({name: self._clips(view, machines, sound) for name, view in self.views.items()})
                    of_bands.append(self.bands.parts(self._clips(self.bands, machines, sound)))
                yield cell, Trial(*by_role, domains, (of_bands[0], of_bands[1]))

    def _clips(self, view: Embedder, machines: Sequence[JudgedMachine], sound: Sound) -> Embedded:
        clips = []
        for machine in machines:
            found = self.embeddings.load(view, machine, sound)
            for number, clip in enumerate(found.split()):
                pieces = tuple(piece for of_clip, piece in found.pieces if of_clip == number)
                clips.append(clip._replace(pieces=pieces))
        return Embedded.join(clips)


def measure(
    banks: Sequence[tuple[JudgedMachine, Sequence[JudgedMachine]]], trials: Trials, progress: Progress
) -> Comparison:
    """Score all backends and views, as methods of a comparison. A bank is of one machine or of several."""
    comparison = Comparison([whole for whole, _ in banks], (SNR,), trials.seeds, REPLICATES)
    for backend in progress.track(METHODS, description="scoring"):
        scores: dict[str, dict[tuple[str, Cell], list[np.ndarray]]] = {name: {} for name in VIEWS}
        for whole, members in banks:
            for cell, trial in trials.of(members):
                for name, of_clips in trial.scores(backend).items():
                    scores[name].setdefault((whole.name, cell), []).append(of_clips)
        for name, of_banks in scores.items():
            comparison.add(backend, name, of_banks)
    return comparison


def figure(comparison: Comparison, backend: str, view: str, machine: str, cell: Cell, metric: str) -> float:
    """Return a figure, or NaN if the machine has no clip of a domain."""
    interval = comparison.interval(Key(backend, view, machine, cell, metric))
    return float("nan") if interval is None else interval.value


def overall(comparison: Comparison, backend: str, view: str, machine: str) -> float:
    """Compute the mean over conditions and domains."""
    return float(
        np.nanmean([figure(comparison, backend, view, machine, cell, metric) for cell in SHOWN for metric in DOMAINS])
    )


def short(comparison: Comparison, backend: str, view: str) -> float:
    """Compute how far the mean over machines is below the best backend of each machine."""
    best = [
        max(overall(comparison, name, EMBEDDING, machine.name) for name in METHODS) for machine in comparison.machines
    ]
    own = [overall(comparison, backend, view, machine.name) for machine in comparison.machines]
    return float(np.mean(best) - np.mean(own))


def overview(measured: dict[str, Comparison]) -> str:
    """Tabulate the means over machines."""
    lines = []
    for view in VIEWS:
        for backend in METHODS:
            line = [view, backend + (" (default)" if (view, backend) == (EMBEDDING, DEFAULT_BACKEND) else "")]
            for comparison in measured.values():
                line += [
                    f"{figure(comparison, backend, view, ALL, cell, metric):.3f}"
                    for cell in SHOWN
                    for metric in DOMAINS
                ]
                line.append(f"{short(comparison, backend, view):.3f}")
            lines.append(line)
    heads = [
        f"{title}: {cell}"
        for title in measured
        for cell in ("clean source", "clean target", "0 dB source", "0 dB target", "short of best")
    ]
    return table(["view", "backend", *heads], lines)


def by_machine(comparison: Comparison, together: Comparison) -> str:
    """Tabulate the scores of the embedding by machine."""
    found = [(one, machine.name) for one in (comparison, together) for machine in one.machines]
    lines = [
        [backend, *(f"{overall(one, backend, EMBEDDING, name):.3f}" for one, name in found)] for backend in METHODS
    ]
    return table(["backend", *(name for _, name in found)], lines)


def rows(comparison: Comparison) -> Iterator[dict[str, object]]:
    """Every figure that a table shows, with its interval and that of its difference from the default."""
    for key in comparison.keys:
        if key.cell in SHOWN and key.metric in DOMAINS:
            interval = comparison.interval(key)
            if interval is not None:
                less = comparison.difference(key, DEFAULT_BACKEND)
                yield {
                    "view": key.scorer,
                    "backend": key.method,
                    "machine": key.machine,
                    "condition": str(key.cell),
                    "metric": key.metric,
                    **{name: round(value, 4) for name, value in asdict(interval).items()},
                    "less_default": less and [round(value, 4) for value in asdict(less).values()],
                }


if __name__ == "__main__":
    main()
