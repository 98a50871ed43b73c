"""The page on experiments and the code cannot part."""

import json
import re
from dataclasses import asdict
from pathlib import Path

from training.config import load_config
from training.evaluation.config import ExperimentConfig, load_experiment

ROOT = Path(__file__).resolve().parents[3]


def test_every_key_is_listed_with_its_default() -> None:
    page = (ROOT / "docs" / "experiments" / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([a-z_]+)` \| `(.*?)` \|", page, re.MULTILINE))
    assert listed == {key: json.dumps(value) for key, value in asdict(ExperimentConfig()).items()}


def test_the_small_experiment_compares_the_arms_of_the_paper() -> None:
    config = load_experiment(ROOT / "training" / "configs" / "experiment-small.toml", ["machines=m", "noise=n"])
    kinds = {}
    for method in config.methods:
        if method.config:
            settings = load_config(Path(method.config), method.set)
            kinds[method.name] = settings.objective.kind if settings.optim.steps else "frozen"
        else:
            assert (Path(method.bundle) / "manifest.json").is_file()
    assert {name: kind for name, kind in kinds.items() if name == kind} == kinds
    assert set(kinds) == {"frozen", "denoise", "tagging", "alignment", "retain"}
    assert config.reference == "frozen"
