"""Intervals: recordings are drawn whole, nothing is understated, and what is paired stays paired."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from offkey.vocabulary import Domain
from training.evaluation.bootstrap import Interval, clip_weights, seed_weights
from training.evaluation.tree import JudgedClip, JudgedMachine, read_tree
from training.metrics import auc


def machine(name: str, recordings: int, clips: int) -> JudgedMachine:
    """`recordings` normal and as many anomalous ones, each of `clips` clips."""
    test = tuple(
        JudgedClip(Path(f"{anomalous}{recording}{clip}"), Domain.SOURCE, anomalous, f"{anomalous} {recording}")
        for anomalous in (False, True)
        for recording in range(recordings)
        for clip in range(clips)
    )
    return JudgedMachine(name, (), test)


def test_the_first_replicate_is_the_data() -> None:
    assert (clip_weights(machine("a", 3, 2), 50)[0] == 1).all()
    assert seed_weights(4, 50)[0].tolist() == [0.25] * 4
    assert np.allclose(seed_weights(4, 50).sum(axis=1), 1)


def test_clips_of_a_recording_come_and_go_together(tree: Path) -> None:
    fan = read_tree(tree)[0]
    weights = clip_weights(fan, 200)
    for recording in {clip.recording for clip in fan.test}:
        places = [n for n, clip in enumerate(fan.test) if clip.recording == recording]
        assert len(places) == 2
        assert (weights[:, places[0]] == weights[:, places[1]]).all()
    for anomalous in (False, True):
        for domain in Domain:  # every domain and condition is there in every replicate
            places = [n for n, c in enumerate(fan.test) if c.anomalous == anomalous and c.domain is domain]
            assert (weights[1:, places].sum(axis=1) == 2).all()  # one recording of two


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_variance_of_a_mean_is_not_understated(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    weights = seed_weights(count, 40_000)
    assert np.var((weights @ values)[1:]) == pytest.approx(np.var(values, ddof=1) / count, rel=0.05)


def test_intervals_cover_where_clips_of_a_recording_resemble_each_other() -> None:
    """500 made-up tests whose true area is known: drawing clips instead of recordings would cover in half of them."""
    own, spread, shift, recordings, clips = 0.5, 1.0, 1.5, 8, 6
    rng = np.random.default_rng(0)
    # Of a pair from two recordings: P(N(shift, 2 (own^2 + spread^2)) > 0).
    draws = rng.normal(shift, np.sqrt(2 * (own**2 + spread**2)), 1_000_000)
    truth = float((draws > 0).mean())
    covered = 0
    for number in range(500):
        judged = machine(f"machine {number}", recordings, clips)
        weights = clip_weights(judged, 300)
        level = np.repeat(rng.normal(0, spread, 2 * recordings), clips)
        scores = level + rng.normal(0, own, len(level)) + shift * judged.anomalous
        found = Interval.of(auc(scores, ~judged.anomalous, judged.anomalous, weights))
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / 500 <= 0.99


def test_one_recording_or_seed_stands_as_it_is() -> None:
    assert (clip_weights(machine("a", 1, 3), 20) == 1).all()
    assert (seed_weights(1, 20) == 1).all()


def test_training_seeds_of_groups_are_drawn_apart() -> None:
    drawn = [seed_weights(5, 50), seed_weights(5, 50, "retain"), seed_weights(5, 50, "denoise")]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(drawn, 2))
    assert np.array_equal(seed_weights(5, 50, "retain"), drawn[1])
