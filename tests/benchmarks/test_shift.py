"""Small runs of benchmarks/acoustics.py and drift.py, for the figures of docs/reference/shift.md."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from training.evaluation.noise import Noise
from training.evaluation.tree import read_tree

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def acoustics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("acoustics")


@pytest.fixture
def drift(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("drift")


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["car_01", "car_02", "quadcopter_a"])
def test_altered_real_clips_have_warnings(acoustics: ModuleType, shared_dir: Path, name: str) -> None:
    (machine,) = (one for one in read_tree(shared_dir / "data" / "machines") if one.name == name)
    found = acoustics.judge(machine, Noise.read(shared_dir / "data" / "noise", acoustics.RATE), 3)
    rates = found["rates"]
    assert rates["as it is"] <= 0.06  # one of 17 or 18
    assert rates["first 3 s"] <= 0.06
    for altered in ("-20 dB", "+40 dB, clipped", "low-passed at 2 kHz", "file of 8 kHz", "resampled from 8 kHz"):
        assert rates[altered] == 1.0, altered
    assert rates["noise at 0 dB"] >= 0.7
    for size, own in found["small"].items():
        assert own["as it is"] <= 0.02, size
        assert own["low-passed at 2 kHz"] == 1.0, size


@pytest.mark.parametrize("recordings", [20, 50])
def test_healthy_streams_are_rarely_reported_to_drift(drift: ModuleType, recordings: int) -> None:
    drawn = list(drift.streams(recordings, 600, 40))
    found = [np.isfinite(drift.first_verdict(own, scores, every=10)) for own, scores in drawn]
    assert np.mean(found) <= 0.05


def test_a_shift_of_one_sigma_is_found_within_the_stated_number_of_clips(drift: ModuleType) -> None:
    drawn = list(drift.streams(50, 200, 40))
    first = np.array([drift.first_verdict(own, scores + own.scores.std(), every=5) for own, scores in drawn])
    assert np.mean(first <= 100) >= 0.9
    assert np.isfinite(first).all()
