"""Leave-one-recording-out normalization against a slow reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Domain
from service.domain.backends import BACKENDS
from service.domain.backends.base import TINY
from service.domain.detector import (
    RELATIVE_SIGMA_FLOOR,
    Detector,
    Scale,
)
from service.domain.distance import Near, cosine_distances, nearest_to_others
from service.domain.lengths import in_blocks


def unit(rng: np.random.Generator, count: int, dim: int = 8) -> np.ndarray:
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


ByDomain = dict[Domain, np.ndarray]


def fit(banks: ByDomain, clips: ByDomain, recordings: ByDomain | None = None) -> Detector:
    return Detector.fit(banks, clips, recordings, backend="nearest")


def cut_recordings(seed: int, source: int = 8, target: int = 6, clips: int = 3) -> tuple[ByDomain, ByDomain, ByDomain]:
    """Cut recordings into clips of two windows, which are closer to each other than to any other recording.

    Returns:
        Windows, clip numbers and recording numbers by domain, in an order that is not that of the recordings.
    """
    rng = np.random.default_rng(seed)
    banks, members, recordings = {}, {}, {}
    for domain, count in ((Domain.SOURCE, source), (Domain.TARGET, target)):
        windows = np.repeat(unit(rng, count), 2 * clips, axis=0)
        windows = windows + 0.05 * rng.standard_normal(windows.shape).astype(np.float32)
        order = rng.permutation(len(windows))
        banks[domain] = (windows / np.linalg.norm(windows, axis=1, keepdims=True))[order]
        members[domain] = np.repeat(np.arange(count * clips), 2)[order]
        recordings[domain] = np.repeat(np.arange(count), 2 * clips)[order]
    return banks, members, recordings


def slow_reference(
    banks: ByDomain, clips: ByDomain, recordings: ByDomain
) -> tuple[dict[Domain, list[float]], dict[Domain, tuple[float, float]], dict[Domain, float]]:
    """Compute by the definition, one pair of windows at a time.

    Returns:
        Self-scores by clip, scales (mu, sigma) of clips, and mean distances of windows.
    """

    def nearest(query: np.ndarray, domain: Domain, without: int | None) -> float:
        distances = [
            1.0 - float(query @ vector)
            for vector, recording in zip(banks[domain], recordings[domain], strict=True)
            if recording != without
        ]
        return max(min(distances), 0.0) if distances else np.inf

    scores, scales, means = {}, {}, {}
    for domain in banks:
        own = [nearest(v, domain, r) for v, r in zip(banks[domain], recordings[domain], strict=True)]
        means[domain] = float(np.mean(own))
        farthest: dict[int, float] = {}
        for clip, distance in zip(clips[domain], own, strict=True):
            farthest[clip] = max(distance, farthest.get(clip, 0.0))
        mu, sigma = float(np.mean(list(farthest.values()))), float(np.std(list(farthest.values())))
        scales[domain] = (mu, max(sigma, RELATIVE_SIGMA_FLOOR * mu, TINY))
        scores[domain] = [(farthest[clip] - mu) / scales[domain][1] for clip in sorted(farthest)]
    return scores, scales, means


@pytest.mark.parametrize("named", [False, True], ids=["each clip is a recording", "recordings of three clips"])
def test_self_scores_and_scales_equal_the_definition(named: bool) -> None:
    banks, clips, recordings = cut_recordings(0)
    own = recordings if named else clips
    found = fit(banks, clips, recordings if named else None)
    scores, scales, means = slow_reference(banks, clips, own)
    assert found.self_scores.keys() == scores.keys()
    for domain, expected in scores.items():
        np.testing.assert_allclose(found.self_scores[domain].scores, expected, rtol=1e-3, atol=1e-4)
        (scale,) = found.whole.scales[domain]
        assert (scale.mu, scale.sigma) == pytest.approx(scales[domain], rel=1e-3)
        assert found.mean_distance[domain] == pytest.approx(means[domain], rel=1e-3)
        assert found.self_scores[domain].recordings == len(np.unique(own[domain]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clip_is_scored_without_its_whole_recording(backend: str) -> None:
    """Cutting a recording into clips changes no measure: its most anomalous clip has that of the recording."""
    banks, clips, recordings = cut_recordings(1)
    cut = Detector.fit(banks, clips, recordings, backend)
    whole = Detector.fit(banks, recordings, recordings, backend)

    def measures(detector: Detector, domain: Domain) -> np.ndarray:
        (scale,) = detector.whole.scales[domain]  # a cut recording has another one: it is that of clips
        found: np.ndarray = scale.mu + scale.sigma * detector.self_scores[domain].scores
        return found

    for domain in whole.self_scores:
        of_recordings = measures(cut, domain).reshape(-1, 3).max(axis=1)  # clips are numbered in order
        np.testing.assert_allclose(of_recordings, measures(whole, domain), rtol=1e-6)
        assert cut.mean_distance[domain] == whole.mean_distance[domain]
        np.testing.assert_allclose(cut.self_scores[domain].weights, 1 / 3)


def test_pieces_of_one_recording_are_too_few() -> None:
    banks, clips, recordings = cut_recordings(2, source=1, target=1)
    with pytest.raises(OffkeyError) as refused:
        fit(banks, clips, recordings)
    assert refused.value.kind is ErrorKind.BANK_TOO_SMALL


def test_a_domain_of_few_recordings_is_pooled_however_many_clips_it_has() -> None:
    banks, clips, recordings = cut_recordings(3, source=6, target=2, clips=5)
    assert fit(banks, clips, recordings).pooled == {Domain.TARGET}


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


def test_a_domain_of_one_clip_has_the_scale_of_the_other() -> None:
    rng = np.random.default_rng(3)
    banks = {Domain.SOURCE: unit(rng, 10), Domain.TARGET: unit(rng, 1)}
    detector = fit(banks, {Domain.SOURCE: np.arange(10), Domain.TARGET: np.array([10])})
    assert detector.whole.scales[Domain.TARGET] == detector.whole.scales[Domain.SOURCE]
    assert detector.pooled == {Domain.TARGET}
    assert {domain: scores.recordings for domain, scores in detector.self_scores.items()} == {"source": 10, "target": 1}
    assert all(np.isfinite(own.scores).all() for own in detector.self_scores.values())


@pytest.mark.parametrize(
    ("source", "target", "pooled"),
    [(10, 5, []), (10, 4, [Domain.TARGET]), (3, 9, [Domain.SOURCE]), (3, 3, []), (3, 2, [Domain.TARGET]), (4, 0, [])],
)
def test_a_domain_of_few_clips_has_the_relative_deviation_of_the_other(
    source: int, target: int, pooled: list[Domain]
) -> None:
    rng = np.random.default_rng(6)
    banks = {Domain.SOURCE: unit(rng, 2 * source), Domain.TARGET: unit(rng, 2 * target)}
    clips = {domain: np.arange(len(vectors)) // 2 for domain, vectors in banks.items()}  # of two windows each
    enrolled = [domain for domain in Domain if len(banks[domain])]
    detector = fit({d: banks[d] for d in enrolled}, {d: clips[d] for d in enrolled})
    assert detector.pooled == set(pooled)
    own = {d: Scale.fit(nearest_to_others(banks[d], clips[d]).reshape(-1, 2).max(axis=1), TINY) for d in enrolled}
    for domain in enrolled:
        (scale,) = detector.whole.scales[domain]
        assert scale.mu == own[domain].mu
        larger = next(d for d in Domain if d is not domain) if domain in pooled else domain
        relative = own[larger].sigma / own[larger].mu
        assert scale.sigma == pytest.approx(relative * own[domain].mu)


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
    assert detector.whole.scales[Domain.SOURCE][0].sigma == TINY
    assert np.isfinite(detector.self_scores[Domain.SOURCE].scores).all()


def test_identical_clips_have_a_deviation_to_pool() -> None:
    rng = np.random.default_rng(7)
    banks = {Domain.SOURCE: np.repeat(unit(rng, 1), 6, axis=0), Domain.TARGET: unit(rng, 2)}
    detector = fit(banks, {Domain.SOURCE: np.arange(6), Domain.TARGET: np.arange(6, 8)})
    assert np.isfinite(detector.whole.scales[Domain.TARGET][0].sigma)
    assert all(np.isfinite(own.scores).all() for own in detector.self_scores.values())


def test_sigma_never_falls_below_its_floor() -> None:
    scale = Scale.fit(np.full(5, 0.4, dtype=np.float32), TINY)
    assert scale.sigma == pytest.approx(0.4 * RELATIVE_SIGMA_FLOOR)


def test_the_clip_score_is_its_worst_window() -> None:
    assert in_blocks(np.array([-1.0, 7.5, 0.0]), 3) == 7.5


@given(st.integers(0, 2**32 - 1), st.floats(0, 2), st.floats(0, 2))
@settings(max_examples=50)
def test_a_score_rises_with_distance(seed: int, one: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    detector = fit({Domain.SOURCE: unit(rng, 6)}, {Domain.SOURCE: np.arange(6)})
    near, far = sorted((one, other))
    found = Near(np.array([[near], [far]], dtype=np.float32), np.zeros((2, 1), dtype=np.int64))
    scores = detector.window_scores(unit(rng, 2), {Domain.SOURCE: found})[Domain.SOURCE]
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
