"""Nearest-neighbor search behind one interface: exact, and HNSW where that is faster.

Facts about hnswlib 0.8 that shape this file: a query of another width corrupts the heap, k > n raises, NaN is
accepted, a reader beside a writer gets wrong neighbors. So an index is built once and never changed, and
shapes and values are checked before every call. Inner product on unit vectors is used, not its `cosine`.
"""

from typing import Protocol

import hnswlib
import numpy as np
from numpy.typing import NDArray

from service.domain.distance import Distances, Near, Rows, Vectors, cosine_distances, from_cosines

HNSW_LINKS = 32  # M: more links, better recall, more memory
HNSW_BUILD_BREADTH = 200
# Candidates that a search keeps: at least so many, and this share of all. Of windows that overlap in a recording the
# nearest hardly differ, and a search of 256 missed 2 % of them among 10,000, 4 % among 20,000 (benchmarks/search.py).
HNSW_SEARCH_BREADTH = 256
HNSW_SEARCH_SHARE = 0.1
_UNIT_TOLERANCE = 1e-3
_LARGEST_STEP = 2**15 - 1
_BLOCK_ROWS = 256  # of 16 bits that are widened at once


class Index(Protocol):
    """Search over the unit vectors it was built from."""

    def search(self, queries: Vectors, k: int) -> Near:
        """Cosine distances and rows of the min(k, n) nearest, nearest first: two `(m, min(k, n))` arrays."""

    def vectors(self, rows: Rows) -> Vectors:
        """Those of `rows`, to the precision that they are kept in."""

    def __len__(self) -> int: ...


class _Kept:
    """Unit vectors as they lie in memory: whole, or as 16-bit fixed point with a step for each vector.

    Fixed point rather than a 16-bit float: no part of a unit vector is above 1, so that no bit goes to an exponent
    (a tenth of the error), and numpy widens integers many times faster.
    """

    def __init__(self, vectors: Vectors, *, half: bool) -> None:
        self._whole = check_vectors(vectors)
        self._steps: NDArray[np.float32] | None = None  # (n,)
        if half:
            self._steps = np.abs(vectors).max(axis=1) / np.float32(_LARGEST_STEP)
            self._whole = np.rint(vectors / self._steps[:, None]).astype(np.int16)

    def __len__(self) -> int:
        return len(self._whole)

    @property
    def dim(self) -> int:
        return int(self._whole.shape[1])

    def rows(self, at: Rows | slice) -> Vectors:
        found: Vectors = self._whole[at]
        return found if self._steps is None else found * self._steps[at][..., None]

    def distances(self, queries: Vectors) -> Distances:
        """`(m, n)`."""
        if self._steps is None:
            return cosine_distances(queries, self._whole)
        cosines = np.empty((len(queries), len(self)), np.float32)
        for start in range(0, len(self), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            np.matmul(queries, self._whole[block].astype(np.float32).T, out=cosines[:, block])
        cosines *= self._steps
        return from_cosines(cosines)


class ExactIndex:
    """Compares with every vector. The oracle of every other index."""

    def __init__(self, vectors: Vectors, *, half: bool = False) -> None:
        """Keep vectors `(n, dim)`; `half`: in 16 bits."""
        self._kept = _Kept(vectors, half=half)

    def __len__(self) -> int:
        return len(self._kept)

    def vectors(self, rows: Rows) -> Vectors:
        return self._kept.rows(rows)

    def search(self, queries: Vectors, k: int) -> Near:
        check_vectors(queries, dim=self._kept.dim)
        distances = self._kept.distances(queries)  # (m, n)
        rows = np.argsort(distances, axis=1, kind="stable")[:, :k] if k > 1 else distances.argmin(axis=1)[:, None]
        return Near(np.take_along_axis(distances, rows, axis=1), rows.astype(np.int64))


class HnswIndex:
    """A navigable small-world graph: approximate, and sublinear in the number of vectors."""

    def __init__(self, vectors: Vectors, *, half: bool = False) -> None:
        """Build the graph, which holds `(n, dim)` vectors whole; `half`: what distances are told from has 16 bits."""
        self._kept = _Kept(vectors, half=half)
        count, dim = vectors.shape
        self._graph = hnswlib.Index(space="ip", dim=dim)
        self._graph.init_index(max_elements=count, M=HNSW_LINKS, ef_construction=HNSW_BUILD_BREADTH)
        # One thread: insertion order, and with it every answer, is then the same after a restart.
        self._graph.add_items(vectors, np.arange(count), num_threads=1)

    def __len__(self) -> int:
        return len(self._kept)

    def vectors(self, rows: Rows) -> Vectors:
        return self._kept.rows(rows)

    def search(self, queries: Vectors, k: int) -> Near:
        check_vectors(queries, dim=self._kept.dim)
        k = min(k, len(self))
        self._graph.set_ef(max(HNSW_SEARCH_BREADTH, round(HNSW_SEARCH_SHARE * len(self)), k))
        labels, _ = self._graph.knn_query(queries, k=k, num_threads=1)
        rows = labels.astype(np.int64)
        # Distances as the exact index computes them, so that a score does not depend on who searched.
        found = self._kept.rows(rows)  # (m, k, dim)
        distances = from_cosines(np.einsum("md,mkd->mk", queries, found))
        order = np.argsort(distances, axis=1, kind="stable")
        return Near(np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1))


def build_index(vectors: Vectors, *, exact_limit: int, half: bool = False) -> Index:
    """Choose by size: exact up to `exact_limit` vectors, HNSW above. `half`: keep 16 bits of each value."""
    return ExactIndex(vectors, half=half) if len(vectors) <= exact_limit else HnswIndex(vectors, half=half)


def index_values(count: int, dim: int, *, exact_limit: int, half: bool) -> int:
    """Memory that `build_index` takes for `(count, dim)`, in values of 4 bytes; the graph has a copy of its own."""
    kept = count * dim // 2 + count if half else count * dim
    return kept if count <= exact_limit else kept + count * dim


def check_vectors(vectors: Vectors, dim: int | None = None) -> Vectors:
    """Return `vectors` unchanged if they may be indexed or searched for.

    Raises:
        ValueError: they are not float32 `(count, dim)` with count >= 1, finite and of unit norm.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) == 0:
        raise ValueError(f"expected float32 vectors (count, dim), got {vectors.dtype} {vectors.shape}")
    if dim is not None and vectors.shape[1] != dim:
        raise ValueError(f"expected vectors of length {dim}, got {vectors.shape[1]}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # np.linalg.norm would make two copies first
    if not np.all(np.abs(norms - 1.0) < _UNIT_TOLERANCE):  # false for NaN too
        raise ValueError(f"expected unit vectors, got norms from {norms.min():g} to {norms.max():g}")
    return vectors
