"""Indexes: compared with exact search, and protected from arrays that hnswlib must never get."""

from collections.abc import Callable

import numpy as np
import pytest

from service.bank.index import ExactIndex, HnswIndex, Index, build_index, index_nbytes

BUILDERS = pytest.mark.parametrize("build", [ExactIndex, HnswIndex])


def unit(seed: int, count: int, dim: int = 32) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@BUILDERS
def test_an_enrolled_vector_is_its_own_nearest(build: Callable[[np.ndarray], Index]) -> None:
    vectors = unit(0, 200)
    distances, rows = build(vectors).search(vectors, 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(200))
    assert distances.max() < 2e-5


@BUILDERS
def test_k_is_limited_to_the_number_of_vectors(build: Callable[[np.ndarray], Index]) -> None:
    distances, rows = build(unit(1, 3)).search(unit(2, 2), 10)
    assert distances.shape == rows.shape == (2, 3)
    assert (np.diff(distances, axis=1) >= 0).all()


@BUILDERS
@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v[:, :-1],  # narrower than the index: hnswlib would corrupt the heap
        lambda v: np.concatenate([v, v], axis=1),
        lambda v: v * np.nan,
        lambda v: v * 0.0,
        lambda v: v * 2.0,
        lambda v: v.astype(np.float64),
        lambda v: v[:0],
        lambda v: v[0],
    ],
)
def test_a_bad_query_is_refused(
    build: Callable[[np.ndarray], Index], spoil: Callable[[np.ndarray], np.ndarray]
) -> None:
    index = build(unit(3, 20))
    with pytest.raises(ValueError, match="expected"):
        index.search(spoil(unit(4, 4)), 1)


@BUILDERS
def test_bad_vectors_are_not_indexed(build: Callable[[np.ndarray], Index]) -> None:
    vectors = unit(5, 20)
    vectors[7] = np.nan
    with pytest.raises(ValueError, match="unit"):
        build(vectors)


def test_the_graph_finds_what_exact_search_finds() -> None:
    vectors, queries = unit(6, 5_000), unit(7, 300)
    exact, graph = ExactIndex(vectors), HnswIndex(vectors)
    exact_distances, exact_rows = exact.search(queries, 1)
    graph_distances, graph_rows = graph.search(queries, 1)
    same = exact_rows == graph_rows
    assert same.mean() >= 0.99
    np.testing.assert_allclose(graph_distances[same], exact_distances[same], atol=1e-6)


def test_a_graph_built_again_gives_the_same_answers() -> None:
    vectors, queries = unit(8, 2_000), unit(9, 50)
    first, second = (HnswIndex(vectors).search(queries, 5) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_the_kind_of_index_follows_the_size() -> None:
    assert isinstance(build_index(unit(10, 10), exact_limit=10), ExactIndex)
    assert isinstance(build_index(unit(10, 11), exact_limit=10), HnswIndex)


@pytest.mark.parametrize(("limit", "copies"), [(100, 1), (99, 2)])
def test_the_memory_of_an_index_counts_the_copy_of_the_graph(limit: int, copies: int) -> None:
    vectors = unit(14, 100)
    assert isinstance(build_index(vectors, exact_limit=limit), HnswIndex) == (copies == 2)
    assert index_nbytes(100, 32, exact_limit=limit) == copies * vectors.nbytes
