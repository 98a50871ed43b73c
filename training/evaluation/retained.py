"""Measures the distance of students to the retain target of arXiv 2510.25182, on machines and noise not trained on.

The target of a mixture is the mean of the frozen teacher's embeddings of the clip and of the noise. Nothing is masked.
Distances are measured in two spaces: `pooled`, before the projection, as the paper's MSE; and `whitened`, after the
teacher's projection and of unit norm, as a frozen encoder is served.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from service.audio.decode import Samples
from training.config import ConfigError
from training.evaluation.comparison import ALL, Cell, Comparison, Key
from training.evaluation.noise import KINDS, Noise
from training.evaluation.protocol import Sound, mix
from training.evaluation.tables import ends, table, with_ends, write_json
from training.evaluation.tree import JudgedMachine, read_tree
from training.factory import build_student, load_trained
from training.run import Run, RunError
from training.student import Student
from training.teacher import PROJECTION

FROZEN, STUDENT = "frozen", "student"
SPACES = ("pooled", "whitened")
DISTANCE, COSINE = "squared distance", "cosine"
MIXED = "mixed"  # mean over both kinds of noise

Values = NDArray[np.float64]  # (clips,)
Found = dict[tuple[str, str, str, Cell, str], list[list[Values]]]  # by method, space, machine, cell and metric


@dataclass(frozen=True)
class RetentionConfig:
    """Data and ratios of a measurement."""

    machines: Path  # tree in the DCASE layout; its test clips are mixed
    noise: Path  # folder of stationary/ and nonstationary/; the recordings for tests are mixed in
    snr_db: tuple[float, ...]  # signal-to-noise ratios
    seeds: int  # number of draws of the noise
    bootstrap: int = 1000  # replicates of an interval


def measure(runs: Sequence[Run], config: RetentionConfig, progress: Callable[[int, int], None]) -> Comparison:
    """Measure finished runs of one config with several training seeds.

    Args:
        runs: one or more runs; together they are the group `STUDENT`.
        config: data and ratios.
        progress: callback with the number of measured machines and the total.

    Returns:
        Figures for each of `SPACES` of the methods `FROZEN`, each run's folder name, and `STUDENT`.

    Raises:
        RunError: a run is not finished.
        ConfigError: the runs started from different encoders or projections.
        DataError: machines or noise cannot be used.
    """
    frozen, students = _load(runs)
    machines = read_tree(config.machines)
    noise = Noise.read(config.noise, frozen.sample_rate)
    comparison = Comparison(machines, config.snr_db, config.seeds, config.bootstrap)
    found: Found = {}
    for number, machine in enumerate(machines, start=1):
        _measure(found, machine, noise, config, frozen, {FROZEN: frozen, **students})
        progress(number, len(machines))
    for method in (FROZEN, *students):
        for space in SPACES:
            own = {key[2:]: seeds for key, seeds in found.items() if key[:2] == (method, space)}
            comparison.add_means(method, space, own)
    comparison.add_group(STUDENT, tuple(students))
    return comparison


def _load(runs: Sequence[Run]) -> tuple[Student, dict[str, Student]]:
    """Load the frozen teacher, and the student of each run by the name of its folder."""
    frozen: Student | None = None
    students = {}
    for run in runs:
        start = frozen_of(run)
        if frozen is not None and frozen.fingerprint() != start.fingerprint():
            raise ConfigError(
                f"{run.folder} and {runs[0].folder} started from different encoders. Measure them separately."
            )
        frozen = start
        students[run.folder.name] = load_trained(run)[0]
    if frozen is None:
        raise ConfigError("A run folder is missing.")
    return frozen, students


def frozen_of(run: Run) -> Student:
    """Load the encoder at the start of a finished run, with its teacher's projection. Raises as `measure`."""
    tensors = run.latest()[0]
    projection = {name.removeprefix(PROJECTION): x for name, x in tensors.items() if name.startswith(PROJECTION)}
    if not projection:
        raise RunError(f"{run.folder} has no projection of its teacher. Finish the run, or train it again.")
    frozen = build_student(run.config)
    frozen.readout.whitening.load_state_dict(projection)
    return frozen.requires_grad_(False)


