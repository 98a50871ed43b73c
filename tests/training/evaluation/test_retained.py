"""`offkey retention`: the distance to the retain target on machines and noise that are not trained on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress
from typer.testing import CliRunner

from training.cli import app
from training.config import Config
from training.evaluation.noise import Noise
from training.evaluation.protocol import Sound, mix
from training.evaluation.tree import read_tree
from training.factory import build_student, load_trained
from training.loop import train
from training.run import Run


@pytest.fixture(scope="module")
def runs(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two students of one recipe that align pooled embeddings, so that their projections are their own."""
    folder = tmp_path_factory.mktemp("retained")
    found = []
    for seed in (0, 1):
        config = make_config(
            folder / "cache",
            optim={"steps": 6, "batch": 4, "learning_rate": 0.003, "warmup_steps": 1},
            objective={"space": "pooled"},
        )
        with Progress(disable=True) as progress:
            found.append(train(Config(**{**vars(config), "seed": seed}), f"s{seed}", folder / "runs", progress))
    return found


def measured(runs: list[Run], tree: Path, noise: Path, folder: Path, *words: str) -> tuple[dict[str, object], str]:
    command = ["retention", *(str(run.folder) for run in runs), "--machines", str(tree), "--noise", str(noise)]
    result = CliRunner().invoke(app, [*command, "--json", str(folder / "out.json"), *words])
    assert result.exit_code == 0, result.output
    return json.loads((folder / "out.json").read_text()), result.stdout


def test_figures_are_those_of_the_plain_formula(runs: list[Run], tree: Path, noise: Path, tmp_path: Path) -> None:
    found, _ = measured(runs, tree, noise, tmp_path, "--snr", "0,-5", "--seeds", "1")
    figures = {
        (row["method"], row["scorer"], row["machine"], row["snr_db"], row["metric"]): row["value"]
        for row in found["figures"]
    }
    frozen = build_student(runs[0].config)
    tensors = runs[0].latest()[0]
    frozen.readout.whitening.matrix.copy_(tensors["teacher.student.readout.whitening.matrix"])
    frozen.readout.whitening.mean.copy_(tensors["teacher.student.readout.whitening.mean"])
    student = load_trained(runs[0])[0]
    assert not torch.equal(student.readout.whitening.matrix, frozen.readout.whitening.matrix)
    (machine,) = (one for one in read_tree(tree) if one.name == "pump-synthetic")
    recordings = Noise.read(noise, 16_000)

    def pooled(network: torch.nn.Module, samples: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return network.read(torch.from_numpy(samples)[None]).pooled[0]

    for method, network in (("frozen", frozen), (runs[0].folder.name, student)):
        raw, unit = [], []
        for kind in ("stationary", "nonstationary"):
            clips = Sound("clean", "test").waveforms(machine, recordings, 16_000)
            stretches = Sound("noise", "test", kind, None, 0).waveforms(machine, recordings, 16_000)
            for clip, stretch in zip(clips, stretches, strict=True):
                mixture = pooled(network, mix(clip, stretch, -5.0))
                clean, other = pooled(frozen, clip), pooled(frozen, stretch)
                raw.append(float((mixture - 0.5 * clean - 0.5 * other).square().mean()))
                z = [
                    (x - frozen.readout.whitening.mean) @ frozen.readout.whitening.matrix
                    for x in (mixture, clean, other)
                ]
                m, c, n = (x / x.norm() for x in z)
                unit.append(float((m - 0.5 * c - 0.5 * n).square().sum()))
        for space, values in (("pooled", raw), ("whitened", unit)):
            expected = float(np.mean(values))
            assert figures[method, space, machine.name, -5.0, "squared distance"] == pytest.approx(expected, rel=1e-3)
    members = [figures[run.folder.name, "pooled", "all", 0.0, "squared distance"] for run in runs]
    assert figures["student", "pooled", "all", 0.0, "squared distance"] == pytest.approx(np.mean(members), rel=1e-3)
    assert members[0] != members[1]


def test_the_table_says_how_much_nearer_the_students_are(
    runs: list[Run], tree: Path, noise: Path, tmp_path: Path
) -> None:
    _, printed = measured(runs, tree, noise, tmp_path, "--snr", "0", "--seeds", "1")
    assert "## pooled: mean square" in printed
    assert "## whitened: squared distance of unit vectors" in printed
    assert printed.count("| all | 0 |") == 2
    assert printed.count("| fan-synthetic | 0 |") == 2


def test_runs_that_cannot_be_measured_together_are_refused(
    runs: list[Run], make_config: Callable[..., Config], tree: Path, noise: Path, tmp_path: Path
) -> None:
    other = make_config(tmp_path / "cache", optim={"steps": 1, "batch": 2}, readout={"layers": ["block_02"]})
    with Progress(disable=True) as progress:
        run = train(other, "other", tmp_path / "runs", progress)
    words = ["--machines", str(tree), "--noise", str(noise), "--json", str(tmp_path / "out.json")]
    result = CliRunner().invoke(app, ["retention", str(runs[0].folder), str(run.folder), *words])
    assert result.exit_code == 1
    assert "started from different encoders" in result.output
    wrong = CliRunner().invoke(app, ["retention", str(runs[0].folder), *words, "--snr", "loud"])
    assert wrong.exit_code == 1
    assert "is not a list of ratios" in wrong.output
