"""Leave-one-out normalization, against a slow and obvious reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.domain.backends.base import TINY
from service.domain.detector import (
    RELATIVE_SIGMA_FLOOR,
    Detector,
    Scale,
    clip_score,
)
from service.domain.distance import Near, cosine_distances, nearest_to_others


def unit(rng: np.random.Generator, count: int, dim: int = 8) -> np.ndarray:
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fit(banks: dict[Domain, np.ndarray], clips: dict[Domain, np.ndarray]) -> Detector:
    return Detector.fit(banks, clips, backend="nearest")


def slow_self_scores(banks: dict[Domain, np.ndarray], clips: dict[Domain, np.ndarray]) -> dict[Domain, list[float]]:
    """Self-scores one clip and one pair at a time, from the definition."""

    def nearest(query: np.ndarray, domain: Domain, without: int | None) -> float:
        distances = [
            1.0 - float(query @ vector)
            for vector, clip in zip(banks[domain], clips[domain], strict=True)
            if clip != without
        ]
        return max(min(distances), 0.0) if distances else np.inf

    scales = {}
    for domain in banks:
        own = [nearest(v, domain, c) for v, c in zip(banks[domain], clips[domain], strict=True)]
        mu, sigma = np.mean(own), np.std(own)
        scales[domain] = (mu, max(sigma, RELATIVE_SIGMA_FLOOR * mu, TINY))
    scores: dict[Domain, dict[int, float]] = {domain: {} for domain in banks}
    for domain in banks:
        for vector, clip in zip(banks[domain], clips[domain], strict=True):
            score = min(
                (nearest(vector, other, clip if other is domain else None) - scales[other][0]) / scales[other][1]
                for other in banks
            )
            scores[domain][clip] = max(score, scores[domain].get(clip, -np.inf))
    return {domain: [scores[domain][clip] for clip in sorted(scores[domain])] for domain in scores}


def test_self_scores_equal_the_definition() -> None:
    rng = np.random.default_rng(0)
    banks = {Domain.SOURCE: unit(rng, 24), Domain.TARGET: unit(rng, 15)}
    clips = {Domain.SOURCE: np.repeat(np.arange(8), 3), Domain.TARGET: np.repeat(np.arange(8, 13), 3)}
    found, expected = fit(banks, clips).self_scores, slow_self_scores(banks, clips)
    assert found.keys() == expected.keys()
    for domain in found:
        np.testing.assert_allclose(found[domain].scores, expected[domain], rtol=1e-4, atol=1e-5)


def test_blocks_do_not_change_the_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors, clips = unit(rng, 50), np.arange(50) // 2
    whole = nearest_to_others(vectors, clips)
    monkeypatch.setattr("service.domain.distance._BLOCK_ROWS", 7)
    np.testing.assert_allclose(nearest_to_others(vectors, clips), whole, atol=1e-6)


def test_a_window_of_the_same_clip_is_not_a_neighbor() -> None:
    rng = np.random.default_rng(2)
    vectors = unit(rng, 4)
    doubled = np.concatenate([vectors, vectors])  # each clip holds the same window twice
    clips = np.tile(np.arange(4), 2)
    assert nearest_to_others(doubled, clips).min() > 0.01


def test_a_domain_of_one_clip_borrows_the_scale_of_the_other() -> None:
    rng = np.random.default_rng(3)
    banks = {Domain.SOURCE: unit(rng, 10), Domain.TARGET: unit(rng, 1)}
    detector = fit(banks, {Domain.SOURCE: np.arange(10), Domain.TARGET: np.array([10])})
    assert detector.scales[0][Domain.TARGET] == detector.scales[0][Domain.SOURCE]
    assert detector.pooled == {Domain.TARGET}
    assert {domain: scores.recordings for domain, scores in detector.self_scores.items()} == {"source": 10, "target": 1}
    assert all(np.isfinite(own.scores).all() for own in detector.self_scores.values())


@pytest.mark.parametrize(
    ("source", "target", "borrowed"),
    [(10, 5, []), (10, 4, [Domain.TARGET]), (3, 9, [Domain.SOURCE]), (3, 3, []), (3, 2, [Domain.TARGET]), (4, 0, [])],
)
def test_a_domain_of_few_clips_borrows_the_deviation_of_the_other(
    source: int, target: int, pooled: list[Domain]
) -> None:
    rng = np.random.default_rng(6)
    banks = {Domain.SOURCE: unit(rng, 2 * source), Domain.TARGET: unit(rng, 2 * target)}
    clips = {domain: np.arange(len(vectors)) // 2 for domain, vectors in banks.items()}  # of two windows each
    enrolled = [domain for domain in Domain if len(banks[domain])]
    detector = fit({d: banks[d] for d in enrolled}, {d: clips[d] for d in enrolled})
    assert detector.pooled == set(pooled)
    own = {d: Scale.fit(nearest_to_others(banks[d], clips[d]), TINY) for d in enrolled}
    for domain in enrolled:
        assert detector.scales[0][domain].mu == own[domain].mu
        lender = next(d for d in Domain if d is not domain) if domain in pooled else domain
        relative = own[lender].sigma / own[lender].mu
        assert detector.scales[0][domain].sigma == pytest.approx(relative * own[domain].mu)


@pytest.mark.parametrize("domains", [[Domain.SOURCE], [Domain.TARGET], list(Domain)])
def test_one_clip_per_domain_is_too_few(domains: list[Domain]) -> None:
    rng = np.random.default_rng(4)
    banks = {domain: unit(rng, 1) for domain in domains}
    clips = {domain: np.array([number]) for number, domain in enumerate(domains)}
    with pytest.raises(OffkeyError) as refused:
        fit(banks, clips)
    assert refused.value.kind is ErrorKind.BANK_TOO_SMALL


def test_identical_clips_give_finite_scores() -> None:
    vectors = np.repeat(unit(np.random.default_rng(5), 1), 6, axis=0)
    detector = fit({Domain.SOURCE: vectors}, {Domain.SOURCE: np.arange(6)})
    assert detector.scales[0][Domain.SOURCE].sigma == TINY
    assert np.isfinite(detector.self_scores[Domain.SOURCE].scores).all()


def test_identical_clips_have_a_deviation_to_lend() -> None:
    rng = np.random.default_rng(7)
    banks = {Domain.SOURCE: np.repeat(unit(rng, 1), 6, axis=0), Domain.TARGET: unit(rng, 2)}
    detector = fit(banks, {Domain.SOURCE: np.arange(6), Domain.TARGET: np.arange(6, 8)})
    assert np.isfinite(detector.scales[0][Domain.TARGET].sigma)
    assert all(np.isfinite(own.scores).all() for own in detector.self_scores.values())


def test_sigma_never_falls_below_its_floor() -> None:
    scale = Scale.fit(np.full(5, 0.4, dtype=np.float32), TINY)
    assert scale.sigma == pytest.approx(0.4 * RELATIVE_SIGMA_FLOOR)


def test_the_clip_score_is_its_worst_window() -> None:
    assert clip_score(np.array([-1.0, 7.5, 0.0])) == 7.5


@given(st.integers(0, 2**32 - 1), st.floats(0, 2), st.floats(0, 2))
@settings(max_examples=50)
def test_a_score_rises_with_distance(seed: int, one: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    detector = fit({Domain.SOURCE: unit(rng, 6)}, {Domain.SOURCE: np.arange(6)})
    near, far = sorted((one, other))
    found = Near(np.array([[near], [far]], dtype=np.float32), np.zeros((2, 1), dtype=np.int64))
    scores = detector.window_scores(unit(rng, 2), {Domain.SOURCE: found})
    assert scores[0] <= scores[1]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_order_of_enrollment_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng, 12)
    order = rng.permutation(12)
    straight = fit({Domain.SOURCE: vectors}, {Domain.SOURCE: np.arange(12)})
    shuffled = fit({Domain.SOURCE: vectors[order]}, {Domain.SOURCE: order})
    np.testing.assert_allclose(
        straight.self_scores[Domain.SOURCE].scores, shuffled.self_scores[Domain.SOURCE].scores, rtol=1e-4, atol=1e-4
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_cosine_distances_are_bounded_and_zero_to_themselves(seed: int) -> None:
    vectors = unit(np.random.default_rng(seed), 5)
    distances = cosine_distances(vectors, vectors)
    assert distances.min() >= 0.0
    assert distances.max() <= 2.0
    assert np.diag(distances).max() < 1e-6
