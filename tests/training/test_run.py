"""A run folder has the provenance of a student, and complete checkpoints."""

import csv
import json
from pathlib import Path

import pytest
import torch

from training import run as run_module
from training.config import Config
from training.run import Run, RunError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "small", Config(seed=7), {"data_fingerprint": "abc"})


def test_the_folder_has_config_provenance_revision_and_environment(run: Run) -> None:
    assert run.config == Config(seed=7)
    assert run.about["data_fingerprint"] == "abc"
    assert run.about["git_revision"]
    assert run.about["environment"]["torch"].startswith("2.")


def test_the_log_is_a_table(run: Run) -> None:
    for step in (1, 2):
        run.losses.append([{"step": step, "total": 0.5}])
    with (run.folder / "log.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"step": "1", "total": "0.5"}, {"step": "2", "total": "0.5"}]
    assert run.losses.rows() == [{"step": 1, "total": 0.5}, {"step": 2, "total": 0.5}]
    assert not run.retention.rows(), "nothing was logged there"


def test_the_newest_checkpoint_comes_back(run: Run) -> None:
    for step in (5, 10):
        run.save(step, {"weight": torch.full((2, 3), float(step)).T}, {"note": step}, keep=9)
    tensors, state = run.latest()
    assert torch.equal(tensors["weight"], torch.full((3, 2), 10.0))
    assert state == {"step": 10, "note": 10}


def test_a_full_disk_leaves_the_previous_checkpoint_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save(5, {"weight": torch.ones(3)}, {}, keep=9)

    def half_written(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        assert run.latest()[1]["step"] == 5, "a process killed now would leave half a checkpoint as the newest"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "save_file", half_written)
    with pytest.raises(RunError, match=r"step 10 .*No space left.* 00000005|00000005 is intact.*--resume"):
        run.save(10, {"weight": torch.zeros(3)}, {}, keep=9)
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["00000005"]
    assert run.latest()[1]["step"] == 5


def test_what_is_missing_or_damaged_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoint yet"):
        run.latest()
    path = run.save(1, {"weight": torch.ones(3)}, {}, keep=9)
    (path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(RunError, match="00000001 is damaged"):
        run.latest()
    run.save(2, {"weight": torch.ones(3)}, {}, keep=9)
    (run.folder / "checkpoints" / "00000002" / "state.json").write_text(json.dumps({})[:1])
    with pytest.raises(RunError, match="00000002 is damaged"):
        run.latest()
    with pytest.raises(RunError, match="not a run folder"):
        _ = Run(tmp_path / "nowhere").about


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    runs = [Run.create(tmp_path, "same", Config(seed=seed), {}) for seed in range(3)]
    assert [run.config.seed for run in runs] == [0, 1, 2]
