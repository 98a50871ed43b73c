"""Downsampled spectrograms against the plain mean of each cell."""

import numpy as np
import pytest

from service.domain.spectrogram import band_edges, downsampled


@pytest.mark.parametrize(
    ("frames", "mels", "seconds", "shape"),
    [
        (1_000, 105, 10.0, (20, 35)),
        (100, 128, 1.0, (2, 35)),
        (133, 64, 1.33, (3, 35)),
        (20, 8, 0.2, (1, 8)),
        (1, 40, 10.0, (1, 35)),
    ],
)
def test_every_cell_is_the_mean_of_its_frames_and_bands(
    frames: int, mels: int, seconds: float, shape: tuple[int, int]
) -> None:
    logmel = np.random.default_rng(0).standard_normal((frames, mels)).astype(np.float32)
    found = downsampled(logmel, seconds)
    assert found.shape == shape
    assert found.dtype == np.float32
    rows = [range(frames * step // shape[0], frames * (step + 1) // shape[0]) for step in range(shape[0])]
    columns = [range(mels * band // shape[1], mels * (band + 1) // shape[1]) for band in range(shape[1])]
    expected = [[logmel[np.ix_(row, column)].mean() for column in columns] for row in rows]
    assert found == pytest.approx(np.array(expected), abs=1e-5)


def test_bands_meet_between_the_centers_of_their_outer_mels() -> None:
    centers = np.linspace(100.0, 10_500.0, 105)
    edges = band_edges(centers)
    assert len(edges) == 36
    assert edges[:3].tolist() == [50.0, 350.0, 650.0]
    assert edges[-1] == 10_550.0
    assert band_edges(np.array([10.0, 90.0, 100.0])).tolist() == [0.0, 50.0, 95.0, 105.0]  # nothing lies below 0 Hz
