"""Runs the controlled experiment: compares methods on machines in noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from offkey.vocabulary import Domain
from service.encoder.bundle import Manifest
from service.settings import Device
from training.config import ConfigError
from training.data.catalog import DataError
from training.evaluation import methods
from training.evaluation.checks import check_clips
from training.evaluation.choice import Choice, leave_one_out, machine_names
from training.evaluation.comparison import Cell, Comparison, cells
from training.evaluation.config import LOGMEL, ORACLE, ExperimentConfig
from training.evaluation.embedders import BundleEmbedder, Embedded, Embedder, LogmelEmbedder, check_device, oracle
from training.evaluation.embedding import MachineEmbeddings
from training.evaluation.embedding_cache import EmbeddingCache
from training.evaluation.noise import Kind, Noise, Role
from training.evaluation.protocol import Sound, sounds
from training.evaluation.scores import SCORERS, Scorer, scorers
from training.evaluation.timing import milliseconds
from training.evaluation.tree import JudgedMachine, read_tree


@dataclass(frozen=True)
class Result:
    """Results of an experiment.

    Attributes:
        machines: machines without repeated clips.
        notes: clips and recordings that were left out, and other remarks on the data.
        provider: ONNX Runtime provider of the embeddings.
    """

    config: ExperimentConfig
    machines: tuple[JudgedMachine, ...]
    noise: Noise
    manifests: Mapping[str, Manifest]  # manifests by method
    milliseconds: Mapping[str, float]  # per clip of 10 s, by method
    comparison: Comparison
    notes: tuple[str, ...]
    provider: str
    choices: tuple[Choice, ...]  # choices with one machine left out; empty if none are configured

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, from the baseline to the oracle."""
        return (LOGMEL, *self.manifests, ORACLE)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the baseline, the methods, the groups and the oracle."""
        return (LOGMEL, *self.manifests, *self.config.groups, ORACLE)


@dataclass(frozen=True)
class _Method:
    embedder: Embedder
    oracle: bool = False

    def load(
        self,
        embeddings: MachineEmbeddings,
        machine: JudgedMachine,
        role: Role,
        kind: Kind | None,
        snr: float | None,
        seed: int,
    ) -> Embedded:
        clean = Sound("clean", role)
        if kind is None:
            return embeddings.load(self.embedder, machine, clean)
        if not self.oracle:
            return embeddings.load(self.embedder, machine, Sound("mixture", role, kind, snr, seed))
        noise = embeddings.load(self.embedder, machine, Sound("noise", role, kind, None, seed))
        return oracle(embeddings.load(self.embedder, machine, clean), noise)


def run(config: ExperimentConfig, progress: Progress) -> Result:
    """Check the data, train methods, embed, score and compare. Results in the work folder are reused.

    Args:
        config: config of the experiment.
        progress: progress display.

    Raises:
        ConfigError, DataError, BundleError, CheckpointError: a clip, a recording of noise, a bundle, a checkpoint or
            the device cannot be used; raised before anything is trained or embedded.
        RunError, ExportError: a method cannot be trained.
    """
    work, device = Path(config.work), Device(config.device)
    check_device(device)
    machines = _read_machines(config)
    given = {method.name: BundleEmbedder(Path(method.bundle), device) for method in config.methods if method.bundle}
    needs = methods.needs(config, {name: embedder.encoder.manifest for name, embedder in given.items()})
    rate = _one_rate(needs)
    noise = Noise.read(Path(config.noise), rate)
    least = max(need.min_seconds for need in needs.values())
    checked = check_clips(machines, Path(config.machines), rate, least, config.workers, progress)
    noise.check(checked.shortest)
    folders = methods.bundles(config, progress)
    bundles = {name: given.get(name) or BundleEmbedder(folder, device) for name, folder in folders.items()}
    reference = bundles[config.reference]
    embedders: dict[str, Embedder] = {LOGMEL: LogmelEmbedder(reference), **bundles}
    embeddings = MachineEmbeddings(noise, rate, EmbeddingCache(work / "embeddings"))
    passes: list[tuple[list[Embedder], bool]] = [(list(embedders.values()), False), ([reference], True)]
    wanted = [
        (machine, sound, own)
        for machine in checked.machines
        for own, alone in passes
        for sound in sounds(config.snr_db, config.seeds, oracle=alone)
    ]
    embeddings.embed(wanted, config.workers, progress)
    timed = {name: each if each.on_cpu else BundleEmbedder(each.folder) for name, each in bundles.items()}
    times = milliseconds(timed, config.timing_rounds, work / "timings") if config.timing_rounds else {}
    compared = {name: _Method(embedder) for name, embedder in embedders.items()}
    compared[ORACLE] = _Method(reference, oracle=True)
    comparison = _compare(config, checked.machines, compared, embeddings, progress)
    manifests = {name: embedder.encoder.manifest for name, embedder in bundles.items()}
    for group, members in config.groups.items():
        comparison.add_group(group, members)
    choices = leave_one_out(comparison, config.choose, config.baseline) if config.choose else []
    return Result(
        config,
        checked.machines,
        noise,
        manifests,
        times,
        comparison,
        notes=(*noise.left_out, *checked.notes),
        provider=reference.encoder.provider,
        choices=tuple(choices),
    )


def _read_machines(config: ExperimentConfig) -> list[JudgedMachine]:
    machines = read_tree(Path(config.machines))
    if config.choose and len(machine_names(machines)) < 2:
        raise ConfigError(f"`choose` leaves one machine out, but {config.machines} has only {machines[0].folder}.")
    return machines


def _one_rate(needs: Mapping[str, methods.Needs]) -> int:
    rates = {name: need.sample_rate for name, need in needs.items()}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
        raise ConfigError(f"The methods take different sample rates ({listed}). Compare methods of one rate.")
    return next(iter(rates.values()))


def _compare(
    config: ExperimentConfig,
    machines: Sequence[JudgedMachine],
    compared: Mapping[str, _Method],
    embeddings: MachineEmbeddings,
    progress: Progress,
) -> Comparison:
    comparison = Comparison(machines, config.snr_db, config.seeds, config.bootstrap)
    task = progress.add_task("scoring", total=len(compared) * (len(machines) + len(SCORERS)))
    for name, method in compared.items():
        scores: dict[str, dict[tuple[str, Cell], list[NDArray[np.float64]]]] = {scorer: {} for scorer in SCORERS}
        for machine in machines:
            for scorer, found in _score(config, machine, method, embeddings).items():
                scores[scorer] |= {(machine.name, cell): rows for cell, rows in found.items()}
            progress.advance(task)
        for scorer, of_machines in scores.items():
            comparison.add(name, scorer, of_machines)
            progress.advance(task)
    return comparison


def _score(
    config: ExperimentConfig, machine: JudgedMachine, method: _Method, embeddings: MachineEmbeddings
) -> dict[str, dict[Cell, list[NDArray[np.float64]]]]:
    """Score a machine's test clips, by scorer and cell, for each seed."""
    domains, read = [clip.domain for clip in machine.train], scorers(config.backend)
    scores: dict[str, dict[Cell, list[NDArray[np.float64]]]] = {scorer: {} for scorer in SCORERS}
    for snr in (None, *config.snr_db):
        wanted = [(cell, condition) for cell, condition in cells(config.snr_db) if cell.snr_db == snr]
        for seed in range(config.seeds if snr is not None else 1):
            loaded: dict[tuple[Role, Kind | None], Embedded] = {}
            for cell, condition in wanted:
                pair: tuple[tuple[Role, Kind | None], ...] = (("bank", condition.bank), ("test", condition.test))
                for role, kind in pair:
                    if (role, kind) not in loaded:
                        loaded[role, kind] = method.load(embeddings, machine, role, kind, snr, seed)
                for name, scorer in read.items():
                    found = _apply(
                        scorer, loaded["bank", condition.bank], domains, loaded["test", condition.test], machine
                    )
                    scores[name].setdefault(cell, []).append(found)
    return scores


def _apply(
    scorer: Scorer, bank: Embedded, domains: Sequence[Domain], test: Embedded, machine: JudgedMachine
) -> NDArray[np.float64]:
    try:
        return scorer(bank, domains, test)
    except DataError as error:
        raise DataError(f"The machine {machine.name}: {error}") from error
