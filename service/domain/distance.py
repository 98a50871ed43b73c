"""Cosine distances between unit embeddings, computed exactly."""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (count, dim)
Distances = NDArray[np.float32]

_BLOCK_ROWS = 1_024  # bounds the distance matrix held at once


def cosine_distances(queries: Vectors, references: Vectors) -> Distances:
    """1 - cosine, in [0, 2], of unit vectors: `(m, dim)` and `(n, dim)` give `(m, n)`."""
    distances: Distances = np.clip(1.0 - queries @ references.T, 0.0, 2.0, dtype=np.float32)
    return distances


def nearest_to_others(vectors: Vectors, recordings: NDArray[np.int64]) -> Distances:
    """Distance of each vector to the nearest vector of another recording (leave one recording out).

    Args:
        vectors: `(n, dim)`, unit norm.
        recordings: `(n,)`, the recording each vector is a window of.

    Returns:
        `(n,)`; infinite where there is no other recording.
    """
    nearest = np.full(len(vectors), np.inf, dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        distances = cosine_distances(vectors[rows], vectors)  # (block, n)
        distances[recordings[rows, None] == recordings[None, :]] = np.inf
        nearest[rows] = distances.min(axis=1)
    return nearest


def nearest_in(queries: Vectors, references: Vectors) -> Distances:
    """Distance of each query `(m, dim)` to its nearest reference `(n, dim)`: `(m,)`; infinite if n is 0."""
    nearest = np.full(len(queries), np.inf, dtype=np.float32)
    if len(references):
        for start in range(0, len(queries), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            nearest[rows] = cosine_distances(queries[rows], references).min(axis=1)
    return nearest
