"""Slices against averages by hand."""

import numpy as np
import pytest

from service.domain.slices import MAX_WIDTH, sliced

HALF = 1 / 1_024  # relative error of half precision, rounded up


def test_averages_over_half_seconds_by_hand() -> None:
    frames = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0], [9.0, 70.0]], dtype=np.float32)  # 1 s
    found = sliced(frames, 1.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[2.0, 20.0], [7.0, 60.0]])


@pytest.mark.parametrize(
    ("frames", "seconds", "steps"),
    [(100, 10.0, 20), (63, 10.0, 20), (7, 1.3, 3), (4, 0.2, 1), (1, 10.0, 1), (3, 10.0, 3), (40, 0.0, 1)],
)
def test_every_slice_is_the_mean_of_its_frames(frames: int, seconds: float, steps: int) -> None:
    output = np.random.default_rng(0).standard_normal((frames, 5)).astype(np.float32)
    found = sliced(output, seconds)
    assert found.shape == (steps, 5)
    for step in range(steps):
        own = output[frames * step // steps : frames * (step + 1) // steps]
        np.testing.assert_allclose(found[step], own.mean(axis=0), rtol=HALF, atol=1e-5)


def test_the_frequency_axis_is_kept_if_its_values_fit() -> None:
    frames = np.random.default_rng(1).standard_normal((10, 8, 32)).astype(np.float32)
    assert MAX_WIDTH == 256 == 8 * 32
    found = sliced(frames, 2.5)
    assert found.shape == (5, 256)
    np.testing.assert_allclose(found[0], frames[:2].mean(axis=0).ravel(), rtol=HALF, atol=1e-5)


def test_the_frequency_axis_is_averaged_if_its_values_do_not_fit() -> None:
    frames = np.random.default_rng(2).standard_normal((10, 8, 33)).astype(np.float32)
    found = sliced(frames, 2.5)
    assert found.shape == (5, 33)
    np.testing.assert_allclose(found[4], frames[8:].mean(axis=(0, 1)), rtol=HALF, atol=1e-5)


def test_frames_without_a_frequency_axis_stay_as_wide_as_they_are() -> None:
    assert sliced(np.ones((6, 300), np.float32), 1.0).shape == (2, 300)


def test_slices_are_the_same_after_they_were_stored() -> None:
    found = sliced(np.random.default_rng(3).standard_normal((20, 4)).astype(np.float32), 10.0)
    np.testing.assert_array_equal(found, found.astype(np.float16))
