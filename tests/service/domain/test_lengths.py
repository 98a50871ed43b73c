"""Lengths: the pieces that a clip is compared with, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.enrolled import Cuts, Details
from service.domain.lengths import CUT_SECONDS, TOLERANCE, LengthCurves, in_blocks, window_seconds

CLIPS = np.array([3, 3, 5, 8])  # clip 3 has two windows
ENDS = np.array([10.0, 16.0, 10.0, 6.0])
CUT_CLIPS = np.array([3, 5, 3, 5, 5])
CUT_LENGTHS = np.array([4.0, 4.0, 2.0, 1.0, 2.0])
# One view has 10 times the values of the other.
OF_CUTS = np.array([5.0, 6.0, 9.0, 20.0, 8.0])
OF_WINDOWS = np.array([1.0, 3.0, 2.0, 4.0])


@pytest.fixture
def curves() -> LengthCurves:
    vectors = np.zeros((5, 2), np.float32)
    details = Details(ENDS, (), Cuts(vectors, CUT_CLIPS, CUT_CLIPS, CUT_LENGTHS, ()))
    return LengthCurves.of(CLIPS, [OF_WINDOWS, 10 * OF_WINDOWS], [OF_CUTS, 10 * OF_CUTS], details)


def test_pieces_are_in_order_of_their_length(curves: LengthCurves) -> None:
    nan = np.nan
    np.testing.assert_array_equal(curves.lengths, [[2.0, 4.0, 10.0, 16.0], [1.0, 2.0, 4.0, 10.0], [nan, nan, nan, 6.0]])
    one = [[9.0, 5.0, 1.0, 3.0], [20.0, 8.0, 6.0, 2.0], [nan, nan, nan, 4.0]]
    np.testing.assert_array_equal(curves.values, [one, 10 * np.array(one)])
    np.testing.assert_array_equal(curves.whole, [[3.0, 2.0, 4.0], [30.0, 20.0, 40.0]])
    assert (curves.longest, curves.windows) == (16.0, 1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (2.0, [9.0, 8.0, np.nan]),
        (4.0, [5.0, 6.0, np.nan]),
        (10.0, [1.0, 2.0, 4.0]),
        (16.0, [3.0, 2.0, 4.0]),
        (60.0, [3.0, 2.0, 4.0]),
    ],
)
def test_the_piece_of_exactly_a_length_is_compared_with(
    curves: LengthCurves, seconds: float, expected: list[float]
) -> None:
    np.testing.assert_allclose(curves.at(seconds), [expected, 10 * np.array(expected)])


def test_clips_without_pieces_as_short_are_left_out(curves: LengthCurves) -> None:
    np.testing.assert_allclose(curves.at(1.0)[0], [np.nan, 20.0, np.nan])
    assert np.isnan(curves.at(TOLERANCE * 2.0 - 0.01)[0]).tolist() == [True, False, True]
    assert np.isnan(curves.at(TOLERANCE * 2.0 + 0.01)[0]).tolist() == [False, False, True]
    assert np.isnan(curves.at(0.5)).all()
    assert np.isnan(curves.at(0.0)).all()


def test_a_clip_that_is_nearly_as_long_counts_as_whole(curves: LengthCurves) -> None:
    np.testing.assert_allclose(curves.at(TOLERANCE * 16.0 + 0.01)[0], [3.0, 2.0, 4.0])
    np.testing.assert_allclose(curves.at(TOLERANCE * 6.0 + 0.01)[0, 2], 4.0)


def test_between_two_lengths_the_shorter_piece_is_moved_by_the_mean_difference() -> None:
    clips = np.array([1, 2])
    cuts = Cuts(np.zeros((2, 2), np.float32), clips, clips, np.array([2.0, 2.0]), ())
    details = Details(np.array([8.0, 8.0]), (), cuts)
    curves = LengthCurves.of(clips, [np.array([5.0, 6.0])], [np.array([9.0, 8.0])], details)
    mean = ((5.0 - 9.0) + (6.0 - 8.0)) / 2
    np.testing.assert_allclose(curves.at(4.0), [[9.0 + mean / 2, 8.0 + mean / 2]])  # halfway in logarithms
    np.testing.assert_allclose(curves.at(2.0), [[9.0, 8.0]])
    np.testing.assert_allclose(curves.at(1.9), [[9.0, 8.0]])


def test_unknown_durations_leave_one_piece_of_any_length() -> None:
    curves = LengthCurves.of(CLIPS, [OF_WINDOWS], [], None)
    assert (curves.longest, curves.lengths.shape) == (0.0, (3, 1))
    for seconds in (0.1, 10.0):
        np.testing.assert_array_equal(curves.at(seconds), [[3.0, 2.0, 4.0]])


def test_long_clips_are_also_shortened_to_their_first_windows() -> None:
    clips, ends = np.zeros(5, np.int64), np.arange(10.0, 60.0, 10.0)
    curves = LengthCurves.of(clips, [np.array([2.0, 1.0, 5.0, 4.0, 9.0])], [], Details(ends))
    assert curves.lengths.tolist() == [[10.0, 20.0, 40.0, 50.0]]
    assert curves.values.tolist() == [[[2.0, 2.0, 5.0, 9.0]]]
    assert curves.windows == 5


def test_scores_in_blocks_by_hand() -> None:
    scores = np.array([1.0, 7.0, 3.0, 4.0, 2.0])
    assert in_blocks(scores, 5) == in_blocks(scores, 9) == 7.0
    assert in_blocks(scores, 1) == scores.mean()
    assert in_blocks(scores, 2) == (7.0 + 4.0 + 2.0) / 3  # blocks of 2, 2 and 1
    assert in_blocks(scores, 3) == (7.0 + 4.0) / 2  # blocks of 3 and 2
    np.testing.assert_array_equal(in_blocks(np.stack([scores, 2 * scores]), 3), [5.5, 11.0])


@pytest.mark.parametrize(
    ("seconds", "longest", "expected"),
    [
        (5.0, 10.0, 4.0),  # too short: cut to pieces as long as those that were enrolled
        (8.9, 10.0, 8.0),
        (10.0, 1.0, 1.0),  # much longer than enrolled clips
        (9.5, 10.0, 0.0),
        (60.0, 10.0, 0.0),
        (60.0, 25.0, 0.0),
        (4.0, 4.0, 0.0),
        (3.0, 60.0, 3.0),
        (0.5, 10.0, 0.0),  # shorter than anything
        (5.0, 0.0, 0.0),  # durations are unknown
    ],
)
def test_windows_by_hand(seconds: float, longest: float, expected: float) -> None:
    assert window_seconds(seconds, longest, 10.0) == expected


@given(st.floats(0.05, 300.0), st.floats(0.0, 300.0), st.sampled_from([1.0, 2.0, 5.0, 10.0]))
def test_windows_are_the_bundles_own_or_as_long_as_something_enrolled(
    seconds: float, longest: float, window: float
) -> None:
    found = window_seconds(seconds, longest, window)
    assert found == 0.0 or found == longest or (found in CUT_SECONDS and found <= seconds)
    assert found <= window
    if found == longest:
        assert found <= seconds / TOLERANCE
