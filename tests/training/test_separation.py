"""Areas under the curve as DCASE Task 2 has them, and the trees they are measured on."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.manifest import WindowSpec
from service.synthetic import plan_tree, write_tree
from training.data.catalog import DataError
from training.separation import auc, partial_auc, read_machines, read_windows, separation

SCORES = st.lists(st.integers(0, 12), min_size=1, max_size=25).map(lambda values: np.array(values, dtype=float))


def step_by_step(normal: np.ndarray, anomalous: np.ndarray, bound: float) -> float:
    """The same area, added up over a fine grid of false-positive rates."""
    thresholds = sorted({*normal, *anomalous}, reverse=True)
    points = [(0.0, 0.0), *((float((normal >= t).mean()), float((anomalous >= t).mean())) for t in thresholds)]
    grid = (np.arange(2_000) + 0.5) * bound / 2_000
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        inside = grid[(grid > x0) & (grid <= x1)]
        if len(inside):
            area += float((y0 + (y1 - y0) * (inside - x0) / (x1 - x0)).sum()) * bound / 2_000
    least = bound**2 / 2
    return 0.5 * (1 + (area - least) / (bound - least))


@given(normal=SCORES, anomalous=SCORES)
def test_the_partial_area_is_the_area_under_the_beginning_of_the_curve(
    normal: np.ndarray, anomalous: np.ndarray
) -> None:
    assert partial_auc(normal, anomalous) == pytest.approx(step_by_step(normal, anomalous, 0.1), abs=1e-3)
    assert 0 <= auc(normal, anomalous) == pytest.approx(1 - auc(anomalous, normal))


def test_perfect_chance_and_worst() -> None:
    low, high, same = np.arange(10.0), np.arange(10.0, 20.0), np.zeros(10)
    assert (auc(low, high), partial_auc(low, high)) == (1.0, pytest.approx(1.0))
    assert (auc(same, same), partial_auc(same, same)) == (0.5, pytest.approx(0.5))
    assert auc(high, low) == 0.0
    assert partial_auc(high, low) == pytest.approx(0.5 * (1 - 0.005 / 0.095))


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
