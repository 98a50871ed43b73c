"""The conformal threshold, by hand and by its promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offkey.vocabulary import MIN_FALSE_ALARM_RATE, Domain
from service.domain.detector import Detector
from service.domain.distance import nearest_rows
from service.domain.self_scores import SelfScores
from service.domain.threshold import conformal_threshold, gamma_threshold, guard_bound, manual_threshold, p_value

SOURCE, TARGET = Domain.SOURCE, Domain.TARGET
ONE = SelfScores.of(np.array([1e6]))


@pytest.mark.parametrize(
    ("count", "rate", "rank", "promised", "missing"),
    [
        (19, 0.05, 19, 0.05, 0),  # (19 + 1) * 0.95 = 19: the highest score of 19 is just enough
        (18, 0.05, 18, 1 / 19, 1),  # too few to promise 5 %
        (99, 0.05, 95, 0.05, 0),
        (100, 0.05, 96, 0.05, 0),
        (9, 0.1, 9, 0.1, 0),
        (5, 0.1, 5, 1 / 6, 4),
        (2, 0.05, 2, 1 / 3, 17),
        (20, 0.999, 1, 0.999, 0),  # never below the lowest score
    ],
)
def test_rank_and_promise_by_hand(count: int, rate: float, rank: int, promised: float, missing: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))  # the k-th lowest score is k
    threshold = conformal_threshold({SOURCE: SelfScores.of(scores)}, rate)
    assert threshold.value == rank
    assert threshold.requested_false_alarm_rate == rate
    assert threshold.promised_false_alarm_rate == pytest.approx(promised)
    promise = threshold.promises[SOURCE]
    assert (promise.recordings, promise.missing_recordings) == (count, missing)


def test_each_domain_has_its_threshold_and_a_clip_above_the_larger_one_is_anomalous() -> None:
    low, high = np.arange(1.0, 21.0), np.arange(101.0, 106.0)
    for source, target in ((low, high), (high, low)):
        threshold = conformal_threshold({SOURCE: SelfScores.of(source), TARGET: SelfScores.of(target)}, 0.1)
        assert list(threshold.values.values()) == ([19.0, 105.0] if source is low else [105.0, 19.0])
        assert threshold.value == 105.0
        assert threshold.promised_false_alarm_rate == pytest.approx(1 / 6)
        assert threshold.promises[SOURCE if source is low else TARGET].false_alarm_rate == 0.1


def test_a_single_clip_promises_nothing_and_moves_nothing() -> None:
    threshold = conformal_threshold({SOURCE: SelfScores.of(np.arange(1.0, 21.0)), TARGET: ONE}, 0.1)
    assert threshold.value == 19.0
    assert threshold.promises[SOURCE].false_alarm_rate == 0.1
    assert threshold.promises[TARGET].false_alarm_rate == 1.0
    assert threshold.promises[TARGET].missing_recordings == 8
    assert threshold.promised_false_alarm_rate == 1.0


def test_realized_rate_keeps_the_promise() -> None:
    """Independent healthy scores: the share of new ones above the threshold, over many banks."""
    rng = np.random.default_rng(1)
    for count, rate in ((20, 0.05), (50, 0.1), (200, 0.01)):
        alarms = [
            np.mean(rng.standard_normal(200) > conformal_threshold({SOURCE: enrolled}, rate).value)
            for enrolled in (SelfScores.of(rng.standard_normal(count)) for _ in range(2_000))
        ]
        promised = max(rate, 1 / (count + 1))
        error = 3 * np.std(alarms) / np.sqrt(len(alarms))  # three standard errors of the mean
        assert np.mean(alarms) <= promised + error
        assert np.mean(alarms) >= promised - 1 / (count + 1) - error  # and is not needlessly deaf


@pytest.mark.parametrize(
    ("apart", "spread"), [(1.0, 0.3), (1.0, 0.5), (0.3, 0.3)], ids=["far", "far-and-wider", "near"]
)
@pytest.mark.parametrize(("source", "target"), [(20, 0), (20, 1), (20, 2), (20, 5), (20, 10), (50, 10)])
def test_the_promise_holds_for_the_clips_of_either_domain(
    source: int, target: int, apart: float, spread: float
) -> None:
    """From embeddings to decision, on Gaussian clips whose domain the detector does not get."""
    rng = np.random.default_rng(2)
    trials, fresh, dim, rate = 600, 20, 8, 0.1
    centers = rng.standard_normal((2, dim))
    centers[1] = centers[0] + apart * (centers[1] - centers[0])
    numbers = {SOURCE: source, TARGET: target}
    enrolled = [domain for domain in Domain if numbers[domain]]

    def draw(domain: Domain, count: int) -> np.ndarray:
        deviation = 0.3 if domain is SOURCE else spread
        vectors = centers[enrolled.index(domain)] + deviation * rng.standard_normal((count, dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    alarms: dict[Domain, list[float]] = {domain: [] for domain in enrolled}
    for _ in range(trials):
        banks = {domain: draw(domain, numbers[domain]) for domain in enrolled}
        detector = Detector.fit(banks, {domain: np.arange(numbers[domain]) for domain in enrolled})
        threshold = conformal_threshold(detector.self_scores, rate)
        for domain in enrolled:
            queries = draw(domain, fresh)
            near = {other: nearest_rows(queries, banks[other], detector.neighbors) for other in enrolled}
            found = detector.window_scores(queries, near)
            above = [scores > threshold.values[other] for other, scores in found.items()]
            alarms[domain].append(float(np.mean(np.all(above, axis=0))))
    for domain in enrolled:
        promised = threshold.promises[domain].false_alarm_rate
        assert promised == {1: 1.0}.get(numbers[domain], max(rate, 1 / (numbers[domain] + 1)))
        error = 3 * np.std(alarms[domain]) / np.sqrt(trials)
        assert np.mean(alarms[domain]) <= promised + error, domain
    # The threshold is not higher than necessary: a single domain is within a rank of the requested rate.
    if target < 2:
        assert np.mean(alarms[SOURCE]) >= rate - 2 / (source + 1)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60),
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
)
def test_a_higher_rate_never_raises_the_threshold(scores: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    banks = {SOURCE: SelfScores.of(np.array(scores)), TARGET: SelfScores.of(np.array(scores[:3]))}
    assert conformal_threshold(banks, high).value <= conformal_threshold(banks, low).value


@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=60),
    st.lists(st.floats(-100, 100), max_size=20),
    st.tuples(st.floats(-110, 110), st.floats(-110, 110)),
    st.floats(0.001, 0.999),
)
def test_a_clip_is_anomalous_where_its_p_value_is_at_most_the_promised_rate(
    source: list[float], target: list[float], clip: tuple[float, float], rate: float
) -> None:
    banks = {d: SelfScores.of(np.array(s)) for d, s in ((SOURCE, source), (TARGET, target)) if s}
    of_clip = dict(zip(banks, clip, strict=False))
    threshold = conformal_threshold(banks, rate)
    slack = 1e-9
    for domain, scores in banks.items():
        if scores.recordings > 1:
            alone = {domain: scores}
            promised = max(rate, 1 / (scores.recordings + 1))
            own = conformal_threshold(alone, rate).value
            assert (of_clip[domain] > own) == (p_value(alone, of_clip) <= promised + slack)
            assert threshold.values[domain] == own
        else:
            assert threshold.values[domain] == conformal_threshold({SOURCE: banks[SOURCE]}, rate).value
    alarms = [score > threshold.values[domain] for domain, score in of_clip.items()]
    assert (min(of_clip.values()) > threshold.of_clip(of_clip)) == all(alarms)


def test_p_values_by_hand() -> None:
    banks = {SOURCE: SelfScores.of(np.arange(1.0, 10.0)), TARGET: SelfScores.of(np.array([5.0, 6.0]))}
    above, tied = {SOURCE: 9.5, TARGET: 9.5}, {SOURCE: 9.0, TARGET: 9.0}
    assert p_value({SOURCE: banks[SOURCE]}, above) == 1 / 10
    assert p_value({SOURCE: banks[SOURCE]}, tied) == 2 / 10  # a tie counts as as high
    assert p_value(banks, above) == 1 / 3
    assert p_value({SOURCE: banks[SOURCE], TARGET: ONE}, above) == 1 / 10


def test_rules_without_a_promise_count_what_is_above_them() -> None:
    banks = {SOURCE: SelfScores.of(np.arange(1.0, 21.0)), TARGET: SelfScores.of(np.array([30.0]))}
    manual = manual_threshold(banks, 15.5)
    assert (manual.value, manual.requested_false_alarm_rate, manual.promised_false_alarm_rate) == (15.5, None, 1.0)
    assert (manual.promises[SOURCE].above, manual.promises[TARGET].above) == (5, 1)
    gamma = gamma_threshold(banks, 0.1)
    assert (gamma.requested_false_alarm_rate, gamma.promised_false_alarm_rate) == (0.1, 1.0)
    assert 15 < gamma.value < 30


def test_pieces_of_one_recording_do_not_count_as_independent_clips() -> None:
    """Ten pieces each of 20 recordings, as close to each other as pieces are; a new clip is of a new recording."""
    rng = np.random.default_rng(3)
    trials, recordings, pieces, rate = 300, 20, 10, 0.1
    realized: dict[str, list[float]] = {"as recordings": [], "as clips": []}
    numbers = np.repeat(np.arange(recordings), pieces)

    def unit(centers: np.ndarray) -> np.ndarray:
        vectors = centers + 0.1 * rng.standard_normal(centers.shape)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    for _ in range(trials):
        center = rng.standard_normal(8)
        bank = unit(np.repeat(center + 0.4 * rng.standard_normal((recordings, 8)), pieces, axis=0))
        queries = unit(center + 0.4 * rng.standard_normal((20, 8)))
        for name, groups in (("as recordings", numbers), ("as clips", np.arange(len(numbers)))):
            detector = Detector.fit({SOURCE: bank}, {SOURCE: np.arange(len(bank))}, {SOURCE: groups})
            near = {SOURCE: nearest_rows(queries, bank, detector.neighbors)}
            scores = detector.window_scores(queries, near)[SOURCE]
            realized[name].append(np.mean(scores > conformal_threshold(detector.self_scores, rate).value))
    error = 3 * np.std(realized["as recordings"]) / np.sqrt(trials)
    assert rate - 1 / (recordings + 1) - error <= np.mean(realized["as recordings"]) <= rate + error
    assert np.mean(realized["as clips"]) > 3 * rate


def test_pieces_share_the_vote_of_their_recording() -> None:
    scores = SelfScores.of(np.array([1.0, 5.0, 2.0, 3.0, 4.0]), np.array([7, 7, 8, 9, 9]))
    assert scores.recordings == 3
    assert scores.weights.tolist() == [0.5, 0.5, 1.0, 0.5, 0.5]
    assert scores.at_least(4.0) == 1.0  # half of the first recording, half of the third
    assert [scores.quantile(n) for n in (0.5, 1.5, 2.0, 2.1, 2.5, 3.0, 9.0)] == [1.0, 2.0, 3.0, 4.0, 4.0, 5.0, 5.0]


def test_the_guard_is_as_far_above_the_highest_as_that_is_above_the_median() -> None:
    scores = SelfScores.of(np.array([1.0, 2.0, 3.0, 4.0, 10.0]))
    assert guard_bound(scores, 10.0) == 17.0
    assert guard_bound(scores, 99.0) == 99.0


@pytest.mark.parametrize("rate", [MIN_FALSE_ALARM_RATE, 1 - 1e-12])
def test_extreme_rates_give_an_answer(rate: float) -> None:
    scores = {SOURCE: SelfScores.of(np.arange(1.0, 21.0))}
    assert 1.0 <= conformal_threshold(scores, rate).value <= 20.0
    assert np.isfinite(gamma_threshold(scores, rate).value)
