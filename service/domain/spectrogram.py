"""A coarse picture of a window: its log-mel spectrogram, averaged over cells of half a second by a few bands.

It is what a machine's bank keeps of how a window sounded over time and frequency, and all that localization sees.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Spectrogram = NDArray[np.float32]  # (steps, bands), mean log-mel of each cell

STEP_SECONDS = 0.5
MOST_BANDS = 35  # of three mels in the shipped bundle; measured beside one and seven in benchmarks/localization.py


def downsampled(logmel: NDArray[np.float32], seconds: float) -> Spectrogram:
    """Average a log-mel spectrogram `(frames, mels)` of a window that lasts `seconds`.

    Returns:
        `(steps, bands)`: a step for each half second, as equal as frames allow and at least one; at most 35 bands.
    """
    steps = min(max(1, round(seconds / STEP_SECONDS)), len(logmel))
    # As products, because those let other threads run meanwhile; numpy's sums over slices do not.
    mels = logmel.shape[1]
    over_time: NDArray[np.float32] = _averages(len(logmel), steps) @ logmel  # (steps, mels)
    cells: Spectrogram = over_time @ _averages(mels, _bands(mels)).T
    return cells


def band_edges(centers_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the bands of `coarse` meet, Hz: `(bands + 1,)`, from the centers of the mel bands, `(mels,)` increasing."""
    middles = (centers_hz[1:] + centers_hz[:-1]) / 2
    first, last = 2 * centers_hz[0] - middles[0], 2 * centers_hz[-1] - middles[-1]
    meet = np.concatenate([[max(first, 0.0)], middles, [last]])  # (mels + 1,)
    hertz: NDArray[np.float64] = meet[_edges(len(centers_hz), _bands(len(centers_hz)))]
    return hertz


@lru_cache(maxsize=64)
def _averages(count: int, parts: int) -> NDArray[np.float32]:
    """The matrix `(parts, count)` that averages each of the parts that `_edges` cuts."""
    edges = _edges(count, parts)
    at = np.arange(count)
    within = (at >= edges[:-1, None]) & (at < edges[1:, None])  # (parts, count)
    return (within / np.diff(edges)[:, None]).astype(np.float32)


def _bands(mels: int) -> int:
    return min(MOST_BANDS, mels)


def _edges(count: int, parts: int) -> NDArray[np.int64]:
    """Where `count` things are cut into `parts` of nearly equal number: `(parts + 1,)`."""
    return np.arange(parts + 1, dtype=np.int64) * count // parts
