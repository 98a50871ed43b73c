"""The coreset: whole clips, every recording first, whatever the order of enrollment; and honest thresholds with it."""

import numpy as np
import pytest

from offkey.vocabulary import Domain
from service.domain.coreset import coreset
from service.domain.detector import Detector
from service.domain.distance import Vectors, nearest_rows
from service.domain.threshold import conformal_threshold


def unit(rng: np.random.Generator, count: int, dim: int = 8) -> Vectors:
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def test_a_bank_that_fits_is_kept_whole() -> None:
    vectors, clips = unit(np.random.default_rng(0), 5), np.arange(5)
    assert coreset(vectors, clips, clips, 5).tolist() == [0, 1, 2, 3, 4]
    assert len(coreset(vectors, clips, clips, 4)) == 4


def test_clips_are_kept_whole_and_each_recording_before_the_second_clip_of_another() -> None:
    clips = np.repeat(np.arange(12), 3)  # of three windows each
    recordings = np.array([0] * 9 + [100, 101, 102])[clips]  # nine clips of one recording, three of their own
    vectors = unit(np.random.default_rng(1), len(clips))
    for most, kept, left in ((12, 4, 4), (17, 5, 4), (18, 6, 4), (35, 11, 4)):
        rows = coreset(vectors, clips, recordings, most)
        assert rows.tolist() == sorted(rows.tolist())
        assert set(np.bincount(clips[rows])) <= {0, 3}
        assert (len(np.unique(clips[rows])), len(np.unique(recordings[rows]))) == (kept, left)


def test_the_order_of_enrollment_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    vectors, clips = unit(rng, 40), np.repeat(np.arange(20), 2)
    chosen = {vector.tobytes() for vector in vectors[coreset(vectors, clips, clips // 3, 10)]}
    for _ in range(5):
        order = rng.permutation(20)  # of clips, with other ids
        rows = np.stack([2 * order, 2 * order + 1], axis=1).ravel()
        again = coreset(vectors[rows], clips, clips[rows] // 3, 10)
        assert {vector.tobytes() for vector in vectors[rows][again]} == chosen


def test_one_clip_more_moves_one_clip_at_most() -> None:
    vectors, clips = unit(np.random.default_rng(3), 101), np.arange(101)
    before, after = (set(coreset(vectors[:count], clips[:count], clips[:count], 30)) for count in (100, 101))
    assert len(before) == len(after) == 30
    assert len(before - after) <= 1


def test_two_recordings_stay_even_where_they_do_not_fit() -> None:
    clips = np.repeat(np.arange(4), 50)
    rows = coreset(unit(np.random.default_rng(4), 200), clips, clips, 60)
    assert len(np.unique(clips[rows])) == 2


@pytest.mark.parametrize("backend", ["mahalanobis", "nearest"])
def test_healthy_clips_raise_no_more_alarms_than_promised(backend: str) -> None:
    """Clips of three windows: a self-score over fewer windows than a new clip has would be too low."""
    rate, alarms, windows = 0.1, [], 3
    for seed in range(60):
        rng = np.random.default_rng(seed)
        center = 2.0 * rng.standard_normal(16)
        found = center + np.repeat(rng.standard_normal((250, 16)), windows, axis=0)
        found += 0.5 * rng.standard_normal(found.shape)
        found = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
        vectors, new = found[: 200 * windows], found[200 * windows :]
        clips = np.repeat(np.arange(200), windows)
        at = coreset(vectors, clips, clips, 40 * windows)
        bank, own = {Domain.SOURCE: vectors[at]}, {Domain.SOURCE: clips[at]}
        detector = Detector.fit(bank, own, own, backend)
        near = {Domain.SOURCE: nearest_rows(new, vectors[at], max(1, detector.neighbors))}
        scores = detector.window_scores(new, near)[Domain.SOURCE].reshape(-1, windows).max(axis=1)
        alarms.append(np.mean(scores > conformal_threshold(detector.self_scores, rate).value))
    assert 0.06 < np.mean(alarms) < 0.115
