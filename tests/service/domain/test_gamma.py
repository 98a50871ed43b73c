"""The gamma quantile against SciPy's, and where there is nothing to fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.domain.gamma import MAX_SKEWNESS, gamma_quantile

WITH_SKEW = np.random.default_rng(0).gamma(3.0, 2.0, 400)


@pytest.mark.parametrize("quantile", [0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scores", [WITH_SKEW, -WITH_SKEW, WITH_SKEW - 50, np.log(WITH_SKEW), WITH_SKEW**3])
def test_it_is_the_quantile_of_the_distribution_with_these_moments(scores: np.ndarray, quantile: float) -> None:
    skewness = min(max(float(stats.skew(scores)), 0.0), MAX_SKEWNESS)
    expected = stats.pearson3.ppf(quantile, skewness, scores.mean(), scores.std())
    assert gamma_quantile(scores, quantile) == pytest.approx(expected, abs=2e-4 * scores.std())


def test_identical_scores_have_one_quantile() -> None:
    assert gamma_quantile(np.full(7, 3.5), 0.9) == pytest.approx(3.5)
    assert gamma_quantile(np.array([2.0]), 0.9) == 2.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.01, 0.98))
def test_it_is_finite_and_rises_with_the_quantile(scores: list[float], quantile: float) -> None:
    low, high = (gamma_quantile(np.array(scores), q) for q in (quantile, quantile + 0.01))
    assert np.isfinite(low)
    assert low <= high
