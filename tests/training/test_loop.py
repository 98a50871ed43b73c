"""A run from config to checkpoint."""

import csv
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from training.config import Config, ConfigError, OptimConfig
from training.factory import build_student
from training.loop import train
from training.mixing import mix
from training.optimizer import learning_rate_factor, parameter_groups
from training.provenance import trace
from training.run import Run

REPOSITORY = Path(__file__).resolve().parents[2]


def columns(run: Run) -> dict[str, list[float]]:
    with run.losses.path.open() as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


def trained(config: Config, folder: Path) -> Run:
    with Progress(disable=True) as progress:
        return train(config, "tiny", folder, progress)


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    optim = OptimConfig(steps=100, warmup_steps=10)
    assert [round(learning_rate_factor(step, optim), 3) for step in (0, 4, 9, 10, 55, 100)] == [0.1, 0.5, 1, 1, 0.5, 0]


def test_only_weights_of_layers_decay() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 3, bias=False))
    head = torch.nn.Linear(2, 4)
    rates, groups = parameter_groups(
        (list(layers.parameters()), list(head.parameters())), (0.1, 0.2), OptimConfig(weight_decay=0.5)
    )
    assert rates == (0.1, 0.1, 0.2, 0.2)
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert len(decays) == 7
    for module in (*layers, head):
        for name, parameter in module.named_parameters():
            layer = name == "weight" and not isinstance(module, torch.nn.BatchNorm2d)
            assert decays[id(parameter)] == (0.5 if layer else 0.0)


