"""Nearest-neighbor search with one interface: exact search, and HNSW where that is faster.

Facts about hnswlib 0.8 that shape this module: a query of another width corrupts the heap, k > n raises, NaN is
accepted, and a reader concurrent with a writer gets wrong neighbors. An index is therefore built once and never
changed, and shapes and values are checked before every call. The space is inner product on unit vectors, not hnswlib's
`cosine`.
"""

from typing import Protocol

import hnswlib
import numpy as np

from service.domain.distance import Near, Vectors, cosine_distances, from_cosines
from service.domain.vectors import check_vectors

HNSW_LINKS = 32  # M: more links, better recall, more memory
HNSW_BUILD_BREADTH = 200
# Candidates per search: at least this many, and this share of all vectors. Windows that overlap in a recording are
# almost equally near. With 256 candidates a search missed the nearest in 2 % of queries among 10,000 windows and in 4 %
# among 20,000 (benchmarks/search.py).
HNSW_SEARCH_BREADTH = 256
HNSW_SEARCH_SHARE = 0.1


class Index(Protocol):
    """Search over unit vectors."""

    def search(self, queries: Vectors, k: int) -> Near:
        """Find the min(k, n) nearest vectors of each query `(m, dim)`, nearest first."""

    def __len__(self) -> int: ...


class ExactIndex:
    """Compares a query with every vector. Reference for tests of other indexes."""

    def __init__(self, vectors: Vectors) -> None:
        """Index vectors `(n, dim)` without a copy."""
        self._vectors = check_vectors(vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Vectors, k: int) -> Near:
        check_vectors(queries, dim=self._vectors.shape[1])
        distances = cosine_distances(queries, self._vectors)  # (m, n)
        rows = np.argsort(distances, axis=1, kind="stable")[:, :k] if k > 1 else distances.argmin(axis=1)[:, None]
        return Near(np.take_along_axis(distances, rows, axis=1), rows.astype(np.int64))


class HnswIndex:
    """Navigable small-world graph: approximate, and sublinear in the number of vectors."""

    def __init__(self, vectors: Vectors) -> None:
        """Build the graph of vectors `(n, dim)`. The graph has a copy of its own."""
        self._vectors = check_vectors(vectors)
        count, dim = vectors.shape
        self._graph = hnswlib.Index(space="ip", dim=dim)
        self._graph.init_index(max_elements=count, M=HNSW_LINKS, ef_construction=HNSW_BUILD_BREADTH)
        # One thread, so the insertion order and every result are the same after a restart.
        self._graph.add_items(vectors, np.arange(count), num_threads=1)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Vectors, k: int) -> Near:
        check_vectors(queries, dim=self._vectors.shape[1])
        k = min(k, len(self))
        self._graph.set_ef(max(HNSW_SEARCH_BREADTH, round(HNSW_SEARCH_SHARE * len(self)), k))
        labels, _ = self._graph.knn_query(queries, k=k, num_threads=1)
        rows = labels.astype(np.int64)
        # Distances as the exact index computes them, so a score does not depend on the index.
        found = self._vectors[rows]  # (m, k, dim)
        distances = from_cosines(np.einsum("md,mkd->mk", queries, found))
        order = np.argsort(distances, axis=1, kind="stable")
        return Near(np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1))


def build_index(vectors: Vectors, *, exact_limit: int) -> Index:
    """Build the index for a number of vectors: exact up to `exact_limit`, HNSW above."""
    return ExactIndex(vectors) if len(vectors) <= exact_limit else HnswIndex(vectors)


def index_nbytes(count: int, dim: int, *, exact_limit: int) -> int:
    """Compute the memory of an index from `build_index`, in bytes."""
    nbytes = 4 * count * dim
    return nbytes if count <= exact_limit else 2 * nbytes
