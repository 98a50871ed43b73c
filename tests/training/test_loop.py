"""A run from config to checkpoint."""

import csv
from collections.abc import Callable

import pytest
from rich.progress import Progress

from training.config import Config, ConfigError, OptimConfig
from training.loop import build_student, learning_rate_factor, train
from training.run import Run


def columns(run: Run) -> dict[str, list[float]]:
    with (run.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


def test_the_learning_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    optim = OptimConfig(steps=100, warmup_steps=10)
    assert [round(learning_rate_factor(step, optim), 3) for step in (0, 4, 9, 10, 55, 100)] == [0.1, 0.5, 1, 1, 0.5, 0]


def test_a_seed_gives_the_same_losses_and_they_fall(
    make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory
) -> None:
    optim = {"steps": 30, "batch": 4, "learning_rate": 0.003, "warmup_steps": 2}
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
    assert state["teacher_hits"] + state["teacher_misses"] == 30 * 4 * 2


def test_a_run_tells_what_it_heard(
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
        ("encoder", {"name": "efficientbat"}, "No encoder is called 'efficientbat'. There are: ast, beats"),
        ("readout", {"layers": ["block_99"]}, "has no layer block_99; it has block_00"),
        ("readout", {"pooling": "median"}, "No pooling is called 'median'. There are: mean"),
        ("window", {"min_seconds": 0.001}, "`window.min_seconds` is 0.001 s, but efficientat-16k needs 0.02 s"),
    ],
)
def test_names_that_are_not_known_are_refused_with_those_that_are(
    tiny_config: Callable[..., Config], section: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_student(tiny_config(**{section: values}))


def test_noise_must_be_named(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> None:
    with Progress(disable=True) as progress, pytest.raises(ConfigError, match=r"`data\.noise_labels` is empty"):
        train(tiny_config(data={"noise_labels": []}), "tiny", tmp_path_factory.mktemp("loop"), progress)
