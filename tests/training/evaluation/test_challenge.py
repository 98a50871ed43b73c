"""`offkey evaluate`: figures, files and refusals, on synthetic machines and a bundle of random weights."""

import csv
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score
from typer.testing import CliRunner

from training.cli import app
from training.evaluation.challenge.years import mean, section_figures
from training.evaluation.embedders import BundleEmbedder

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = ("--bootstrap", "100", "--workers", "1")


@pytest.fixture(scope="module")
def evaluated(tree: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    words = [str(tree), "--bundle", f"tiny={tiny_bundle}", "--work", str(out / "work"), "--out", str(out), *OPTIONS]
    found = CliRunner().invoke(app, ["evaluate", *words])
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[-1] == str(out / "evaluation.md")
    return out


def read(path: Path) -> dict[str, float]:
    with path.open(newline="") as file:
        return {name: float(value) for name, value in csv.reader(file)}


def by_name(scores: dict[str, float], *parts: str) -> np.ndarray:
    return np.array([score for name, score in scores.items() if all(part in name for part in parts)])


def auc(low: np.ndarray, high: np.ndarray, **options: float) -> float:
    truth = np.repeat([0, 1], [len(low), len(high)])
    return float(roc_auc_score(truth, np.concatenate([low, high]), **options))


def test_the_csv_files_give_the_reported_figures(evaluated: Path) -> None:
    reported = json.loads((evaluated / "evaluation.json").read_text())
    figures = {(row["machine"], row["metric"]): row["value"] for row in reported["scores"]}
    scores = read(evaluated / "csv" / "tiny" / "anomaly_score_fan-synthetic_section_00_test.csv")
    normal, anomaly = by_name(scores, "_normal_"), by_name(scores, "_anomaly_")
    assert len(scores) == 16
    # Of a domain: its normal clips against the anomalous clips of both; the partial area is over all clips.
    expected = {
        f"auc_{domain}": auc(by_name(scores, f"_{domain}_", "_normal_"), anomaly) for domain in ("source", "target")
    }
    expected["pauc"] = auc(normal, anomaly, max_fpr=0.1)
    for metric, value in expected.items():
        assert figures["fan-synthetic", metric] == pytest.approx(value, abs=1e-6)
    official = next(
        row["value"]
        for row in reported["means"]
        if (row["machine"], row["mean"], row["metric"]) == ("fan-synthetic", "harmonic", "official")
    )
    clamped = [max(value, sys.float_info.epsilon) for value in expected.values()]
    assert official == pytest.approx(len(clamped) / sum(1 / value for value in clamped), abs=1e-6)


def test_scores_above_all_thresholds_are_decided_and_the_realized_rate_is_reported(evaluated: Path) -> None:
    reported = json.loads((evaluated / "evaluation.json").read_text())
    folder = evaluated / "csv" / "tiny"
    for row in reported["thresholds"]:
        scores = read(folder / f"anomaly_score_{row['machine']}_section_00_test.csv")
        decisions = read(folder / f"decision_result_{row['machine']}_section_00_test.csv")
        # Reported is the largest threshold of the domains. A clip below it may be above that of the nearest domain.
        above = {name for name, score in scores.items() if score > row["decision_threshold"]}
        decided = {name for name, decision in decisions.items() if decision == 1.0}
        assert above <= decided
        assert decided < scores.keys()
        assert min(scores[name] for name in decided) > min(scores.values())
        rate = next(
            one["value"]
            for one in reported["scores"]
            if (one["machine"], one["metric"]) == (row["machine"], "false_alarm_rate")
        )
        assert rate == pytest.approx(by_name(decisions, "_normal_").mean(), abs=1e-6)
    assert {path.name for path in (evaluated / "plots" / "tiny").iterdir()} == {
        "fan-synthetic.png",
        "pump-synthetic.png",
    }


def test_a_second_evaluation_embeds_nothing(
    evaluated: Path, tree: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr(BundleEmbedder, "embed", refuse)
    words = [str(tree), "--bundle", f"tiny={tiny_bundle}", "--work", str(evaluated / "work"), *OPTIONS]
    found = CliRunner().invoke(app, ["evaluate", *words, "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    for name in ("csv/tiny/anomaly_score_fan-synthetic_section_00_test.csv", "evaluation.md"):
        again, before = ((folder / name).read_text().partition("##")[2] for folder in (tmp_path, evaluated))
        assert again == before


@pytest.mark.parametrize("form", ["2020", "2021", "2022", "plain"])
def test_each_year_is_scikit_learns(form: str) -> None:
    rng = np.random.default_rng(int(form) if form.isdigit() else 0)
    anomalous, target = rng.random(80) < 0.5, rng.random(80) < 0.4
    scores = np.round(rng.standard_normal(80) + anomalous, 1)  # with ties
    alarms = scores > 0.8
    found = section_figures(form, scores, alarms, anomalous, target, np.ones((1, 80)))
    assert found["auc"][0] == pytest.approx(roc_auc_score(anomalous, scores))
    for domain, own in (("source", ~target), ("target", target)):
        if form in ("2020", "plain"):
            assert f"auc_{domain}" not in found
            continue
        kept = own if form == "2021" else own | anomalous
        assert found[f"auc_{domain}"][0] == pytest.approx(roc_auc_score(anomalous[kept], scores[kept]))
        reported = precision_recall_fscore_support(anomalous[own], alarms[own], average="binary")[:3]
        for name, value in zip(("precision", "recall", "f1"), reported, strict=True):
            assert found[f"{name}_{domain}"][0] == pytest.approx(value)
        if form == "2021":
            assert found[f"pauc_{domain}"][0] == pytest.approx(roc_auc_score(anomalous[own], scores[own], max_fpr=0.1))
    if form != "2021":
        assert found["pauc"][0] == pytest.approx(roc_auc_score(anomalous, scores, max_fpr=0.1))


def test_a_harmonic_mean_with_a_zero_is_clamped_and_a_missing_figure_is_left_out() -> None:
    sections = [{"a": np.array([0.5]), "b": np.array([np.nan])}, {"a": np.array([1.0]), "b": np.array([np.nan])}]
    assert mean("harmonic", sections, ("a", "b"))[0] == pytest.approx(2 / 3)
    assert mean("arithmetic", sections, ("a",))[0] == pytest.approx(0.75)
    zero = [{"a": np.array([0.0])}, {"a": np.array([1.0])}]
    assert mean("harmonic", zero, ("a",))[0] == pytest.approx(2 * sys.float_info.epsilon)


@pytest.fixture
def hidden(tree: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The fan with test names that hide all, and a table of labels."""
    root = tmp_path / "hidden"
    shutil.copytree(tree / "fan-synthetic", root / "fan-synthetic")
    rows = []
    for number, path in enumerate(sorted((root / "fan-synthetic" / "test").iterdir())):
        name = f"section_00_test_{number:04d}.wav"
        domain, condition = re.findall("source|target", path.name)[0], re.findall("normal|anomaly", path.name)[0]
        path.rename(path.with_name(name))
        rows.append([f"fan-synthetic/test/{name}", condition, domain])
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "condition", "domain"], *rows])
    return root, table


def test_another_backend_gives_other_scores_and_embeds_nothing(
    evaluated: Path, tree: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BundleEmbedder, "embed", lambda *_: pytest.fail("embedded again"))
    words = [str(tree), "--bundle", f"tiny={tiny_bundle}", "--work", str(evaluated / "work"), *OPTIONS]
    found = CliRunner().invoke(app, ["evaluate", *words, "--backend", "nearest", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "evaluation.json").read_text())["backend"] == "nearest"
    name = "csv/tiny/anomaly_score_fan-synthetic_section_00_test.csv"
    assert (tmp_path / name).read_text() != (evaluated / name).read_text()
    unknown = CliRunner().invoke(app, ["evaluate", *words, "--backend", "mahalonobis", "--out", str(tmp_path)])
    assert unknown.exit_code == 1
    assert "There is no backend 'mahalonobis'. Did you mean mahalanobis" in unknown.stderr


def test_labels_may_stand_in_a_table(
    hidden: tuple[Path, Path], evaluated: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    root, table = hidden
    words = ["evaluate", str(root), "--bundle", f"tiny={tiny_bundle}", "--out", str(tmp_path / "out"), *OPTIONS]
    words += ["--work", str(evaluated / "work")]
    missing = CliRunner().invoke(app, words)
    assert missing.exit_code == 1
    assert "does not contain its condition" in missing.stderr
    found = CliRunner().invoke(app, [*words, "--labels", str(table)])
    assert found.exit_code == 0, found.output
    values = [
        {(row["machine"], row["metric"]): row["value"] for row in json.loads(path.read_text())["scores"]}
        for path in (evaluated / "evaluation.json", tmp_path / "out" / "evaluation.json")
    ]
    assert values[1]["fan-synthetic", "auc_target"] == values[0]["fan-synthetic", "auc_target"]
    with table.open("a") as file:
        file.write("fan-synthetic/test/section_00_test_0999.wav,normal,source\n")
    absent = CliRunner().invoke(app, [*words, "--labels", str(table)])
    assert absent.exit_code == 1
    assert (
        "labels 1 clips that are not in the tree; the first ones are fan-synthetic/section_00_test_0999.wav"
        in absent.stderr
    )


def test_labels_may_be_those_of_an_official_evaluator(
    hidden: tuple[Path, Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    root, table = hidden
    with table.open() as file:
        rows = list(csv.DictReader(file))
    for folder, column, one in (
        ("ground_truth_data", "condition", "anomaly"),
        ("ground_truth_domain", "domain", "target"),
    ):
        path = tmp_path / "evaluator" / folder / "ground_truth_fan-synthetic_section_00_test.csv"
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"{Path(row['file']).name},{int(row[column] == one)}\n" for row in rows))
    words = ["evaluate", str(root), "--bundle", str(tiny_bundle), "--out", str(tmp_path), "--work", str(tmp_path / "w")]
    found = CliRunner().invoke(app, [*words, "--labels", str(tmp_path / "evaluator"), *OPTIONS])
    assert found.exit_code == 0, found.output
    assert "tiny-1" in found.stdout


def test_a_plain_tree_has_no_domains(tree: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    for path in (tree / "pump-synthetic").rglob("*.wav"):
        split = path.parent.name
        place = tmp_path / "plain" / "pump" / split / ("anomaly" if "_anomaly_" in path.name else "normal")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / f"{len(list(place.iterdir()))}.wav")
    words = ["evaluate", str(tmp_path / "plain"), "--bundle", str(tiny_bundle), "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, [*words, "--work", str(tmp_path / "w"), *OPTIONS])
    assert found.exit_code == 0, found.output
    assert "AUC source" not in found.stdout
    assert "| tiny-1 |" in found.stdout


def test_damaged_clips_are_counted_and_named_and_a_bank_of_none_is_refused(
    tree: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    broken = sorted((root / "fan-synthetic" / "train").iterdir())
    broken[0].write_bytes(b"no audio")
    words = ["evaluate", str(root), "--bundle", str(tiny_bundle), "--out", str(tmp_path), "--work", str(tmp_path / "w")]
    found = CliRunner().invoke(app, [*words, *OPTIONS])
    assert found.exit_code == 0, found.output
    assert "## 1 clips could not be used" in found.stdout
    assert f"fan-synthetic/train/{broken[0].name}: " in found.stdout
    for path in broken:
        path.write_bytes(b"no audio")
    none = CliRunner().invoke(app, [*words, *OPTIONS])
    assert none.exit_code == 1
    assert "The machine fan-synthetic" in none.stderr
    assert "has no train clip" in none.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/no/such/tree"], "There is no folder of machines at /no/such/tree"),
        (["TREE", "--false-alarm-rate", "0"], "The false-alarm rate must be between 0 and 1, not 0"),
        (["TREE", "--false-alarm-rate", "nan"], "The false-alarm rate must be between 0 and 1, not nan"),
        (["TREE", "--bootstrap", "1"], "at least 100 replicates, not 1"),
        (["TREE", "--labels", "/no/labels.csv"], "There is no label file at /no/labels.csv"),
        (["TREE", "--channel", "left"], "near, far or a number from 0"),
    ],
)
def test_what_cannot_be_evaluated_is_said(tree: Path, words: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["evaluate", *(str(tree) if word == "TREE" else word for word in words)])
    assert found.exit_code == 1
    assert said in found.stderr


def test_the_commands_of_the_page_run(
    tree: Path, hidden: tuple[Path, Path], tiny_bundle: Path, evaluated: Path, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "how-to" / "evaluate.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]
    assert len(commands) >= 3
    places: dict[str, Callable[[], str]] = {
        "TREE": lambda: str(tree),
        "HIDDEN": lambda: str(hidden[0]),
        "labels.csv": lambda: str(hidden[1]),
        "models/own/1": lambda: str(tiny_bundle),
    }
    for command in commands:
        words = [word.strip() for word in shlex.split(command, comments=True)]
        for place, found in places.items():
            words = [re.sub(rf"(^|=){re.escape(place)}$", lambda m, f=found: m[1] + f(), word) for word in words]
        assert words[:2] == ["offkey", "evaluate"]
        if "--bundle" not in words:
            words += ["--bundle", str(tiny_bundle)]
        extra = ["--work", str(evaluated / "work"), *OPTIONS, "--out", str(tmp_path / "out")]
        reported = CliRunner().invoke(app, [*words[1:], *extra])
        assert reported.exit_code == 0, reported.output
