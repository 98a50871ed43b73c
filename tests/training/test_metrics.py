"""Metrics against scikit-learn, which the official evaluator calls, and against cases worked by hand."""

import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.metrics import auc, domain_metrics, harmonic_mean, official, pauc


def sample(seed: int, size: int = 60, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=size)
    if ties:
        scores = scores.round(1)
    anomalous = rng.random(size) < 0.4
    anomalous[:2] = [True, False]
    target = rng.random(size) < 0.5
    target[2:4], anomalous[2:4] = [True, False], [False, False]
    return scores + 0.7 * anomalous, anomalous, target


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_areas_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    scores, anomalous, target = sample(seed, ties=ties)
    found = domain_metrics(scores, anomalous, target, np.ones((1, len(scores))))
    assert found["auc"][0] == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)
    assert found["pauc"][0] == pytest.approx(roc_auc_score(anomalous, scores, max_fpr=0.1), abs=1e-12)
    for name, own in (("auc_source", ~target), ("auc_target", target)):
        kept = own | anomalous  # the evaluator's mask: the domain's normal clips, all anomalous clips
        assert found[name][0] == pytest.approx(roc_auc_score(anomalous[kept], scores[kept]), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_weights_are_clips_that_count_more_than_once(seed: int) -> None:
    scores, anomalous, target = sample(seed)
    times = np.random.default_rng(seed).integers(0, 4, len(scores))
    times[:4] = 1
    found = domain_metrics(scores, anomalous, target, np.stack([np.ones(len(scores)), times]).astype(float))
    repeated = domain_metrics(
        np.repeat(scores, times), np.repeat(anomalous, times), np.repeat(target, times), np.ones((1, times.sum()))
    )
    for name, values in found.items():
        assert values[1] == pytest.approx(repeated[name][0], abs=1e-12), name


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12), st.sampled_from([0.1, 0.3, 0.75])
)
def test_partial_area_of_any_small_set_is_that_of_scikit_learn(clips: list[tuple[int, bool]], max_fpr: float) -> None:
    scores, anomalous = np.array([float(score) for score, _ in clips]), np.array([label for _, label in clips])
    if anomalous.all() or not anomalous.any():
        return
    expected = roc_auc_score(anomalous, scores, max_fpr=max_fpr)
    assert pauc(scores, anomalous, np.ones((1, len(scores))), max_fpr)[0] == pytest.approx(expected, abs=1e-12)


def test_areas_worked_by_hand() -> None:
    def area(scores: list[float], anomalous: list[bool]) -> float:
        flags = np.array(anomalous)
        return float(auc(np.array(scores), ~flags, flags, np.ones((1, len(scores))))[0])

    assert area([0, 1, 2, 3], [False, False, True, True]) == 1.0
    assert area([0, 1, 0.5, 1], [False, False, True, True]) == (1 + 0 + 1 + 0.5) / 4
    assert area([1, 1], [False, True]) == 0.5
    assert area([3, 2], [False, True]) == 0.0
    # Ten normal clips, so that 0.1 is one false alarm: one anomaly above all of them, one below all.
    scores = np.array([*range(10), 20, -1], dtype=float)
    anomalous = np.array([False] * 10 + [True, True])
    raw = 0.5 * 0.1
    assert pauc(scores, anomalous, np.ones((1, 12)))[0] == pytest.approx(0.5 * (1 + (raw - 0.005) / (0.1 - 0.005)))


def test_the_official_score_is_a_clamped_harmonic_mean() -> None:
    assert harmonic_mean([np.array([0.5]), np.array([1.0]), np.array([0.25])])[0] == pytest.approx(3 / 7)
    assert harmonic_mean([np.array([0.0]), np.array([1.0])])[0] == pytest.approx(2 * sys.float_info.epsilon)
    machines = [
        {"auc": np.array([0.1]), "auc_source": np.array([0.9]), "auc_target": np.array([0.6]), "pauc": np.array([0.5])},
        {
            "auc": np.array([0.1]),
            "auc_source": np.array([0.8]),
            "auc_target": np.array([np.nan]),
            "pauc": np.array([0.7]),
        },
    ]
    assert official(machines)[0] == pytest.approx(5 / (1 / 0.9 + 1 / 0.6 + 1 / 0.5 + 1 / 0.8 + 1 / 0.7))


def test_an_area_without_clips_of_a_kind_is_not_made_up() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flags = np.array([True, True])
        assert np.isnan(auc(np.array([0.0, 1.0]), ~flags, flags, np.ones((1, 2)))[0])
