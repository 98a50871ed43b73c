"""Coreset: a sample of a domain's clips, for banks that are too large to compare with as a whole.

Whole clips are sampled at random. A threshold holds for a new clip because the new clip is exchangeable with the
enrolled ones. Clips chosen to be far apart (greedy k-center) are not. benchmarks/coreset.py measures the difference.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from service.domain.distance import Vectors

_LEAST_RECORDINGS = 2  # minimum for a calibration


def coreset(vectors: Vectors, clips: NDArray[np.int64], recordings: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Sample clips of a domain up to a total number of windows. Returns the rows of their windows.

    Sampling goes in rounds: one clip of each recording, then a second one of each, as long as there is room. Clips are
    ordered by a hash of their content, so the sample does not depend on the order of enrollment, and one more or one
    fewer clip changes little of it.

    Args:
        vectors: enrolled windows of the domain, `(n, dim)`.
        clips: clip number of each window, `(n,)`.
        recordings: recording number of each window, `(n,)`.
        most: largest number of windows. It is exceeded only if the first clips of two recordings have more.

    Returns:
        Kept rows in increasing order; all rows if there are no more than `most`.
    """
    if len(vectors) <= most:
        return np.arange(len(vectors))
    _, clip = np.unique(clips, return_inverse=True)
    rows = np.split(np.argsort(clip, kind="stable"), np.cumsum(np.bincount(clip))[:-1])  # rows of each clip
    hashes = [blake2b(np.ascontiguousarray(vectors[own]).tobytes(), digest_size=16).digest() for own in rows]
    order: list[tuple[int, bytes, int]] = []  # round, hash, clip
    rounds: dict[int, int] = {}
    for number in sorted(range(len(rows)), key=hashes.__getitem__):
        recording = int(recordings[rows[number][0]])
        rounds[recording] = rounds.get(recording, -1) + 1
        order.append((rounds[recording], hashes[number], number))
    order.sort()
    together = np.cumsum([len(rows[number]) for _, _, number in order])
    count = max(int(np.searchsorted(together, most, side="right")), _LEAST_RECORDINGS)
    return np.sort(np.concatenate([rows[number] for _, _, number in order[:count]]))
