"""Experiments as they are written down, and what is refused."""

from pathlib import Path

import pytest

from training.config import ConfigError
from training.evaluation.config import ExperimentConfig, MethodConfig, load_experiment

GIVEN = {"machines": "m", "noise": "n", "methods": [{"name": "a", "bundle": "b"}]}


def test_file_overrides_and_options_lie_on_each_other(tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(
        'machines = "m"\nseeds = 2\nsnr_db = [0, 5]\n'
        '[[methods]]\nname = "a"\nconfig = "a.toml"\nset = ["optim.steps=0"]\n'
    )
    options = {"noise": "n", "seeds": 4, "methods": [{"name": "b", "bundle": "folder"}]}
    assert load_experiment(path, ["bootstrap=200", "seeds=3", "work=elsewhere"], options) == ExperimentConfig(
        machines="m",
        noise="n",
        seeds=4,
        snr_db=(0.0, 5.0),
        bootstrap=200,
        work="elsewhere",
        methods=(
            MethodConfig("a", config=str(tmp_path / "a.toml"), set=("optim.steps=0",)),
            MethodConfig("b", bundle="folder"),
        ),
    )


def test_the_reference_is_frozen_or_the_first_or_the_configured_one() -> None:
    two = {"methods": [{"name": "a", "bundle": "x"}, {"name": "frozen", "bundle": "y"}]}
    assert load_experiment(None, (), GIVEN).reference == "a"
    assert load_experiment(None, (), GIVEN | two).reference == "frozen"
    assert load_experiment(None, ["oracle=a"], GIVEN | two).reference == "a"


def test_differences_are_taken_from_the_group_of_the_reference() -> None:
    three = [{"name": name, "bundle": name, "group": name[0]} for name in ("a1", "b1", "b2")]
    config = load_experiment(None, (), GIVEN | {"methods": [*three, {"name": "c", "bundle": "c"}], "oracle": "b2"})
    assert config.groups == {"a": ("a1",), "b": ("b1", "b2")}
    assert config.baseline == "b"
    assert load_experiment(None, ["oracle=c"], GIVEN | {"methods": [{"name": "c", "bundle": "c"}]}).baseline == "c"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machines": ""}, "folder of machines"),
        ({"noise": ""}, "folder of noise"),
        ({"snr_dbs": [0]}, "'snr_dbs'.* nearest is 'snr_db'"),
        ({"methods": [{"name": "a", "bundel": "b"}]}, r"'methods\.bundel'.* nearest is 'methods\.bundle'"),
        ({"snr_db": [0, 31]}, "-10 to 30 dB, not 31"),
        ({"snr_db": [float("nan")]}, "-10 to 30 dB, not nan"),
        ({"snr_db": []}, "not an empty list"),
        ({"snr_db": [0, 0.0]}, "twice"),
        ({"snr_db": ["0"]}, "of type float"),
        ({"seeds": 0}, "`seeds` must be at least 1"),
        ({"bootstrap": 5}, "`bootstrap` must be at least 100"),
        ({"methods": []}, "There is no method"),
        ({"methods": [{"name": "oracle", "bundle": "b"}]}, "not log-mel or oracle; got 'oracle'"),
        ({"methods": [{"name": "a"}]}, "either a `bundle` or a `config`"),
        ({"methods": [{"name": "a", "bundle": "b"}] * 2}, "Two methods have the name 'a'"),
        ({"oracle": "b"}, "the methods are a"),
        ({"methods": [{"name": "a", "bundle": "b", "group": "a"}]}, "group 'a' has the name of a method"),
        ({"methods": [{"name": "a", "bundle": "b", "group": "oracle"}]}, "group 'oracle' has the name of a method"),
        ({"choose": ["a", "b"]}, "`choose` lists 'b', but methods and groups are a"),
        ({"choose": ["a", "a"]}, "at least two methods or groups"),
        ({"choose": ["a"]}, "at least two methods or groups"),
        ({"backend": "nearst"}, "`backend`: There is no backend 'nearst'. Did you mean nearest"),
    ],
)
def test_what_makes_no_experiment_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(None, (), {**GIVEN, **change})


def test_files_and_overrides_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config at"):
        load_experiment(tmp_path / "absent.toml")
    (tmp_path / "no.toml").write_text("machines = [")
    with pytest.raises(ConfigError, match="not TOML"):
        load_experiment(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="no override"):
        load_experiment(None, ["seeds"], GIVEN)
    with pytest.raises(ConfigError, match="a value, not a table"):
        load_experiment(None, ["seeds=2", "seeds.more=2"], GIVEN)
