"""The CSV files, read as the official evaluator of each year does, give the reported figures.

The evaluators are followed step by step with scikit-learn (y-kawagu/dcase2020_task2_evaluator and
dcase2021_task2_evaluator, Kota-Dohi/dcase2022_evaluator; that of 2023 computes the same as that of 2022).
"""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient
from sklearn.metrics import confusion_matrix, roc_auc_score
from typer.testing import CliRunner

from service.app import create_app
from service.settings import Settings
from service.usecases.service import Service
from training.cli import app
from training.evaluation.labels import LISTING_2020

EPSILON = sys.float_info.epsilon
Scored = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # label, domain, score, decision


@pytest.fixture(scope="module")
def evaluate(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, dict]]:
    """`evaluate(tree, *words)` -> folder of the csv files, and the content of the JSON file."""
    work = tmp_path_factory.mktemp("work")

    def run(tree: Path, *words: str) -> tuple[Path, dict]:
        out = tmp_path_factory.mktemp("out")
        given = [str(tree), "--bundle", f"tiny={tiny_bundle}", "--work", str(work), "--out", str(out)]
        found = CliRunner().invoke(app, ["evaluate", *given, "--bootstrap", "100", "--workers", "1", *words])
        assert found.exit_code == 0, found.output
        return out / "csv" / "tiny", json.loads((out / "evaluation.json").read_text())

    return run


def read(folder: Path, which: str, truth: Callable[[str], tuple[int, int]]) -> Scored:
    """Both files of a section, in the order of their names; `truth` returns label and domain of a name."""
    with (folder / f"anomaly_score_{which}.csv").open() as file:
        scores = sorted(csv.reader(file))
    with (folder / f"decision_result_{which}.csv").open() as file:
        decisions = sorted(csv.reader(file))
    assert [name for name, _ in scores] == [name for name, _ in decisions]
    reported = np.array([truth(name) for name, _ in scores])
    values = np.array([float(score) for _, score in scores])
    return reported[:, 0], reported[:, 1], values, np.array([int(decision) for _, decision in decisions])


def by_name(name: str) -> tuple[int, int]:
    return int("anomaly" in name), int("target" in name)


def precision_recall_f1(label: np.ndarray, decision: np.ndarray) -> tuple[float, float, float]:
    _, false, missed, hit = confusion_matrix(label, decision).ravel()
    precision, recall = hit / np.maximum(hit + false, EPSILON), hit / np.maximum(hit + missed, EPSILON)
    return precision, recall, 2.0 * precision * recall / np.maximum(precision + recall, EPSILON)


def harmonic(values: list[float]) -> float:
    return len(values) / float(np.sum(1 / np.maximum(values, EPSILON)))


def reported_mean(reported: dict, machine: str, how: str, metric: str) -> float:
    return next(
        row["value"]
        for row in reported["means"]
        if (row["machine"], row["mean"], row["metric"]) == (machine, how, metric)
    )


def reported_figure(reported: dict, machine: str, metric: str) -> float:
    return next(row["value"] for row in reported["scores"] if (row["machine"], row["metric"]) == (machine, metric))


def rounded(value: float) -> object:
    return pytest.approx(value, abs=5.1e-5)  # the JSON file has four digits


