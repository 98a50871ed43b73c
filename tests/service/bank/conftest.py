"""Rows of random unit embeddings."""

from collections.abc import Callable

import numpy as np
import pytest

from offkey.vocabulary import Domain
from service.bank import BankRows


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., BankRows]:
    """`make_rows(generation, clips=6)` -> rows of clips with one window each. Every generation has other vectors."""

    def make(generation: int, clips: int = 6) -> BankRows:
        vectors = np.random.default_rng(generation).standard_normal((clips, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ids = np.arange(clips, dtype=np.int64)
        domains = (Domain.SOURCE,) * clips
        names = {i: f"{i}.wav" for i in range(clips)}
        return BankRows(generation, "a-space", vectors, ids, ids, np.zeros(clips), np.ones(clips), domains, names)

    return make
