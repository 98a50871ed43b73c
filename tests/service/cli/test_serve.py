"""What `offkey serve` sets up around the application."""

import os

import numpy as np
import pytest
import uvicorn
from threadpoolctl import threadpool_info, threadpool_limits

from service.cli.server import run
from service.settings import Settings


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread")
def test_a_worker_is_one_thread_in_numpy_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with threadpool_limits(2, user_api="blas"):
        np.ones((2, 2)) @ np.ones((2, 2))
        assert blas_threads() == {2}
        run(settings)
        assert blas_threads() == {1}