def _measure(
    found: Found,
    machine: JudgedMachine,
    noise: Noise,
    config: RetentionConfig,
    frozen: Student,
    methods: dict[str, Student],
) -> None:
    """Measure all methods on the test clips of a machine."""
    clips = list(Sound("clean", "test").waveforms(machine, noise, frozen.sample_rate))
    clean = _pooled(frozen, clips)
    for seed in range(config.seeds):
        for kind in KINDS:
            segments = list(Sound("noise", "test", kind, None, seed).waveforms(machine, noise, frozen.sample_rate))
            target = Targets(frozen, clean, _pooled(frozen, segments))
            for snr in config.snr_db:
                mixtures = [mix(clip, segment, snr) for clip, segment in zip(clips, segments, strict=True)]
                for method, student in methods.items():
                    for space, metric, values in target.compare(_pooled(student, mixtures)):
                        key = (method, space, machine.name, Cell(MIXED, snr), metric)
                        seeds = found.setdefault(key, [[] for _ in range(config.seeds)])
                        seeds[seed].append(values)


def _pooled(student: Student, waveforms: Sequence[Samples]) -> Tensor:
    """Compute pooled embeddings of whole clips, `(clips, dim)`; their lengths may differ."""
    with torch.inference_mode():
        return torch.cat([student.read(torch.from_numpy(samples)[None]).pooled for samples in waveforms])


class Targets:
    """Targets of mixtures in each of `SPACES`."""

    def __init__(self, frozen: Student, clean: Tensor, noise: Tensor) -> None:
        """Compute targets from the teacher's pooled embeddings `(clips, dim)` of clips and noises."""
        self._whiten = frozen.readout.whitening
        self._spaces = {space: 0.5 * (self._into(space, clean) + self._into(space, noise)) for space in SPACES}

    def compare(self, pooled: Tensor) -> Iterator[tuple[str, str, Values]]:
        """Compare pooled embeddings of the mixtures, `(clips, dim)`; yield space, metric and the value of each clip."""
        for space, target in self._spaces.items():
            found = self._into(space, pooled)
            squares = (found - target).square()
            distance = squares.mean(dim=1) if space == "pooled" else squares.sum(dim=1)
            # Pooled embeddings are centered at the mean of general audio; otherwise all cosines are near 1.
            center = self._whiten.mean if space == "pooled" else torch.zeros(())
            yield space, DISTANCE, distance.double().numpy()
            yield space, COSINE, functional.cosine_similarity(found - center, target - center).double().numpy()

    def _into(self, space: str, pooled: Tensor) -> Tensor:
        return pooled if space == "pooled" else functional.normalize(self._whiten(pooled), dim=1)


def markdown(comparison: Comparison, snr_db: Sequence[float]) -> str:
    """Format a table for each space, with 95 % intervals over recordings, draws of noise and training seeds."""
    parts = []
    for space in SPACES:
        scopes = [*(machine.name for machine in comparison.machines), ALL]
        rows = [_row(comparison, space, scope, snr) for scope in scopes for snr in snr_db if scope == ALL or not snr]
        unit = "mean square" if space == "pooled" else "squared distance of unit vectors"
        heads = ["machine", "dB", "frozen", "student", "nearer by", "frozen, cosine", "student, cosine"]
        parts += [f"## {space}: {unit}", table(heads, rows)]
    return "\n\n".join(parts) + "\n"


def _row(comparison: Comparison, space: str, scope: str, snr: float) -> list[str]:
    key = Key(STUDENT, space, scope, Cell(MIXED, snr), DISTANCE)
    saved = comparison.saving(key, FROZEN)
    frozen = key._replace(method=FROZEN)
    cosines = [comparison.interval(one._replace(metric=COSINE)) for one in (frozen, key)]
    return [
        scope,
        f"{snr:g}",
        with_ends(comparison.interval(frozen)),
        with_ends(comparison.interval(key)),
        f"{100 * saved.value:.1f} % [{100 * saved.low:.1f}, {100 * saved.high:.1f}]",
        *(f"{one.value:.3f}" if one else "" for one in cosines),
    ]


def write(comparison: Comparison, path: Path, command: str) -> None:
    """Write all figures as JSON."""
    rows: list[dict[str, Any]] = []
    for key in comparison.keys:
        named = {**key._asdict(), "cell": key.cell.condition, "snr_db": key.cell.snr_db}
        rows.append(named | ends(comparison.interval(key)))
    write_json(path, {"command": command, "figures": rows})
