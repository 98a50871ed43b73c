"""Downsampled spectrograms: log-mel spectrograms averaged over cells of half a second by a few mel bands.

A bank stores one for each enrolled window. Localization compares windows by them.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Spectrogram = NDArray[np.float32]  # (steps, bands), mean log-mel of each cell

STEP_SECONDS = 0.5
MOST_BANDS = 35  # three mels each with the shipped bundle; benchmarks/localization.py compares one, three and seven


def downsampled(logmel: NDArray[np.float32], seconds: float) -> Spectrogram:
    """Average the log-mel spectrogram `(frames, mels)` of a window that lasts `seconds`.

    Returns:
        Cells `(steps, bands)`: one step per half second, at least one and as equal as frames allow; at most 35 bands.
    """
    steps = min(max(1, round(seconds / STEP_SECONDS)), len(logmel))
    # Matrix products release the interpreter lock; numpy's sums over slices do not.
    mels = logmel.shape[1]
    over_time: NDArray[np.float32] = averages(len(logmel), steps) @ logmel  # (steps, mels)
    cells: Spectrogram = over_time @ averages(mels, _bands(mels)).T
    return cells


def band_edges(centers_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the edges of the bands `(bands + 1,)`, Hz, from the increasing centers of the mel bands `(mels,)`."""
    middles = (centers_hz[1:] + centers_hz[:-1]) / 2
    first, last = 2 * centers_hz[0] - middles[0], 2 * centers_hz[-1] - middles[-1]
    meet = np.concatenate([[max(first, 0.0)], middles, [last]])  # (mels + 1,)
    hertz: NDArray[np.float64] = meet[_edges(len(centers_hz), _bands(len(centers_hz)))]
    return hertz


@lru_cache(maxsize=64)
def averages(count: int, parts: int) -> NDArray[np.float32]:
    """Return the matrix `(parts, count)` that averages `count` items in `parts` of nearly equal size."""
    edges = _edges(count, parts)
    at = np.arange(count)
    within = (at >= edges[:-1, None]) & (at < edges[1:, None])  # (parts, count)
    return (within / np.diff(edges)[:, None]).astype(np.float32)


def _bands(mels: int) -> int:
    return min(MOST_BANDS, mels)


def _edges(count: int, parts: int) -> NDArray[np.int64]:
    """Return the edges `(parts + 1,)` that split `count` items into `parts` of nearly equal size."""
    return np.arange(parts + 1, dtype=np.int64) * count // parts
