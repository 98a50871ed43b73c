"""A small cut of benchmarks/calibration.py: the promise over simulated banks, and what a guard does to it."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def calibration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("calibration")


@pytest.mark.parametrize("clips", [20, 100, 200])
@pytest.mark.parametrize("case", [0, 1], ids=["independent", "pieces"])
def test_the_realized_rates_are_within_the_conformal_bounds(calibration: ModuleType, case: int, clips: int) -> None:
    found = calibration.CASES[case]
    alarms = calibration.realized(found, clips, banks=300)
    lowest = 1 / (found.recordings(clips) + 1)
    for rate, shares in zip(calibration.RATES, alarms, strict=True):
        promised = max(rate, lowest)
        error = 3 * shares.std() / np.sqrt(len(shares))  # three standard errors of the mean
        assert promised - lowest - error <= shares.mean() <= promised + error, rate


def test_pieces_that_pass_for_recordings_break_the_promise(calibration: ModuleType) -> None:
    assert calibration.realized(calibration.CASES[2], 100, banks=20).mean() > 0.4


def test_the_guard_does_not_raise_the_rate_where_one_at_the_threshold_does(calibration: ModuleType) -> None:
    none, strict, own = (calibration.guarded(bound, banks=60) for bound in calibration.GUARDS.values())
    assert strict["realized"] > 1.5 * none["realized"]
    assert strict["held_back"] > 0.05
    assert own["realized"] < 1.2 * none["realized"]
    assert own["held_back"] < 0.01