def test_a_seed_gives_the_same_losses_and_they_fall(
    make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> None:
    optim = {"steps": 20, "batch": 4, "learning_rate": 0.003, "warmup_steps": 2}
    unmasked = {"time_masks": 0, "freq_masks": 0}  # half a second is too short for the default masks
    runs = []
    with Progress(disable=True) as progress:
        for _ in range(2):
            folder = tmp_path_factory.mktemp("loop")
            runs.append(
                train(make_config(folder / "cache", optim=optim, spec_augment=unmasked), "tiny", folder, progress)
            )
    first, second = map(columns, runs)
    assert first == second
    for loss in ("alignment", "tagging"):
        assert sum(first[loss][-5:]) < 0.95 * sum(first[loss][:5]), loss
    windows = len({*runs[0].about["clips"]}) * 2  # of 0.5 s in clips of 1 s
    _, state = runs[0].latest()
    assert state["teacher_misses"] <= windows
    assert state["teacher_hits"] + state["teacher_misses"] == 20 * 4 * 2


def test_no_two_steps_have_the_same_mixtures(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that drew from the same seed at every step would repeat them."""
    mixed: dict[str, list[torch.Tensor]] = {"3": [], "4": []}
    for seed, mixtures in mixed.items():

        def record(*parts: torch.Tensor, mixtures: list[torch.Tensor] = mixtures) -> torch.Tensor:
            mixtures.append(mix(*parts))
            return mixtures[-1]

        monkeypatch.setattr("training.trainer.mix", record)
        trained(replace(tiny_config(mixing={"snr_db": [-5.0, 5.0], "draw": "uniform"}), seed=int(seed)), tmp_path)
    first, other = mixed.values()
    assert len(first) == 3
    assert not any(torch.equal(a, b) for a, b in combinations([*first, *other], 2))


def test_a_run_records_its_clips_and_classes(
    tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Progress(disable=True) as progress:
        run = train(tiny_config(), "tiny", tmp_path_factory.mktemp("loop"), progress)
    assert len(run.about["clips"]) == 10
    assert run.about["source_classes"] == ["buzz", "hum"]
    assert run.about["noise_classes"] == ["hiss", "rumble"]
    assert len(run.about["data_fingerprint"]) == 64


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("encoder", {"name": "efficientbat"}, "There is no encoder 'efficientbat'.*Encoders: ast, beats"),
        ("readout", {"layers": ["logmel"]}, "takes no layer of efficientat-16k, which has block_00"),
        ("readout", {"layers": ["block_99"]}, "has no layer block_99; it has logmel, block_00"),
        ("readout", {"pooling": "median"}, "No pooling is called 'median'. There are: mean"),
        (
            "window",
            {"min_seconds": 0.001},
            "`window.min_seconds` is 0.001 s, but efficientat-16k needs at least 0.02 s",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_valid_ones(
    tiny_config: Callable[..., Config], section: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_student(tiny_config(**{section: values}))


def test_noise_must_be_named(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> None:
    with Progress(disable=True) as progress, pytest.raises(ConfigError, match=r"`data\.noise_roles` are empty"):
        train(tiny_config(data={"noise_labels": []}), "tiny", tmp_path_factory.mktemp("loop"), progress)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("optim", {"accumulate": 3}, "`optim.batch` is 2, which does not divide among 1 processes"),
        ("optim", {"ema_decay": 1.0}, "`optim.ema_decay`"),
        ("optim", {"batch": 0}, "`optim.batch` must be at least 1, not 0"),
        ("loop", {"keep_checkpoints": 0}, "`loop.keep_checkpoints` must be at least 1, not 0"),
        ("data", {"window_seconds": 0.001}, "`data.window_seconds` is 0.001 s"),
        ("mixing", {"snr_db": float("nan")}, "finite numbers of dB, not nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    tiny_config: Callable[..., Config], tmp_path: Path, section: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        trained(tiny_config(**{section: values}), tmp_path)


def test_a_batch_in_parts_is_the_batch(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    optim = {"steps": 4, "batch": 4, "warmup_steps": 1, "learning_rate": 0.001}
    whole, parts = (
        columns(trained(tiny_config(optim={**optim, "accumulate": accumulate}), tmp_path / str(accumulate)))
        for accumulate in (1, 2)
    )
    assert parts["total"] == pytest.approx(whole["total"], abs=1e-5)
    assert len(set(whole["total"])) == 4


@pytest.mark.parametrize("level", ["clip", "frame", "token"])
@pytest.mark.parametrize("kind", ["retain", "denoise", "tagging", "alignment"])
def test_every_objective_lowers_what_it_asks_for(
    tiny_config: Callable[..., Config], tmp_path: Path, kind: str, level: str
) -> None:
    config = tiny_config(
        objective={"kind": kind, "level": level, "share": "energy"},
        readout={"layers": ["block_01", "block_02"]},
        optim={"steps": 8, "batch": 4, "learning_rate": 0.005, "warmup_steps": 1},
        spec_augment={"time_masks": 0, "freq_masks": 0},
    )
    total = columns(trained(config, tmp_path))["total"]
    assert sum(total[-3:]) < sum(total[:3])


def test_bfloat16_follows_float32_coarsely(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    full, half = (
        columns(trained(tiny_config(loop={"precision": precision}), tmp_path / precision))["total"]
        for precision in ("float32", "bfloat16")
    )
    assert half == pytest.approx(full, rel=0.1)
    assert half != full


def test_the_student_takes_the_average_of_its_weights(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    name = "student.encoder.features.0.0.weight"
    optim = {"steps": 3, "learning_rate": 0.01}
    plain, slow, still = (
        trained(tiny_config(optim={**optim, **own}), tmp_path / str(number)).latest()[0][name]
        for number, own in enumerate(({}, {"ema_decay": 0.9}, {"steps": 0}))
    )
    assert 0 < (slow - still).norm() < 0.5 * (plain - still).norm()


def test_two_processes_give_the_losses_of_one(
    tiny_config: Callable[..., Config], write_toml: Callable[[Config], Path], tmp_path: Path
) -> None:
    config = tiny_config(optim={"steps": 4, "batch": 4, "learning_rate": 0.001, "accumulate": 2})
    one = columns(trained(config, tmp_path / "one"))
    config = tiny_config(
        optim={"steps": 4, "batch": 4, "learning_rate": 0.001, "accumulate": 1},
        data={"cache": str(tmp_path / "cache-of-two")},
        loop={"checkpoint_steps": 2},
    )
    command = [sys.executable, "-m", "training", "train", str(write_toml(config)), "--runs", str(tmp_path / "two")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # as torchrun sets them
    started = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for rank in ("0", "1")
    ]
    (printed, errors), (other, other_errors) = (process.communicate(timeout=100) for process in started)
    assert [process.returncode for process in started] == [0, 0], errors + other_errors
    assert other == "", "only the first process prints"
    (folder,) = printed.split()
    two = columns(Run(Path(folder)))
    for loss in ("total", "alignment", "tagging"):
        assert two[loss] == pytest.approx(one[loss], abs=1e-5), loss
    assert two["learning_rate"] == one["learning_rate"]
    assert len(set(one["total"])) == 4


def test_clips_of_collections_are_trained_on_and_attributed(
    tiny_config: Callable[..., Config], clips: Path, tmp_path: Path
) -> None:
    for role, number in (("machine", 0), ("noise", 2)):
        folder = tmp_path / role
        folder.mkdir()
        (folder / "clip.wav").write_bytes((clips.parent / f"{number}.wav").read_bytes())
    shared = {"layout": "folder", "license": "CC0", "permissive": True, "attribution": "made up"}
    config = tiny_config(
        data={
            "manifest": "",
            "noise_labels": [],
            "roles": ["machine"],
            "noise_roles": ["noise"],
            "collections": [{**shared, "path": str(tmp_path / role), "role": role} for role in ("machine", "noise")],
        },
        mixing={"snr_db": [-5, 5], "draw": "uniform"},
    )
    with Progress(disable=True) as progress:
        run = train(config, "tiny", tmp_path / "runs", progress)
    assert run.about["clips"] == ["machine/clip.wav", "noise/clip.wav"]
    assert run.config == config
    assert {source.name for source in trace(run, steps=0).data} == {"machine", "noise"}


def test_a_projection_is_fitted_once_for_the_same_student_clips_and_settings(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def matrix(config: Config) -> torch.Tensor:
        with Progress(disable=True) as progress:
            run = train(config, "x", tmp_path / "runs", progress)
        return run.latest()[0]["student.readout.whitening.matrix"]

    frozen = tiny_config(optim={"steps": 0})
    first = matrix(frozen)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("training.whitening.fit_whitening", refuse)
    assert torch.equal(matrix(frozen), first)
    for changed in ({"epsilon": 0.5}, {"mixtures": 20}, {"layers": ["block_02"]}):
        with pytest.raises(AssertionError, match="fitted again"):
            matrix(tiny_config(optim={"steps": 0}, readout=changed))
    (kept,) = (tmp_path / "cache" / "whitening").glob("*.npy")
    kept.write_bytes(kept.read_bytes()[:100])
    with pytest.raises(AssertionError, match="fitted again"):
        matrix(frozen)
