"""The controlled experiment: methods side by side on machines in noise."""

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
from training.evaluation.cells import Cells
from training.evaluation.checks import check_clips
from training.evaluation.choice import Choice, leave_one_out, machine_names
from training.evaluation.comparison import Cell, Comparison, cells
from training.evaluation.config import LOGMEL, ORACLE, ExperimentConfig
from training.evaluation.listening import Listener
from training.evaluation.noise import Kind, Noise, Role
from training.evaluation.protocol import Sound, sounds
from training.evaluation.readings import READINGS, Reading, readings
from training.evaluation.timing import milliseconds
from training.evaluation.tree import JudgedMachine, read_tree
from training.evaluation.views import BundleView, Embedded, LogmelView, View, check_device, oracle


@dataclass(frozen=True)
class Result:
    """What was found, and of what.

    Attributes:
        machines: without clips that repeat another.
        notes: what was left out and why, and what else a reader of the figures needs to see.
        provider: the ONNX Runtime provider that embeddings were made with.
    """

    config: ExperimentConfig
    machines: tuple[JudgedMachine, ...]
    noise: Noise
    manifests: Mapping[str, Manifest]  # by method, of those that are bundles
    milliseconds: Mapping[str, float]  # per clip of 10 s, by method
    comparison: Comparison
    notes: tuple[str, ...]
    provider: str
    choices: tuple[Choice, ...]  # with one machine left out; empty where none was to be made

    @property
    def methods(self) -> tuple[str, ...]:
        """Names, the baseline first and the oracle last."""
        return (LOGMEL, *self.manifests, ORACLE)

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of methods and groups: the baseline, methods, groups, the oracle."""
        return (LOGMEL, *self.manifests, *self.config.groups, ORACLE)


@dataclass(frozen=True)
class _Method:
    view: View
    oracle: bool = False

    def embedded(
        self, listener: Listener, machine: JudgedMachine, role: Role, kind: Kind | None, snr: float | None, seed: int
    ) -> Embedded:
        clean = Sound("clean", role)
        if kind is None:
            return listener.embedded(self.view, machine, clean)
        if not self.oracle:
            return listener.embedded(self.view, machine, Sound("mixture", role, kind, snr, seed))
        noise = listener.embedded(self.view, machine, Sound("noise", role, kind, None, seed))
        return oracle(listener.embedded(self.view, machine, clean), noise)


def run(config: ExperimentConfig, progress: Progress) -> Result:
    """Check the data, train what is to be trained, embed, score, compare. What was done before is not done again.

    Args:
        config: of the experiment.
        progress: where to draw it.

    Raises:
        ConfigError, DataError, BundleError, CheckpointError: before anything is trained or embedded, if a clip, a
            recording of noise, a bundle, a checkpoint or the device is not usable.
        RunError, ExportError: a method cannot be trained.
    """
    work, device = Path(config.work), Device(config.device)
    check_device(device)
    machines = _read_machines(config)
    given = {method.name: BundleView(Path(method.bundle), device) for method in config.methods if method.bundle}
    needs = methods.needs(config, {name: view.encoder.manifest for name, view in given.items()})
    rate = _one_rate(needs)
    noise = Noise.read(Path(config.noise), rate)
    least = max(need.min_seconds for need in needs.values())
    checked = check_clips(machines, Path(config.machines), rate, least, config.workers, progress)
    noise.check(checked.shortest)
    folders = methods.bundles(config, progress)
    bundles = {name: given.get(name) or BundleView(folder, device) for name, folder in folders.items()}
    reference = bundles[config.reference]
    views: dict[str, View] = {LOGMEL: LogmelView(reference), **bundles}
    listener = Listener(noise, rate, Cells(work / "cells"))
    heard: list[tuple[list[View], bool]] = [(list(views.values()), False), ([reference], True)]
    wanted = [
        (machine, sound, own)
        for machine in checked.machines
        for own, alone in heard
        for sound in sounds(config.snr_db, config.seeds, oracle=alone)
    ]
    listener.embed(wanted, config.workers, progress)
    timed = {name: view if view.on_cpu else BundleView(view.folder) for name, view in bundles.items()}
    times = milliseconds(timed, config.timing_rounds, work / "timings") if config.timing_rounds else {}
    compared = {name: _Method(view) for name, view in views.items()} | {ORACLE: _Method(reference, oracle=True)}
    comparison = _compare(config, checked.machines, compared, listener, progress)
    manifests = {name: view.encoder.manifest for name, view in bundles.items()}
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
        raise ConfigError(f"`choose` leaves one machine out, but {config.machines} holds only {machines[0].folder}.")
    return machines


def _one_rate(needs: Mapping[str, methods.Needs]) -> int:
    rates = {name: need.sample_rate for name, need in needs.items()}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
        raise ConfigError(f"The methods take different sample rates ({listed}); compare those of one rate.")
    return next(iter(rates.values()))


def _compare(
    config: ExperimentConfig,
    machines: Sequence[JudgedMachine],
    compared: Mapping[str, _Method],
    listener: Listener,
    progress: Progress,
) -> Comparison:
    comparison = Comparison(machines, config.snr_db, config.seeds, config.bootstrap)
    task = progress.add_task("scoring", total=len(compared) * (len(machines) + len(READINGS)))
    for name, method in compared.items():
        scores: dict[str, dict[tuple[str, Cell], list[NDArray[np.float64]]]] = {reading: {} for reading in READINGS}
        for machine in machines:
            for reading, found in _score(config, machine, method, listener).items():
                scores[reading] |= {(machine.name, cell): rows for cell, rows in found.items()}
            progress.advance(task)
        for reading, of_machines in scores.items():
            comparison.add(name, reading, of_machines)
            progress.advance(task)
    return comparison


def _score(
    config: ExperimentConfig, machine: JudgedMachine, method: _Method, listener: Listener
) -> dict[str, dict[Cell, list[NDArray[np.float64]]]]:
    """Scores of a machine's test clips, by reading and cell, for each seed."""
    domains, read = [clip.domain for clip in machine.train], readings(config.backend)
    scores: dict[str, dict[Cell, list[NDArray[np.float64]]]] = {reading: {} for reading in READINGS}
    for snr in (None, *config.snr_db):
        wanted = [(cell, condition) for cell, condition in cells(config.snr_db) if cell.snr_db == snr]
        for seed in range(config.seeds if snr is not None else 1):
            heard: dict[tuple[Role, Kind | None], Embedded] = {}
            for cell, condition in wanted:
                pair: tuple[tuple[Role, Kind | None], ...] = (("bank", condition.bank), ("test", condition.test))
                for role, kind in pair:
                    if (role, kind) not in heard:
                        heard[role, kind] = method.embedded(listener, machine, role, kind, snr, seed)
                for name, reading in read.items():
                    found = _read(
                        reading, heard["bank", condition.bank], domains, heard["test", condition.test], machine
                    )
                    scores[name].setdefault(cell, []).append(found)
    return scores


def _read(
    reading: Reading, bank: Embedded, domains: Sequence[Domain], test: Embedded, machine: JudgedMachine
) -> NDArray[np.float64]:
    try:
        return reading(bank, domains, test)
    except DataError as error:
        raise DataError(f"The machine {machine.name}: {error}") from error
