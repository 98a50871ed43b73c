"""Validation of embeddings."""

import numpy as np

from service.domain.distance import Vectors

_UNIT_TOLERANCE = 1e-3


def check_vectors(vectors: Vectors, dim: int | None = None) -> Vectors:
    """Return `vectors` unchanged if they are valid embeddings.

    Args:
        vectors: array of any shape and type.
        dim: required length of a vector, None to accept any.

    Raises:
        ValueError: the array is not float32 `(count, dim)` with count >= 1, or a vector is not finite and of unit norm.
    """
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) == 0:
        raise ValueError(f"expected float32 vectors (count, dim), got {vectors.dtype} {vectors.shape}")
    if dim is not None and vectors.shape[1] != dim:
        raise ValueError(f"expected vectors of length {dim}, got {vectors.shape[1]}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # np.linalg.norm would make two copies first
    if not np.all(np.abs(norms - 1.0) < _UNIT_TOLERANCE):  # false for NaN too
        raise ValueError(f"expected unit vectors, got norms from {norms.min():g} to {norms.max():g}")
    return vectors
