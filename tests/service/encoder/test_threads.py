"""Thread counts: measured once, cached, and never a reason not to start."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from launch import in_process
from service.audio.budget import UNLIMITED
from service.encoder import threads as module
from service.encoder.per_thread import PerThreadRunner
from service.encoder.threads import ThreadCounts, find_thread_counts
from service.settings import Settings

WINDOW: NDArray[np.float32] = np.zeros(16_000, np.float32)


class FakeSession:
    """Session whose runs take the time that a function of the number of threads returns."""

    def __init__(self, threads: int, seconds: Callable[[int], float]) -> None:
        self.threads = threads
        self._seconds = seconds

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, names: list[str] | None, feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        time.sleep(self._seconds(self.threads))
        return [np.full((1, 1), self.threads, np.float32)]


def scales(threads: int) -> float:
    return 0.04 / threads


def does_not_scale(threads: int) -> float:
    return 0.02


def prefers_two(threads: int) -> float:
    """Two threads are more than twice as fast, as with a shared cache."""
    return {1: 0.04, 2: 0.015, 4: 0.015}[threads]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(scales, ThreadCounts(4, 1)), (does_not_scale, ThreadCounts(1, 1)), (prefers_two, ThreadCounts(2, 2))],
)
def test_the_fewest_threads_with_enough_gain_are_used(seconds: Callable[[int], float], expected: ThreadCounts) -> None:
    assert module.measure(lambda threads: FakeSession(threads, seconds), WINDOW, 4) == expected


@pytest.fixture
def opened() -> list[int]:
    """Numbers of threads of the opened sessions."""
    return []


@pytest.fixture
def open_session(opened: list[int], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], FakeSession]:
    """Replace the measurement, which is tested above and takes more than a second."""

    def measure(open_session: Callable[[int], FakeSession], *_: object) -> ThreadCounts:
        return ThreadCounts(open_session(1).threads, 1)

    def open_one(threads: int) -> FakeSession:
        opened.append(threads)
        return FakeSession(threads, does_not_scale)

    monkeypatch.setattr(module, "measure", measure)
    return open_one


def test_counts_are_measured_once_per_graph(
    tmp_path: Path, open_session: Callable[[int], FakeSession], opened: list[int]
) -> None:
    file = tmp_path / "runtime" / "threads.json"
    first = find_thread_counts(open_session, WINDOW, "a" * 64, file)
    assert opened
    opened.clear()
    assert find_thread_counts(open_session, WINDOW, "a" * 64, file) == first
    assert not opened
    find_thread_counts(open_session, WINDOW, "b" * 64, file)
    assert opened


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"threads": {"idle_threads": "many", "busy_threads": 1}}',
        b'{"threads": {"idle_threads": 1}}',
        b'{"threads": {"idle_threads": 1, "busy_threads": 1}}',
        b'{"key": {}, "threads": {"idle_threads": 1e999, "busy_threads": 1}}',
    ],
)
def test_a_damaged_file_is_measured_again(
    tmp_path: Path, open_session: Callable[[int], FakeSession], opened: list[int], damage: bytes
) -> None:
    file = tmp_path / "threads.json"
    file.write_bytes(damage)
    find_thread_counts(open_session, WINDOW, "a" * 64, file)
    assert opened
    assert json.loads(file.read_text())["threads"] == {"idle_threads": 1, "busy_threads": 1}


def test_counts_below_one_are_measured_again(tmp_path: Path, open_session: Callable[[int], FakeSession]) -> None:
    file = tmp_path / "threads.json"
    find_thread_counts(open_session, WINDOW, "a" * 64, file)
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "threads": {"idle_threads": 0, "busy_threads": 1}}))
    assert find_thread_counts(open_session, WINDOW, "a" * 64, file) == ThreadCounts(1, 1)


def test_a_folder_that_cannot_be_written_does_not_prevent_a_start(
    tmp_path: Path, open_session: Callable[[int], FakeSession], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runtime").write_text("a file in place of the folder")
    with caplog.at_level(logging.WARNING):
        find_thread_counts(open_session, WINDOW, "a" * 64, tmp_path / "runtime" / "threads.json")
    assert "cannot be cached" in caplog.text


def test_a_single_run_uses_more_threads_than_concurrent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("service.encoder.per_thread.time.monotonic", lambda: now)
    runs = PerThreadRunner(FakeSession(1, lambda _: 0.0), FakeSession(2, lambda _: 0.0), ThreadCounts(2, 1))

    def threads() -> float:
        ((value,),) = runs.run([WINDOW], ["embedding"], UNLIMITED)
        return float(value[0, 0])

    assert threads() == 2
    with runs._session():
        assert threads() == 1  # concurrent with another
    assert threads() == 1  # more are expected
    now = 10.0
    assert threads() == 2


def test_both_sessions_give_equal_embeddings_and_info_reports_the_workers(
    bundle: Path, tmp_path: Path, fan: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OFFKEY_LIMITS")
    monkeypatch.setattr(module, "cores", lambda: 2)
    # As on a machine where two cores are twice as fast.
    monkeypatch.setattr(module, "measure", lambda *_: ThreadCounts(2, 1))
    with in_process(Settings(data_dir=tmp_path)) as api:
        assert api.get("/info").json()["limits"]["workers"] == 2
        encoder = api.app.state.service.encoders.current
        clip = (0.1 * np.random.default_rng(0).standard_normal(160_000)).astype(np.float32)
        idle = encoder.embed(clip).vectors
        with encoder._runner._session():
            busy = encoder.embed(clip).vectors
        np.testing.assert_allclose(idle, busy, atol=1e-5)
    assert json.loads((tmp_path / "runtime" / "threads-current.json").read_text())["threads"]["idle_threads"] == 2


def test_a_real_graph_is_measured(bundle: Path, tmp_path: Path) -> None:
    def open_session(threads: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        return ort.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])

    found = module.measure(open_session, module.faint_noise(1.0, 16_000), 2)
    assert found.idle_threads in (1, 2)
    assert found.busy_threads in (1, 2)
