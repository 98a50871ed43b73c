"""Two synthetic machines, synthetic noise, and a bundle of a tiny random encoder made by the real export."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.progress import Progress

from service.synthetic import MACHINES
from training.config import Config
from training.encoders import EfficientAT16k
from training.export import export_run
from training.loop import train

RATE = 16_000


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Machines in the DCASE layout, clips of 1.6 s, two to a recording; the pump has no target domain."""
    root = tmp_path_factory.mktemp("machines")
    plan = [("train", "source", "normal", 4), ("train", "target", "normal", 2)]
    plan += [("test", domain, label, 4) for domain in ("source", "target") for label in ("normal", "anomaly")]
    for machine in ("fan-synthetic", "pump-synthetic"):
        for split, domain, label, count in plan:
            if machine == "pump-synthetic" and domain == "target":
                continue
            (root / machine / split).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                severity = 0.8 if label == "anomaly" else 0.0
                samples = MACHINES[machine].clip(
                    split=split, domain=domain, number=number, severity=severity, seconds=1.6
                )
                name = f"section_00_{domain}_{split}_{label}_{number:04d}_rec_{number // 2}_seg_{number % 2}.wav"
                soundfile.write(root / machine / split / name, samples, RATE, subtype="PCM_16")
    return root


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic recordings of each kind, 3 s; the last is shorter than a clip."""
    root = tmp_path_factory.mktemp("noise")
    for place, kind in enumerate(("stationary", "nonstationary")):
        (root / kind).mkdir()
        for number in range(4):
            rng = np.random.default_rng([place, number])
            samples = 0.1 * np.convolve(
                rng.standard_normal((3 if number < 3 else 1) * RATE), np.ones(number + 1), "same"
            )
            if kind == "nonstationary":
                samples *= 1 + np.sin(2 * np.pi * (1 + number) * np.arange(len(samples)) / RATE)
            soundfile.write(root / kind / f"{number}.wav", samples, RATE, subtype="FLOAT")
    return root


def exported(config: Config, name: str, folder: Path) -> Path:
    with Progress(disable=True) as progress:
        run = train(config, name, folder / "runs", progress)
    return export_run(run, name, "1", folder / "models")


@pytest.fixture(scope="session")
def tiny_bundle(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random weights with windows of 1 s every 0.5 s."""
    folder = tmp_path_factory.mktemp("tiny")
    return exported(make_config(folder / "cache", optim={"steps": 0}), "tiny", folder)


@pytest.fixture(scope="session")
def second_bundle(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle like `tiny_bundle` with other weights."""
    folder = tmp_path_factory.mktemp("second")
    torch.save(EfficientAT16k.tiny(seed=2).state_dict(), folder / "second.pt")
    encoder = {"checkpoint": str(folder / "second.pt")}
    return exported(make_config(folder / "cache", encoder=encoder, optim={"steps": 0}), "second", folder)


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the plots of `offkey experiment`, which take seconds and have a test of their own."""
    monkeypatch.setattr("training.evaluation.plots.draw", lambda *_: [])
