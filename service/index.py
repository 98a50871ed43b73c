"""Nearest-neighbor search behind one interface: exact, and HNSW where that is faster.

Facts about hnswlib 0.8 that shape this file: a query of another width corrupts the heap, k > n raises, NaN is
accepted, a reader beside a writer gets wrong neighbors. So an index is built once and never changed, and
shapes and values are checked before every call. Inner product on unit vectors is used, not its `cosine`.
"""

from typing import Protocol

import hnswlib
import numpy as np

from service.domain.distance import Near, Vectors, cosine_distances

HNSW_LINKS = 32  # M: more links, better recall, more memory
HNSW_BUILD_BREADTH = 200
HNSW_SEARCH_BREADTH = 256
_UNIT_TOLERANCE = 1e-3


class Index(Protocol):
    """Search over the unit vectors it was built from."""

    def search(self, queries: Vectors, k: int) -> Near:
        """Cosine distances and rows of the min(k, n) nearest, nearest first: two `(m, min(k, n))` arrays."""

    def __len__(self) -> int: ...


class ExactIndex:
    """Compares with every vector. The oracle of every other index."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = check_vectors(vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Vectors, k: int) -> Near:
        check_vectors(queries, dim=self._vectors.shape[1])
        distances = cosine_distances(queries, self._vectors)  # (m, n)
        rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return Near(np.take_along_axis(distances, rows, axis=1), rows.astype(np.int64))


class HnswIndex:
    """A navigable small-world graph: approximate, and sublinear in the number of vectors."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = check_vectors(vectors)
        count, dim = vectors.shape
        self._graph = hnswlib.Index(space="ip", dim=dim)
        self._graph.init_index(max_elements=count, M=HNSW_LINKS, ef_construction=HNSW_BUILD_BREADTH)
        # One thread: insertion order, and with it every answer, is then the same after a restart.
        self._graph.add_items(vectors, np.arange(count), num_threads=1)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Vectors, k: int) -> Near:
        check_vectors(queries, dim=self._vectors.shape[1])
        k = min(k, len(self))
        self._graph.set_ef(max(HNSW_SEARCH_BREADTH, k))
        labels, _ = self._graph.knn_query(queries, k=k, num_threads=1)
        rows = labels.astype(np.int64)
        # Distances as the exact index computes them, so that a score does not depend on who searched.
        found = self._vectors[rows]  # (m, k, dim)
        distances = np.clip(1.0 - np.einsum("md,mkd->mk", queries, found), 0.0, 2.0, dtype=np.float32)
        order = np.argsort(distances, axis=1, kind="stable")
        return Near(np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1))


def build_index(vectors: Vectors, *, exact_limit: int) -> Index:
    """Choose by size: exact up to `exact_limit` vectors, HNSW above."""
    return ExactIndex(vectors) if len(vectors) <= exact_limit else HnswIndex(vectors)


def check_vectors(vectors: Vectors, dim: int | None = None) -> Vectors:
    """Return `vectors` unchanged if they may be indexed or searched for.

    Raises:
        ValueError: they are not float32 `(count, dim)` with count >= 1, finite and of unit norm.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) == 0:
        raise ValueError(f"expected float32 vectors (count, dim), got {vectors.dtype} {vectors.shape}")
    if dim is not None and vectors.shape[1] != dim:
        raise ValueError(f"expected vectors of length {dim}, got {vectors.shape[1]}")
    norms = np.linalg.norm(vectors, axis=1)
    if not np.all(np.abs(norms - 1.0) < _UNIT_TOLERANCE):  # false for NaN too
        raise ValueError(f"expected unit vectors, got norms from {norms.min():g} to {norms.max():g}")
    return vectors
