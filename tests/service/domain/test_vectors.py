"""Validation of embeddings."""

import numpy as np
import pytest

from service.domain.vectors import check_vectors


def unit(count: int, dim: int = 32) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_valid_vectors_are_returned_unchanged() -> None:
    vectors = unit(3)
    assert check_vectors(vectors) is vectors
    assert check_vectors(vectors, dim=32) is vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (unit(3).astype(np.float64), "expected float32"),
        (unit(3)[:0], "expected float32"),
        (unit(3)[0], "expected float32"),
        (unit(3, 31), "length 32"),
        (unit(3) * np.float32(1.01), "unit"),
        (unit(3) * np.float32(np.nan), "unit"),
    ],
)
def test_invalid_vectors_are_refused(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_vectors(vectors, dim=32)
