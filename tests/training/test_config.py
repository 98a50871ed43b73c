"""Configs: differences from defaults, overrides, and errors that name the nearest key."""

from pathlib import Path

import pytest

from service.encoder.bundle import load_manifest
from service.settings import shipped_bundle
from training.config import Config, ConfigError, from_table, load_config, to_table
from training.encoders import find_encoder

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
RECIPE = CONFIGS / "offkey-small.toml"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("seed = 3\n[optim]\nsteps = 10\nlearning_rate = 1\n[readout]\nlayers = ['a', 'b']\n")
    return path


def test_a_file_differs_from_defaults_and_overrides_from_the_file(toml: Path) -> None:
    config = load_config(toml, ["optim.steps=20", "objective.kind=denoise", "data.manifest=/some/where.csv"])
    assert (config.seed, config.optim.steps, config.optim.learning_rate) == (3, 20, 1.0)
    assert config.readout.layers == ("a", "b")
    assert config.objective.kind == "denoise"
    assert config.data.manifest == "/some/where.csv"
    assert config.optim.batch == Config().optim.batch


def test_a_config_survives_its_run_folder(toml: Path) -> None:
    config = load_config(toml)
    assert from_table(to_table(config)) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.step=1", "Unknown key 'optim.step'.*nearest is 'optim.steps'"),
        ("seeds=1", "Unknown key 'seeds'.*nearest is 'seed'"),
        ("optim.steps=many", "'optim.steps' must be of type int, not 'many'"),
        ("optim.steps=1.5", "'optim.steps' must be of type int"),
        ("optim.steps=true", "'optim.steps' must be of type int"),
        ("objective.kind=remember", "one of 'retain', 'denoise', 'tagging', 'alignment'"),
        ("readout.layers=block_08", "'readout.layers' must be a list of strings"),
        ("optim=3", "'optim' must be a table"),
        ("seed.deep=3", "'seed' in 'seed.deep=3' is a value"),
        ("optim.steps", "is no override"),
    ],
)
def test_mistakes_are_named(toml: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(toml, [override])


def test_an_absent_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config at"):
        load_config(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("seed = ")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(tmp_path / "broken.toml")


def test_the_shipped_config_loads() -> None:
    config = load_config(RECIPE)
    assert config.data.permissive
    assert config.mixing.snr_db == (0.0,)
    assert config.objective.kind == "retain"


def test_the_shipped_bundle_is_what_its_config_describes() -> None:
    manifest = load_manifest(shipped_bundle())
    config = load_config(CONFIGS / f"{manifest.name}-{manifest.version}.toml")
    assert config.data.permissive
    assert (config.data.roles, config.data.noise_roles, config.optim.steps) == (("source",), (), 0)
    assert (manifest.readout.layers, manifest.readout.pooling) == (config.readout.layers, config.readout.pooling)
    assert f"{config.readout.covariance} covariance" in manifest.readout.projection
    assert f"epsilon {config.readout.epsilon:g}" in manifest.readout.projection
    assert manifest.window.model_dump().items() >= vars(config.window).items()
    front_end = find_encoder(config.encoder.name).tiny(seed=0).front_end
    assert (manifest.input.sample_rate, manifest.input.limit_hz) == (front_end.sample_rate, front_end.limit_hz)
    assert manifest.output("logmel").centers_hz == front_end.centers_hz
    assert {part.name for part in manifest.provenance.data} == {"esc50"}
