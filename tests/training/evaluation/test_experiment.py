"""The command end to end: what it writes, that it resumes, what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from training.cli import app
from training.config import Config
from training.evaluation.embedders import BundleEmbedder, LogmelEmbedder
from training.export import _measurements

runner = CliRunner()
pytestmark = pytest.mark.xdist_group("experiment")  # the bundle is made once


@pytest.fixture
def words(tree: Path, noise: Path, tiny_bundle: Path, second_bundle: Path, tmp_path: Path) -> list[str]:
    """An experiment of a few seconds."""
    return [
        *("experiment", "timing_rounds=2", "bootstrap=100", "--machines", str(tree), "--noise", str(noise)),
        *("--bundle", f"tiny={tiny_bundle}", "--bundle", f"second={second_bundle}", "--snr", "-5,10", "--seeds", "1"),
        *("--work", str(tmp_path / "work"), "--json", str(tmp_path / "out" / "found.json")),
    ]


def run(words: list[str]) -> str:
    result = runner.invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_everything_is_written_and_a_second_run_embeds_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run(words)
    out = tmp_path / "out"
    assert printed.splitlines()[-1] == str(out / "found.json")
    names = {"found.json", "found.md", "found-auc.png", "found-machines.png", "found-official.png"}
    assert {path.name for path in out.iterdir()} == names
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names if name.endswith("png"))
    text = (out / "found.json").read_text()
    assert "NaN" not in text
    found = json.loads(text)
    assert found["command"].startswith("offkey experiment timing_rounds=2 bootstrap=100 --machines")
    assert [method["name"] for method in found["methods"]] == ["log-mel", "tiny", "second", "oracle"]
    assert found["methods"][1]["embedding_space_id"].startswith("tiny/1-")
    assert found["noise"]["stationary"] == {"bank": ["0.wav", "2.wav"], "test": ["1.wav", "3.wav"]}
    scores = {
        tuple(row[k] for k in ("method", "scorer", "machine", "condition", "snr_db", "metric")): row
        for row in found["scores"]
    }
    cells = 1 + 2 * 4 + 2 * 2 + 1
    assert len(scores) == len(found["scores"]) == 4 * 3 * 3 * cells * 5
    assert found["provider"] == "CPUExecutionProvider"
    assert found["notes"] == []
    assert (
        scores["oracle", "nearest", "all", "clean", None, "auc"]["value"]
        == scores["tiny", "nearest", "all", "clean", None, "auc"]["value"]
    )
    row = scores["second", "served", "fan-synthetic", "stationary", 10.0, "official"]
    assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert scores["tiny", "nearest", "pump-synthetic", "noisy", None, "auc_target"]["value"] is None
    assert any(one["value"] is not None and one["value"] != round(one["value"], 4) for one in found["scores"])
    direction = scores["second", "domain-nearest", "all", "nonstationary to stationary", 10.0, "official"]["value"]
    assert f" {direction:.3f} [" in printed
    heads = [line for line in printed.splitlines() if line.startswith("| method | stationary to nonstationary -5 dB |")]
    assert len(heads) == 5
    gap = {(row["scorer"], row["condition"], row["snr_db"], row["metric"]) for row in found["gaps"]}
    assert ("domain-nearest", "nonstationary to stationary", -5.0, "official") in gap
    oracle = [scores["oracle", "nearest", "fan-synthetic", "stationary", snr, "auc"]["value"] for snr in (-5.0, 10.0)]
    assert oracle[0] == oracle[1]  # the oracle has no ratio: it is of the clip and of the noise
    noisy = scores["second", "nearest", "all", "noisy", None, "auc"]["value"]
    assert f"| second | {scores['second', 'nearest', 'all', 'clean', None, 'auc']['value']:.3f} |" in printed
    figures = {figure.name: figure.value for figure in _measurements(out / "found.json")}  # what export reads
    assert figures["second: AUC, noisy"] == noisy
    assert figures["second: ms per 10 s clip, one CPU thread"] > 0

    for embedder in (BundleEmbedder, LogmelEmbedder):
        monkeypatch.setattr(embedder, "embed", lambda *_: pytest.fail("a clip was embedded again"))
    run(words)
    assert (out / "found.json").read_text() == text
    cell = max((tmp_path / "work" / "embeddings").rglob("*.npz"))
    whole = cell.read_bytes()
    for damaged in (whole[:100], b"", whole.replace(b"vectors", b"victors")):
        cell.write_bytes(damaged)
        result = runner.invoke(app, words)
        assert result.exit_code == 1
        assert "is damaged" in result.output
    cell.write_bytes(whole)
    # Fewer methods or ratios use the cached embeddings.
    fewer = [word for place, word in enumerate(words) if "second" not in "".join(words[place : place + 2])]
    run([*(word.replace("-5,10", "10") for word in fewer), "timing_rounds=0"])


@pytest.mark.usefixtures("without_plots")
def test_groups_have_rows_and_one_of_them_is_chosen_without_each_machine(
    tree: Path, noise: Path, tiny_bundle: Path, second_bundle: Path, tmp_path: Path
) -> None:
    """Two bundles stand for two training seeds of one recipe."""
    file = tmp_path / "experiment.toml"
    rows = (("frozen", tiny_bundle, ""), ("retain s0", second_bundle, "retain"), ("retain s1", tiny_bundle, "retain"))
    file.write_text(
        f'machines = "{tree}"\nnoise = "{noise}"\nsnr_db = [0]\nseeds = 1\nbootstrap = 100\ntiming_rounds = 0\n'
        'choose = ["frozen", "retain"]\n'
        + "".join(f'[[methods]]\nname = "{n}"\nbundle = "{path}"\ngroup = "{group}"\n' for n, path, group in rows)
    )
    words = ["experiment", str(file), "--work", str(tmp_path / "work"), "--json", str(tmp_path / "x.json")]
    printed = run(words)
    assert "| retain, mean of 2 |" in printed
    assert "## Chosen with one machine left out" in printed
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["methods"][4] == {"name": "retain", "mean_of": ["retain s0", "retain s1"]}
    value = {
        (row["method"], row["machine"]): row["value"]
        for row in found["scores"]
        if (row["scorer"], row["condition"], row["metric"]) == ("served", "noisy", "auc")
    }
    names = ["fan-synthetic", "pump-synthetic"]
    for name in names:
        both = [value[f"retain s{seed}", name] for seed in (0, 1)]
        assert value["retain", name] == pytest.approx(np.mean(both), abs=1e-4)
    assert [row["machine"] for row in found["chosen"]] == [*names, "all"]
    for row, other in zip(found["chosen"], names[::-1], strict=False):
        better = max(("frozen", "retain"), key=lambda method: value[method, other])
        assert row["method"] == better
        assert row["value"] == value[better, row["machine"]]
        assert row["difference"]["value"] == pytest.approx(row["value"] - value["frozen", row["machine"]], abs=2e-4)
        assert row["less"] == "frozen"
    assert found["chosen"][-1]["method"] is None
    shutil.copytree(tree / names[0], tmp_path / "one" / names[0])
    result = runner.invoke(app, [*words, "--machines", str(tmp_path / "one")])
    assert result.exit_code == 1
    assert "has only fan-synthetic" in " ".join(result.output.split())


@pytest.mark.usefixtures("without_plots")
def test_killed_it_loses_no_cell_that_was_written(words: list[str], second_bundle: Path, tmp_path: Path) -> None:
    place = words.index(f"second={second_bundle}")
    words = words[: place - 1] + words[place + 1 :]
    command = [sys.executable, "-m", "training", *words, "workers=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cells = tmp_path / "work" / "embeddings"
    deadline = time.monotonic() + 60
    while len(list(cells.rglob("*.npz"))) < 6:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    written = {path: path.stat().st_mtime_ns for path in cells.rglob("*.npz")}
    total = 2 * (2 * 2 * (1 + 2 * 2) + 2 * 2)  # machines x (roles x embedders x sounds + the oracle's)
    assert 6 <= len(written) < total
    run(words)
    after = {path: path.stat().st_mtime_ns for path in cells.rglob("*.npz")}
    assert len(after) == total
    assert {path: after[path] for path in written} == written
    first = json.loads((tmp_path / "out" / "found.json").read_text())
    run([*words, "--work", str(tmp_path / "fresh")])
    assert json.loads((tmp_path / "out" / "found.json").read_text())["scores"] == first["scores"]


def altered(bundle: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    copy = Path(shutil.copytree(bundle, folder))
    change(copy)
    return copy


def damage(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (bundle / "model.onnx").write_bytes(data)


def slow_down(bundle: Path) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["input"]["sample_rate"] = 8_000
    path.write_text(json.dumps(manifest))


def test_mistakes_are_one_line_and_exit_1(words: list[str], tiny_bundle: Path, tmp_path: Path) -> None:
    damaged = altered(tiny_bundle, tmp_path / "damaged", damage)
    slower = altered(tiny_bundle, tmp_path / "slower", slow_down)
    (tmp_path / "noise" / "stationary").mkdir(parents=True)
    for more, message in (
        (["--machines", str(tmp_path / "absent")], "no folder of machines at"),
        (["--noise", str(tmp_path / "noise")], "no nonstationary/;"),
        (["--noise", str(tmp_path / "absent")], "no stationary/;"),
        (["seedz=3"], "The nearest is 'seeds'"),
        (["--snr", "loud"], "Write --snr 0,-5"),
        (["--snr", "-11"], "-10 to 30 dB, not -11"),
        (["--bundle", "tiny"], "Write --bundle NAME=DIR"),
        (["--bundle", f"other={tmp_path}"], "is not a model bundle"),
        (["--bundle", f"damaged={damaged}"], "is damaged or was replaced"),
        (["--bundle", f"slower={slower}"], "different sample rates (tiny 16000 Hz, second 16000 Hz, slower 8000 Hz)"),
    ):
        result = runner.invoke(app, [*words, *more])
        assert result.exit_code == 1, more
        reported = " ".join(result.output.split())
        assert message in reported
        assert "Traceback" not in reported
    nothing = runner.invoke(app, ["experiment"])
    assert nothing.exit_code == 1
    assert "The folder of machines is missing" in nothing.output


@pytest.mark.usefixtures("without_plots")
def test_a_method_may_be_a_training_run(
    tree: Path, noise: Path, tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    (tmp_path / "tiny.toml").write_text(
        'readout = { layers = ["block_03"], pooling = "mean", mixtures = 24 }\n'
        "window = { seconds = 1.0, hop_seconds = 0.5, min_seconds = 0.2 }\n"
        'data = { noise_labels = ["hiss", "rumble"], window_seconds = 0.5 }\noptim.batch = 2\n'
    )
    (tmp_path / "experiment.toml").write_text(
        f'machines = "{tree}"\nnoise = "{noise}"\nsnr_db = [0]\nseeds = 1\nbootstrap = 100\ntiming_rounds = 0\n'
        + "".join(
            f'[[methods]]\nname = "{name}"\nconfig = "tiny.toml"\nset = ["optim.steps={steps}"]\n'
            for name, steps in (("frozen", 0), ("Retain 1", 1))
        )
    )
    words = ["experiment", str(tmp_path / "experiment.toml"), f"checkpoint={config.encoder.checkpoint}"]
    words += [f"manifest={config.data.manifest}", "--work", str(tmp_path / "work"), "--json", str(tmp_path / "x.json")]
    run(words)
    found = json.loads((tmp_path / "x.json").read_text())
    reported = [(m["name"], m.get("bundle"), m.get("steps")) for m in found["methods"]]
    assert reported[1:3] == [("frozen", "frozen/1", 0), ("Retain 1", "retain-1/1", 1)]
    assert found["methods"][2]["objective"] == "retain"

    def refuse(*_: object) -> None:
        pytest.fail("it was trained again")

    monkeypatch.setattr("training.loop.train", refuse)
    # The clips elsewhere are the same clips: what was trained on them is used again.
    moved = Path(shutil.copytree(Path(config.data.manifest).parent, tmp_path / "moved"))
    run([word.replace(config.data.manifest, str(moved / "manifest.csv")) for word in words])
    again = json.loads((tmp_path / "x.json").read_text())
    assert again["scores"] == found["scores"]
    # A run that was trained but not yet exported is exported, not trained again.
    (made,) = (tmp_path / "work" / "methods").glob("*/bundles/frozen")
    shutil.rmtree(made)
    run(words)
    assert json.loads((tmp_path / "x.json").read_text())["scores"] == found["scores"]


def test_data_are_checked_before_anything_is_trained(
    tree: Path, noise: Path, tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop.train", lambda *_: pytest.fail("it was trained"))
    (tmp_path / "experiment.toml").write_text(
        '[[methods]]\nname = "a"\nconfig = "tiny.toml"\n[[methods]]\nname = "b"\nconfig = "tiny.toml"\nset = []\n'
    )
    (tmp_path / "tiny.toml").write_text('readout = { layers = ["block_03"], pooling = "mean" }\n')
    machines, recordings = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in (tree, noise))
    config = tiny_config()
    words = ["experiment", str(tmp_path / "experiment.toml"), f"checkpoint={config.encoder.checkpoint}"]
    words += [f"manifest={config.data.manifest}", "--machines", str(machines), "--noise", str(recordings)]
    words += ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "x.json")]

    def refused() -> str:
        result = runner.invoke(app, words)
        assert result.exit_code == 1
        return " ".join(result.output.split())

    clip = next((machines / "pump-synthetic" / "test").iterdir())
    whole = clip.read_bytes()
    clip.write_bytes(b"RIFF")
    assert f"1 clips of 34 cannot be used. {clip}:" in refused()
    clip.write_bytes(whole)
    (recordings / "stationary" / "0.wav").write_bytes(b"RIFF")
    assert "0.wav: The clip is not audio" in refused()
    second = (tmp_path / "experiment.toml").read_text()
    (tmp_path / "experiment.toml").write_text(second.replace("set = []", "set = ['readout.layers=[\"block_99\"]']"))
    assert "no layer block_99" in refused()


@pytest.mark.usefixtures("without_plots")
def test_a_clip_that_is_there_twice_is_left_out_with_a_note(
    tree: Path, noise: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    machines = Path(shutil.copytree(tree / "fan-synthetic", tmp_path / "machines" / "fan")).parent
    train = min((machines / "fan" / "train").iterdir())
    copy = machines / "fan" / "test" / "section_00_source_test_normal_0009_rec_9_seg_0.wav"
    copy.write_bytes(train.read_bytes())
    words = ["experiment", "timing_rounds=0", "bootstrap=100", "--machines", str(machines), "--noise", str(noise)]
    words += ["--bundle", f"tiny={tiny_bundle}", "--snr", "0", "--seeds", "1", "--work", str(tmp_path / "work")]
    printed = run([*words, "--json", str(tmp_path / "x.json")])
    note = f"fan: test/{copy.name} repeats train/{train.name} and was left out."
    assert f"## Notes on the data\n\n- {note}\n" in printed
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["notes"] == [note]
    assert found["machines"][0]["test"] == {"normal": 8, "anomaly": 8}


@pytest.mark.shared_data
@pytest.mark.usefixtures("without_plots")
def test_on_real_machines_the_shipped_bundle_is_ahead_of_log_mel(
    shared_dir: Path, bundle: Path, tmp_path: Path
) -> None:
    """A small part: train and test clips of one machine, one seed."""
    data = shared_dir / "data"
    for split, every in (("train", 2), ("test", 3)):
        folder = tmp_path / "machines" / "car_01" / split
        folder.mkdir(parents=True)
        for path in sorted((data / "machines" / "car_01" / split).iterdir())[::every]:
            (folder / path.name).symlink_to(path)
    words = ["experiment", "--machines", str(tmp_path / "machines"), "--noise", str(data / "noise"), "--seeds", "1"]
    words += ["--bundle", f"student={bundle}", "--snr", "0", "timing_rounds=0", "--work", str(tmp_path / "work")]
    run([*words, "--json", str(tmp_path / "x.json")])
    found = json.loads((tmp_path / "x.json").read_text())
    value = {
        row["method"]: row["value"]
        for row in found["scores"]
        if (row["scorer"], row["machine"], row["condition"], row["metric"]) == ("nearest", "all", "noisy", "auc")
    }
    assert value["student"] > value["log-mel"] + 0.15
    assert found["machines"][0]["test_recordings"] == {
        "anomaly source": 2, "anomaly target": 2, "normal source": 2, "normal target": 2,
    }  # fmt: skip
    assert np.isfinite(list(value.values())).all()
