"""The protocol of benchmarks/student.py: exact ratios, disjoint noise, a fair AUC."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "student.py"


@pytest.fixture(scope="module")
def student() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("student_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as context:
        context.syspath_prepend(SCRIPT.parent)  # as when it is run
        context.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("snr", [-10.0, 0.0, 12.5])
def test_the_ratio_is_exact(student: ModuleType, snr: float) -> None:
    rng = np.random.default_rng(0)
    clip, noise = (student.unit_power(rng.standard_normal(16_000) * 7 + 1) for _ in range(2))
    signal = student.mixture(clip, np.zeros_like(noise), snr)
    rest = student.mixture(clip, noise, snr) - signal
    assert 10 * np.log10(np.mean(signal**2) / np.mean(rest**2)) == pytest.approx(snr, abs=0.01)


def test_bank_and_test_noise_come_from_disjoint_recordings(student: ModuleType, tmp_path: Path) -> None:
    for kind in student.KINDS:
        (tmp_path / kind).mkdir()
        for number in range(5):
            tone = 0.1 * np.sin(2 * np.pi * (500 + 250 * number) * np.arange(8_000) / 8_000)
            soundfile.write(tmp_path / kind / f"{number}.wav", tone, 8_000)
    noise = student.Noise(tmp_path, 8_000)
    rng = np.random.default_rng(0)
    heard = {
        role: {int(np.abs(np.fft.rfft(noise.draw("stationary", role, rng)[:8_000])).argmax()) for _ in range(40)}
        for role in ("bank", "test")
    }
    assert heard == {"bank": {500, 1_000, 1_500}, "test": {750, 1_250}}


def test_area_under_the_curve_counts_pairs(student: ModuleType) -> None:
    assert student.auc([0.0, 1.0], [2.0, 3.0]) == 1.0
    assert student.auc([0.0, 1.0], [0.5, 1.0]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert student.auc([1.0], [1.0]) == 0.5


def test_a_score_is_the_distance_to_the_nearest_of_the_bank(student: ModuleType) -> None:
    bank = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    tests = [np.array([1.0, 0.0]), np.array([0.6, 0.8]), np.array([-1.0, 0.0])]
    assert student.separation(bank, tests, np.array([False, False, True])) == 1.0
    assert student.separation(bank, tests, np.array([False, True, False])) == 0.5
