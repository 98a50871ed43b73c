"""Which of a domain's clips stand for all of them, where there are more than are to be compared with.

Whole clips are taken, chosen as if by lot: a threshold holds for a new clip because enrolled clips are like it, and of
those that were chosen for being far apart (greedy k-center) this is no longer true. Measured: benchmarks/coreset.py.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from service.domain.distance import Vectors

_LEAST_RECORDINGS = 2  # nothing can be calibrated with fewer


def coreset(vectors: Vectors, clips: NDArray[np.int64], recordings: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Choose clips of a domain, of at most so many windows together.

    In rounds: first one clip of each recording, then a second one of each, as long as there is room. The lot is the
    content of the clips, so that neither the order of enrollment nor chance has a say; a clip more or less changes
    little of the choice.

    Args:
        vectors: `(n, dim)`, the domain's windows.
        clips: `(n,)`, the clip of each.
        recordings: `(n,)`, the recording that its clip was cut from.
        most: windows. It is exceeded only where the first clips of two recordings do not fit.

    Returns:
        The rows that are kept, increasing; all of them where they are no more than `most`.
    """
    if len(vectors) <= most:
        return np.arange(len(vectors))
    _, clip = np.unique(clips, return_inverse=True)
    rows = np.split(np.argsort(clip, kind="stable"), np.cumsum(np.bincount(clip))[:-1])  # of each clip
    lots = [blake2b(np.ascontiguousarray(vectors[own]).tobytes(), digest_size=16).digest() for own in rows]
    order: list[tuple[int, bytes, int]] = []  # round, lot, clip
    rounds: dict[int, int] = {}
    for number in sorted(range(len(rows)), key=lots.__getitem__):
        recording = int(recordings[rows[number][0]])
        rounds[recording] = rounds.get(recording, -1) + 1
        order.append((rounds[recording], lots[number], number))
    order.sort()
    together = np.cumsum([len(rows[number]) for _, _, number in order])
    count = max(int(np.searchsorted(together, most, side="right")), _LEAST_RECORDINGS)
    return np.sort(np.concatenate([rows[number] for _, _, number in order[:count]]))
