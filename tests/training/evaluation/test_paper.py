"""The paper's protocol from its two files, shrunk to seconds: a tiny random BEATs, made-up machines and noise."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from training.cli import app
from training.config import load_config
from training.encoders.beats import _BIAS, _HANDLED, BEATs, BEATsConfig
from training.evaluation.config import load_experiment
from training.run import Run

CONFIGS = Path(__file__).resolve().parents[3] / "training" / "configs"
PAPER, EXPERIMENT = CONFIGS / "paper.toml", CONFIGS / "experiment-paper.toml"
RATE = 16_000
# What is shrunk, and to what; nothing else differs from the file.
SMALL = {
    "window.seconds": 1.0, "window.hop_seconds": 0.5, "data.window_seconds": 0.5,
    "optim.steps": 2, "optim.batch": 4, "optim.accumulate": 2, "optim.warmup_steps": 1,
    "loop.workers": 0, "loop.checkpoint_steps": 1,
}  # fmt: skip
pytestmark = pytest.mark.xdist_group("experiment")


def beats(path: Path) -> None:
    """Write a random BEATs of six narrow layers in the published form."""
    config = BEATsConfig(patch_dim=24, dim=32, hidden=64, heads=2, depth=6, conv_pos=16, conv_pos_groups=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = BEATs(config)
    model = encoder.state_dict()
    model |= {_BIAS.format(layer): model[_BIAS.format(0)] for layer in range(1, config.depth)}
    sizes = {
        "embed_dim": config.patch_dim,
        "encoder_embed_dim": config.dim,
        "encoder_ffn_embed_dim": config.hidden,
        "encoder_attention_heads": config.heads,
        "encoder_layers": config.depth,
        "finetuned_model": False,
    }
    same = ("conv_pos", "conv_pos_groups", "num_buckets", "max_distance")
    torch.save({"cfg": {**_HANDLED, **sizes, **{name: getattr(config, name) for name in same}}, "model": model}, path)


@pytest.fixture
def folder(tree: Path, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with all that experiment-paper.toml lists below paper/."""
    paper = tmp_path / "paper"
    for place, name in enumerate(("machines/fan", "machines/pump", "noise/hall", "noise/press")):
        (paper / "train" / name).mkdir(parents=True)
        for number in range(2):
            samples = 0.1 * np.random.default_rng([place, number]).standard_normal(RATE)
            soundfile.write(paper / "train" / name / f"{number}.wav", samples, RATE)
    (paper / "test").mkdir()
    (paper / "test" / "machines").symlink_to(tree)
    (paper / "test" / "noise").symlink_to(noise)
    beats(paper / "BEATs_iter3.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_file_says_what_the_paper_says() -> None:
    config = load_config(PAPER)
    assert (config.encoder.name, config.readout.layers, config.readout.pooling) == ("beats", ("layer_06",), "mean")
    assert config.readout.covariance == "none"
    assert (config.optim.steps, config.optim.batch, config.optim.learning_rate) == (20_000, 64, 1e-4)
    assert config.optim.batch % config.optim.accumulate == 0
    assert config.data.window_seconds == config.window.seconds == 10
    assert (config.mixing.snr_db, config.objective.clean_share, config.objective.share) == ((0.0,), 0.5, "fixed")
    assert (config.objective.space, config.data.held_out_share) == ("pooled", 0)
    assert config.spec_augment.time_masks > 0
    assert config.spec_augment.freq_masks > 0
    assert not config.data.permissive


def test_the_experiment_has_the_arms_of_the_paper() -> None:
    config = load_experiment(EXPERIMENT)
    arms = {}
    for method in config.methods:
        assert Path(method.config) == PAPER
        settings = load_config(Path(method.config), method.set)
        arms[method.name] = settings.objective.kind if settings.optim.steps else "frozen"
    assert arms == {name: name for name in ("frozen", "retain", "denoise", "alignment", "tagging")}
    assert (config.reference, config.backend, 0.0 in config.snr_db) == ("frozen", "nearest", True)


def test_it_trains(folder: Path) -> None:
    words = [f"{key}={value}" for key, value in SMALL.items()]
    made = Run(Path(run("train", str(PAPER), *words, "--runs", str(folder / "runs")).strip()))
    tensors, state = made.latest()
    assert state["finished"]
    assert state["step"] == 2
    assert len(tensors["head.bias"]) == 4  # two machines, two noises
    assert tensors["student.readout.whitening.mean"].shape == (8 * 32,)
    assert torch.equal(tensors["student.readout.whitening.matrix"], torch.eye(8 * 32))  # not whitened


@pytest.mark.usefixtures("without_plots")
def test_one_command_compares_the_arms(folder: Path) -> None:
    """Both files are copied with fewer steps and shorter windows and, as tracing is slow, one layer and two arms."""
    text = PAPER.read_text(encoding="utf-8")
    for key, value in (SMALL | {"readout.layers": '["layer_01"]'}).items():
        section, name = key.split(".")
        pattern = rf"(\[{section}\]\n(?:(?!\[).*\n)*?{name} = )[^\s#]+"
        text, count = re.subn(pattern, rf"\g<1>{value}", text)
        assert count == 1, key
    (folder / PAPER.name).write_text(text, encoding="utf-8")
    head, *methods = EXPERIMENT.read_text(encoding="utf-8").split("[[methods]]")
    (folder / EXPERIMENT.name).write_text("[[methods]]".join([head, *methods[:2]]), encoding="utf-8")
    printed = run("experiment", EXPERIMENT.name, "snr_db=[0]", "seeds=1", "bootstrap=100")
    found = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
    assert [(method["name"], method.get("steps")) for method in found["methods"][1:-1]] == [
        ("frozen", 0),
        ("retain", 2),
    ]
    assert found["methods"][1]["dim"] == 8 * 32
    # The place of the paper's figures according to the head of the file.
    heading = "## Official score, distance to the nearest train clip of a domain, standardized, the smaller"
    section = printed.split(heading)[1].split("\n## ")[0].split("By direction of the mismatch, bank to tests:")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.strip().splitlines()]
    column = rows[0].index("nonstationary to stationary 0 dB")
    value = {
        row["method"]: row["value"]
        for row in found["scores"]
        if (row["scorer"], row["machine"], row["condition"], row["snr_db"], row["metric"])
        == ("domain-nearest", "all", "nonstationary to stationary", 0, "official")
    }
    assert {row[0]: row[column].split(" ")[0] for row in rows[2:]} == {name: f"{v:.3f}" for name, v in value.items()}
    assert set(value) == {"log-mel", "frozen", "retain", "oracle"}