@pytest.fixture(scope="module")
def sections(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`sections(form)` -> the fan as two sections of one machine, named as in a year."""

    def build(form: str) -> Path:
        root = tmp_path_factory.mktemp(form)
        for section in (0, 1):
            for path in sorted((tree / "fan-synthetic").rglob("*.wav")):
                split, words = path.parent.name, path.stem.split("_")
                domain, number = words[2], int(words[5])
                if split == "test" and number < 1 + section and domain == ("target", "source")[section]:
                    words[4] = {"normal": "anomaly", "anomaly": "normal"}[words[4]]  # else all figures were 1
                label = words[4]
                if section and split == "test" and number == 3:
                    continue  # so that the sections differ
                if form == "2020":
                    folder, name = split, f"{label}_id_0{section}_{number + 50 * (domain == 'target'):08d}.wav"
                else:
                    folder = f"{domain}_{split}" if form == "2021" and split == "test" else split
                    name = f"section_0{section}_{'_'.join(words[2:])}.wav"
                (root / "fan" / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / "fan" / folder / name)
        return root

    return build


def test_2020(sections: Callable[[str], Path], evaluate: Callable[..., tuple[Path, dict]]) -> None:
    folder, reported = evaluate(sections("2020"))
    assert reported["form"] == "2020"
    performance = []
    for section in ("00", "01"):
        label, _, score, _ = read(folder, f"fan_id_{section}", by_name)
        performance.append([roc_auc_score(label, score), roc_auc_score(label, score, max_fpr=0.1)])
        assert reported_figure(reported, f"fan/section_{section}", "auc") == rounded(performance[-1][0])
        assert reported_figure(reported, f"fan/section_{section}", "pauc") == rounded(performance[-1][1])
    for metric, value in zip(("auc", "pauc"), np.mean(performance, axis=0), strict=True):
        assert reported_mean(reported, "fan", "arithmetic", metric) == rounded(value)


def test_2021(sections: Callable[[str], Path], evaluate: Callable[..., tuple[Path, dict]]) -> None:
    folder, reported = evaluate(sections("2021"))
    assert reported["form"] == "2021"
    performance = []
    for domain in ("source", "target"):
        for section in ("00", "01"):
            label, _, score, decision = read(folder, f"fan_section_{section}_{domain}_test", by_name)
            areas = [roc_auc_score(label, score), roc_auc_score(label, score, max_fpr=0.1)]
            performance.append([*areas, *precision_recall_f1(label, decision)])
            assert reported_figure(reported, f"fan/section_{section}", f"pauc_{domain}") == rounded(areas[1])
    columns = np.array(performance).T
    for metric, values in zip(("auc", "pauc", "precision", "recall", "f1"), columns, strict=True):
        assert reported_mean(reported, "all", "arithmetic", metric) == rounded(np.mean(values))
        assert reported_mean(reported, "all", "harmonic", metric) == rounded(harmonic(values))
    assert reported_mean(reported, "all", "harmonic", "official") == rounded(harmonic([*columns[0], *columns[1]]))


def judged_as_since_2022(
    folder: Path, reported: dict, which: list[str], truth: Callable[[str], tuple[int, int]]
) -> None:
    rows: dict[str, list[float]] = {}
    for name in which:
        label, domain, score, decision = read(folder, name, truth)
        rows.setdefault("pauc", []).append(roc_auc_score(label, score, max_fpr=0.1))
        for number, word in enumerate(("source", "target")):
            kept, own = (domain == number) | (label != 0), domain == number
            rows.setdefault(f"auc_{word}", []).append(roc_auc_score(label[kept], score[kept]))
            for metric, value in zip(
                ("precision", "recall", "f1"), precision_recall_f1(label[own], decision[own]), strict=True
            ):
                rows.setdefault(f"{metric}_{word}", []).append(value)
    for metric, values in rows.items():
        assert reported_mean(reported, "all", "arithmetic", metric) == rounded(np.mean(values)), metric
        assert reported_mean(reported, "all", "harmonic", metric) == rounded(harmonic(values)), metric
    for metric in ("auc", "precision", "recall", "f1"):
        both = [*rows[f"{metric}_source"], *rows[f"{metric}_target"]]
        assert reported_mean(reported, "all", "harmonic", metric) == rounded(harmonic(both))
    official = harmonic([*rows["auc_source"], *rows["auc_target"], *rows["pauc"]])
    assert reported_mean(reported, "all", "harmonic", "official") == rounded(official)


def test_2022(sections: Callable[[str], Path], evaluate: Callable[..., tuple[Path, dict]]) -> None:
    folder, reported = evaluate(sections("2022"))
    assert reported["form"] == "2022"
    judged_as_since_2022(folder, reported, [f"fan_section_{section}_test" for section in ("00", "01")], by_name)


def test_names_that_hide_all_as_an_evaluation_set_has_them(
    tree: Path, evaluate: Callable[..., tuple[Path, dict]], tmp_path: Path
) -> None:
    """With the official ground truth of 2023, whose names lack the split, and supplemental clips as in 2025."""
    root = Path(shutil.copytree(tree / "fan-synthetic", tmp_path / "tree" / "fan").parent)
    (root / "fan" / "supplemental").mkdir()
    (root / "fan" / "supplemental" / "section_00_noise_supplemental_normal_0000.wav").write_bytes(b"not heard")
    truth = {}
    for number, path in enumerate(sorted((root / "fan" / "test").iterdir(), key=lambda p: p.name[::-1])):
        name = path.with_name(f"section_00_{number:04d}.wav")
        label, domain = by_name(path.name)
        truth[name.name] = (label ^ ("_0001_" in path.name), domain)  # a wrong label in four: else all figures were 1
        path.rename(name)
    for column, folder in enumerate(("ground_truth_data", "ground_truth_domain")):
        (tmp_path / "evaluator" / folder).mkdir(parents=True)
        text = "".join(f"{name},{reported[column]}\n" for name, reported in truth.items())
        (tmp_path / "evaluator" / folder / "ground_truth_fan_section_00_test.csv").write_text(text)
    folder, reported = evaluate(root, "--labels", str(tmp_path / "evaluator"))
    judged_as_since_2022(folder, reported, ["fan_section_00_test"], truth.__getitem__)


def test_labels_of_2020(
    sections: Callable[[str], Path], evaluate: Callable[..., tuple[Path, dict]], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(sections("2020"), tmp_path / "tree"))
    rows = []
    for number, path in enumerate(sorted((root / "fan" / "test").iterdir())):
        name = f"{path.name[path.name.index('id_') : path.name.index('id_') + 5]}_{number:08d}.wav"
        rows.append(f"{name},{path.name},{by_name(path.name)[0]}\n")
        path.rename(path.with_name(name))
    (tmp_path / LISTING_2020).write_text("fan\n" + "".join(rows))
    _, reported = evaluate(root, "--labels", str(tmp_path / LISTING_2020))
    _, plain = evaluate(sections("2020"))
    assert reported_mean(reported, "fan", "arithmetic", "auc") == reported_mean(plain, "fan", "arithmetic", "auc")


def test_of_two_channels_one_is_used_or_their_mean(
    tree: Path, evaluate: Callable[..., tuple[Path, dict]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for path in (tree / "fan-synthetic").rglob("*.wav"):
        near, rate = soundfile.read(path)
        copy = tmp_path / path.relative_to(tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(copy, np.stack([near, 0.1 * rng.standard_normal(len(near))], axis=1), rate, subtype="PCM_16")
    which = "fan-synthetic_section_00_test"
    runs = (evaluate(tree), *(evaluate(tmp_path, "--channel", channel) for channel in ("near", "far", "")))
    alone, near, far, both = (read(folder, which, by_name)[2] for folder, _ in runs)
    assert near == pytest.approx(alone, abs=1e-6)
    assert not np.allclose(far, near)
    assert not np.allclose(both, near)
    assert not np.allclose(both, far)


def test_what_is_measured_is_what_a_real_service_answers(
    tree: Path, tiny_bundle: Path, evaluate: Callable[..., tuple[Path, dict]], tmp_path: Path
) -> None:
    folder, reported = evaluate(tree, "--false-alarm-rate", "0.3")
    thresholds = {row["machine"]: row for row in reported["thresholds"]}
    with TestClient(
        create_app(Service.open(Settings(data_dir=tmp_path / "data", bundle=tiny_bundle, workers=1)))
    ) as api:
        for name in ("fan-synthetic", "pump-synthetic"):
            assert api.put(f"/machines/{name}").status_code == 201
            assert api.put(f"/machines/{name}/threshold", json={"false_alarm_rate": 0.3}).status_code == 200
            for domain in ("source", "target"):
                files = [
                    ("clips", (p.name, p.read_bytes())) for p in sorted((tree / name / "train").glob(f"*{domain}*"))
                ]
                if files:
                    asked = {"machine_id": name, "domain": domain}
                    assert api.post("/enroll", params=asked, files=files).status_code == 201
            files = [("clips", (p.name, p.read_bytes())) for p in sorted((tree / name / "test").iterdir())]
            answer = api.post("/score", params={"machine_id": name}, files=files).json()
            _, _, scores, decisions = read(folder, f"{name}_section_00_test", by_name)
            assert scores == pytest.approx([clip["anomaly_score"] for clip in answer["clips"]], abs=1e-5)
            assert decisions.tolist() == [clip["is_anomalous"] for clip in answer["clips"]]
            for key in ("decision_threshold", "promised_false_alarm_rate"):
                assert thresholds[name][key] == pytest.approx(answer["threshold"][key], abs=1e-5)
