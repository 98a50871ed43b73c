"""Slices: the encoder's output averaged over half seconds, which the event view is computed from.

An embedding averages a window over 10 s, so a sound of 0.2 s changes it little. A slice holds half a second.
"""

import numpy as np
from numpy.typing import NDArray

from service.domain.spectrogram import averages

Slices = NDArray[np.float32]  # (steps, width)

STEP_SECONDS = 0.5
MAX_WIDTH = 256  # the covariance of the event view has the square of it


def sliced(frames: NDArray[np.float32], seconds: float) -> Slices:
    """Average the encoder's frames of a window that lasts `seconds`.

    Args:
        frames: `(time, dim)` or `(time, freq, dim)`. The frequency axis is kept if its values fit into `MAX_WIDTH`,
            and averaged otherwise.
        seconds: duration of the window, in seconds.

    Returns:
        Slices `(steps, width)`: one step per half second, at least one and as equal as frames allow. Values are rounded
        to half precision, in which slices are stored, so that new and stored slices are compared without a difference.
    """
    if frames.ndim > 2 and frames[0].size > MAX_WIDTH:
        frames = frames.mean(axis=1)
    rows = frames.reshape(len(frames), -1)
    steps = min(max(1, round(seconds / STEP_SECONDS)), len(rows))
    # A matrix product releases the interpreter lock; numpy's sums over slices do not.
    found: Slices = (averages(len(rows), steps) @ rows).astype(np.float16).astype(np.float32)
    return found
