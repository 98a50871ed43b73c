"""The plainest score, and the trees it is taken over."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from service.encoder.bundle import WindowSpec
from service.synthetic import plan_tree, write_tree
from training.data.catalog import DataError
from training.separation import read_machines, read_windows, separation


def test_a_clip_scores_as_its_most_anomalous_window_against_all_enrolled_windows() -> None:
    east, north, west = np.eye(2, dtype=np.float32)[0:1], np.eye(2, dtype=np.float32)[1:], -np.eye(2)[:1]
    bank = [np.concatenate([east, north])]
    assert separation(bank, [east, north], [np.concatenate([east, west])]).auc == 1.0
    assert separation(bank, [east], [north]).auc == 0.5


def test_machines_of_a_tree(tmp_path: Path) -> None:
    write_tree(tmp_path, plan_tree(["fan-synthetic", "pump-synthetic"], train_source=2, train_target=1, test_each=1))
    machines = read_machines(tmp_path)
    assert [machine.name for machine in machines] == ["fan-synthetic", "pump-synthetic"]
    assert [(len(m.bank), len(m.normal), len(m.anomalous)) for m in machines] == [(3, 2, 2)] * 2
    spec = WindowSpec(seconds=2.0, hop_seconds=1.0, min_seconds=1.0)
    windows = read_windows(machines[0].bank[0], spec, 16_000)
    assert {len(window) for window in windows} == {32_000}
    with pytest.raises(DataError, match=r"shorter than 60 s"):
        read_windows(machines[0].bank[0], WindowSpec(seconds=60, hop_seconds=1, min_seconds=60), 16_000)
    (tmp_path / "lathe" / "train").mkdir(parents=True)
    shutil.copy(machines[0].bank[0].path, tmp_path / "lathe" / "train" / "section_00_source_train_normal_0000.wav")
    with pytest.raises(DataError, match=r"machine lathe in .* has no clip that is normal in `test`"):
        read_machines(tmp_path)
