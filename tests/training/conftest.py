"""Synthetic clips and a tiny random encoder: real code without published weights or recordings."""

import csv
import functools
import json
import os
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from training.config import Config, from_table, to_table
from training.encoders import EfficientAT16k

LABELS = ("hum", "buzz", "hiss", "rumble")


@pytest.fixture(scope="session")
def trace_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of traces, which all workers and the process of `warm_offkey` share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "traces"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _each_architecture_is_traced_once(trace_folder: Path) -> Iterator[None]:
    traces = runpy.run_path(str(Path(__file__).with_name("traces.py")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", traces["reuse"](trace_folder))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the published format with random weights of the narrowest EfficientAT."""
    path = tmp_path_factory.mktemp("encoder") / "tiny.pt"
    torch.save(EfficientAT16k.tiny(seed=1).state_dict(), path)
    (path.parent / "LICENSE.tiny").write_text("Random weights belong to nobody.\n")
    return path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of twelve synthetic clips of 1 s: two classes of sources, two of noises, two not permissive."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    rows = []
    for number in range(12):
        label = LABELS[number % 4]
        tone = np.sin(2 * np.pi * (100 + 40 * number) * time)
        samples = 0.1 * tone + (0.02 if label in LABELS[:2] else 0.2) * rng.standard_normal(len(time))
        soundfile.write(folder / f"{number}.wav", samples, 16_000, subtype="FLOAT")
        permissive = int(number < 10)
        rows.append([f"{number}.wav", "synthetic", "source", label, "CC0", permissive, f"made up, clip {number}"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "set", "role", "label", "licence", "permissive", "source"])
        writer.writerows(rows)
    return folder / "manifest.csv"


@pytest.fixture(scope="session")
def make_config(tiny_checkpoint: Path, clips: Path) -> Callable[..., Config]:
    """`make_config(cache, section={key: value})`: a config that trains in a second."""

    def build(cache: Path, **changes: dict[str, object]) -> Config:
        table: dict[str, dict[str, object]] = {
            "encoder": {"name": "efficientat-16k", "checkpoint": str(tiny_checkpoint)},
            "readout": {"layers": ["block_03"], "pooling": "mean", "mixtures": 24},
            "window": {"seconds": 1.0, "hop_seconds": 0.5, "min_seconds": 0.2},
            "data": {
                "manifest": str(clips),
                "cache": str(cache),
                "noise_labels": ["hiss", "rumble"],
                "window_seconds": 0.5,
            },
            "optim": {"steps": 3, "batch": 2, "warmup_steps": 1},
        }
        for section, values in changes.items():
            table.setdefault(section, {}).update(values)
        return from_table(table)

    return build


@pytest.fixture
def tiny_config(make_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    """`tiny_config(section={key: value})`: the same, with a cache of its own."""
    return functools.partial(make_config, tmp_path / "cache")


@pytest.fixture
def write_toml(tmp_path: Path) -> Callable[[Config], Path]:
    """`write_toml(config)`: the file that another process reads it from."""

    def write(config: Config) -> Path:
        lines = []
        for section, value in to_table(config).items():
            pairs = value.items() if isinstance(value, dict) else [("", value)]
            lines += [f"{section}.{key} = {json.dumps(own)}".replace(". =", " =") for key, own in pairs]
        path = tmp_path / "config.toml"
        path.write_text("\n".join(lines))
        return path

    return write
