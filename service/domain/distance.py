"""Cosine distances between unit embeddings, computed exactly."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # (count, dim)
Distances = NDArray[np.float32]
Rows = NDArray[np.int64]

_BLOCK_ROWS = 1_024  # bounds the distance matrix held at once


class Near(NamedTuple):
    """Nearest references of each query, nearest first."""

    distances: Distances  # (m, k)
    rows: Rows  # (m, k)


def cosine_distances(queries: Vectors, references: Vectors) -> Distances:
    """Compute 1 - cosine, in [0, 2], of unit vectors `(m, dim)` and `(n, dim)`. Returns `(m, n)`."""
    return from_cosines(queries @ references.T)


def from_cosines(cosines: NDArray[np.float32]) -> Distances:
    """Compute 1 - cosine, limited to [0, 2] in case the cosine was rounded to more than 1."""
    distances: Distances = np.clip(1.0 - cosines, 0.0, 2.0, dtype=np.float32)
    return distances


def nearest_to_others(vectors: Vectors, recordings: NDArray[np.int64]) -> Distances:
    """Compute the distance of each vector to the nearest vector of another recording (leave one recording out).

    Args:
        vectors: unit vectors `(n, dim)`.
        recordings: recording number of each vector, `(n,)`.

    Returns:
        Distances `(n,)`, infinite where there is no other recording.
    """
    nearest = np.full(len(vectors), np.inf, dtype=np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        distances = cosine_distances(vectors[rows], vectors)  # (block, n)
        distances[recordings[rows, None] == recordings[None, :]] = np.inf
        nearest[rows] = distances.min(axis=1)
    return nearest


def nearest_in(queries: Vectors, references: Vectors) -> Distances:
    """Compute the distance of each query `(m, dim)` to its nearest reference `(n, dim)`. Returns infinity if n is 0."""
    nearest = np.full(len(queries), np.inf, dtype=np.float32)
    if len(references):
        for start in range(0, len(queries), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            nearest[rows] = cosine_distances(queries[rows], references).min(axis=1)
    return nearest


def nearest_rows(
    queries: Vectors, references: Vectors, k: int, *, apart: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
) -> Near:
    """Find the min(k, n) nearest references `(n, dim)` of each query `(m, dim)`, n >= 1.

    Args:
        queries: unit vectors.
        references: unit vectors.
        k: number of neighbors, 1 or more.
        apart: group numbers of the queries `(m,)` and of the references `(n,)`, None without groups. A reference in the
            query's own group is infinitely far.
    """
    k = min(k, len(references))
    found = Near(np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64))
    for start in range(0, len(queries), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        distances = cosine_distances(queries[block], references)
        if apart is not None:
            distances[apart[0][block, None] == apart[1][None, :]] = np.inf
        rows = np.argpartition(distances, k - 1, axis=1)[:, :k]
        held = np.take_along_axis(distances, rows, axis=1)
        order = np.argsort(held, axis=1, kind="stable")
        found.distances[block] = np.take_along_axis(held, order, axis=1)
        found.rows[block] = np.take_along_axis(rows, order, axis=1)
    return found
