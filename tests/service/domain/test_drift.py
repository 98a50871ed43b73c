"""Drift is found where there is one, and rarely where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from offkey.vocabulary import Verdict
from service.domain.drift import MIN_RECORDINGS, MIN_SCORES, Drift
from service.domain.self_scores import SelfScores


def normal(count: int, seed: int, shift: float = 0.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(count) + shift


def test_the_p_value_is_that_of_the_rank_sum_test() -> None:
    own, scores = normal(40, 0), normal(100, 1, 0.3)
    expected = mannwhitneyu(scores, own, use_continuity=False, method="asymptotic").pvalue
    assert Drift.of(SelfScores.of(own), scores).p_value == pytest.approx(expected, rel=1e-9)


def test_p_values_of_steady_scores_are_uniform() -> None:
    found = [Drift.of(SelfScores.of(normal(30, seed)), normal(100, 10_000 + seed)).p_value for seed in range(1_000)]
    for share in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(np.array(found) <= share) == pytest.approx(share, abs=0.045)


@pytest.mark.parametrize(("shift", "verdict"), [(1.0, Verdict.HIGHER), (-1.0, Verdict.LOWER), (0.0, Verdict.STEADY)])
def test_a_shift_has_a_direction(shift: float, verdict: Verdict) -> None:
    found = Drift.of(SelfScores.of(normal(100, 0)), normal(100, 1, shift))
    assert found.verdict is verdict
    assert found.median_shift == pytest.approx(shift, abs=0.35)


def test_a_significant_but_small_shift_is_steady() -> None:
    found = Drift.of(SelfScores.of(normal(5_000, 0)), normal(500, 1, 0.3))
    assert found.p_value < 1e-4
    assert found.verdict is Verdict.STEADY


def test_a_few_alarms_are_no_drift() -> None:
    scores = np.concatenate([normal(90, 1), normal(10, 2, 30.0)])
    assert Drift.of(SelfScores.of(normal(100, 0)), scores).verdict is Verdict.STEADY


@pytest.mark.parametrize(("recordings", "scores"), [(MIN_RECORDINGS - 1, 500), (500, MIN_SCORES - 1), (1, 1)])
def test_few_scores_or_recordings_have_no_verdict(recordings: int, scores: int) -> None:
    assert Drift.of(SelfScores.of(normal(recordings, 0)), normal(scores, 1, 9.0)).verdict is Verdict.UNKNOWN


def test_pieces_of_a_recording_count_as_one() -> None:
    own = np.repeat(normal(12, 0), 20)
    scores = normal(60, 1, 0.9)
    pieces = Drift.of(SelfScores.of(own, np.arange(240) // 20), scores)
    assert pieces.p_value == pytest.approx(Drift.of(SelfScores.of(own[::20]), scores).p_value)
    assert pieces.p_value > 10 * Drift.of(SelfScores.of(own), scores).p_value


def test_identical_scores_give_finite_numbers() -> None:
    found = Drift.of(SelfScores.of(np.zeros(50)), np.zeros(50))
    assert (found.p_value, found.median_shift, found.verdict) == (1.0, 0.0, Verdict.STEADY)


FINITE = st.floats(-1e6, 1e6)


@settings(deadline=None)
@given(arrays.arrays(np.float64, st.integers(1, 60), elements=FINITE), arrays.arrays(np.float64, 30, elements=FINITE))
def test_any_scores_give_a_verdict(own: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
    found = Drift.of(SelfScores.of(own), scores)
    assert 0.0 <= found.p_value <= 1.0
    assert np.isfinite(found.median_shift)
    mirrored = Drift.of(SelfScores.of(-own), -scores)
    assert mirrored.p_value == pytest.approx(found.p_value)
