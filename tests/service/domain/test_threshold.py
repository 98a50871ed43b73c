"""The conformal threshold, by hand and by its promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.threshold import conformal_threshold


@pytest.mark.parametrize(
    ("count", "rate", "rank", "promised"),
    [
        (19, 0.05, 19, 0.05),  # (19 + 1) * 0.95 = 19: the highest score of 19 is just enough
        (18, 0.05, 18, 1 / 19),  # too few to promise 5 %
        (99, 0.05, 95, 0.05),
        (100, 0.05, 96, 0.05),
        (9, 0.1, 9, 0.1),
        (1, 0.05, 1, 0.5),
        (20, 0.999, 1, 0.999),  # never below the lowest score
    ],
)
def test_rank_and_promise_by_hand(count: int, rate: float, rank: int, promised: float) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))  # the k-th lowest score is k
    threshold = conformal_threshold(scores, rate)
    assert threshold.value == rank
    assert threshold.promised_false_alarm_rate == pytest.approx(promised)
    assert threshold.requested_false_alarm_rate == rate
    assert threshold.clips == count


def test_realized_rate_keeps_the_promise() -> None:
    """Independent healthy scores: the share of new ones above the threshold, over many banks."""
    rng = np.random.default_rng(1)
    for count, rate in ((20, 0.05), (50, 0.1), (200, 0.01)):
        alarms = [
            np.mean(rng.standard_normal(200) > conformal_threshold(rng.standard_normal(count), rate).value)
            for _ in range(2_000)
        ]
        promised = max(rate, 1 / (count + 1))
        error = 3 * np.std(alarms) / np.sqrt(len(alarms))  # three standard errors of the mean
        assert np.mean(alarms) <= promised + error
        assert np.mean(alarms) >= promised - 1 / (count + 1) - error  # and is not needlessly deaf


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
)
def test_a_higher_rate_never_raises_the_threshold(scores: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    array = np.array(scores)
    assert conformal_threshold(array, high).value <= conformal_threshold(array, low).value
