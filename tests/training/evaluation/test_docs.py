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


def test_the_experiment_compares_the_arms_of_the_paper_with_three_training_seeds() -> None:
    config = load_experiment(ROOT / "training" / "configs" / "experiment-retain.toml", ["machines=m", "noise=n"])
    kinds: dict[str, set[tuple[str, int]]] = {}
    for method in config.methods:
        settings = load_config(Path(method.config), method.set)
        kind = settings.objective.kind if settings.optim.steps else "frozen"
        kinds.setdefault(method.group or method.name, set()).add((kind, settings.seed))
    assert kinds.pop("frozen") == {("frozen", 0)}
    assert {"denoise", "tagging", "alignment", "retain"} < set(kinds)
    for group, members in kinds.items():
        assert members == {(group.partition(",")[0], seed) for seed in range(3)}
    assert set(config.choose) == {"frozen", *kinds}
    assert config.reference == "frozen"
