"""Batches of windows, as for a GPU. The tests run the same code on the CPU provider."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import UNLIMITED, Budget
from service.encoder.batching import BatchingRunner
from service.encoder.bundle import MODEL_FILE
from service.encoder.encoder import Encoder
from service.encoder.session import open_session
from service.settings import Device

RATE = 16_000
NAMES = ["embedding", "logmel"]


class Recorder:
    """Session that records the shapes of its inputs. Its first run waits for `go`."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        self.shapes: list[tuple[int, ...]] = []
        self.entered = 0
        self.go = threading.Event()
        self.failing: float | None = None  # a batch with a window that begins with this sample fails

    def get_providers(self) -> list[str]:
        return self.session.get_providers()

    def run(self, names: list[str], feed: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self.entered += 1
        assert self.go.wait(30)
        waveform = feed["waveform"]
        self.shapes.append(waveform.shape)
        if self.failing is not None and (waveform[:, 0] == np.float32(self.failing)).any():
            raise RuntimeError("the device failed")
        return self.session.run(names, feed)


@pytest.fixture(scope="module")
def session(bundle: Path) -> ort.InferenceSession:
    return open_session(bundle / MODEL_FILE, Device.CPU)


@pytest.fixture
def recorder(session: ort.InferenceSession) -> Recorder:
    return Recorder(session)


@pytest.fixture
def batches(recorder: Recorder) -> Iterator[BatchingRunner]:
    made = BatchingRunner(recorder, max_samples=8 * RATE)
    yield made
    recorder.go.set()
    made.close()


def windows(count: int, seconds: float = 1.0, seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [(0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32) for _ in range(count)]


def submit_all(
    batches: BatchingRunner, recorder: Recorder, pool: ThreadPoolExecutor, clips: list[list[NDArray[np.float32]]]
) -> list[Future[list[NDArray]]]:
    """Submit every clip on its own thread while the device is blocked by the first one."""
    submitted = []
    for clip in clips:
        submitted.append(pool.submit(lambda c=clip: list(batches.run(c, NAMES, UNLIMITED))))
        while recorder.entered < 1:
            threading.Event().wait(0.005)
    while len(batches._queue) < sum(map(len, clips[1:])):
        threading.Event().wait(0.005)
    return submitted


def all_at_once(
    batches: BatchingRunner, recorder: Recorder, clips: list[list[NDArray[np.float32]]]
) -> list[list[NDArray]]:
    with ThreadPoolExecutor(len(clips)) as pool:
        submitted = submit_all(batches, recorder, pool, clips)
        recorder.go.set()
        return [one.result(30) for one in submitted]


def test_outputs_equal_those_of_each_window_alone(
    batches: BatchingRunner, recorder: Recorder, session: ort.InferenceSession
) -> None:
    clips = [windows(1, seed=n) for n in range(7)] + [windows(1, 0.7, seed=9)]
    found = all_at_once(batches, recorder, clips)
    assert max(shape[0] for shape in recorder.shapes) == 8  # six were waiting, padded to eight
    for clip, ((vector, logmel),) in zip(clips, found, strict=True):
        alone = session.run(NAMES, {"waveform": clip[0][None]})
        np.testing.assert_allclose(vector, alone[0], atol=1e-5)
        np.testing.assert_allclose(logmel, alone[1], atol=1e-4)


def test_a_batch_holds_windows_of_one_length_and_limited_audio(batches: BatchingRunner, recorder: Recorder) -> None:
    all_at_once(batches, recorder, [*[windows(1) for _ in range(12)], *[windows(1, 4.0) for _ in range(3)]])
    assert sum(shape == (8, RATE) for shape in recorder.shapes) == 1
    assert all(rows * samples <= 8 * RATE for rows, samples in recorder.shapes)
    assert {rows for rows, _ in recorder.shapes} <= {1, 2, 4, 8}
    assert {samples for _, samples in recorder.shapes} == {RATE, 4 * RATE}


def test_a_single_window_runs_at_once(batches: BatchingRunner, recorder: Recorder) -> None:
    recorder.go.set()
    for _ in range(3):
        assert len(list(batches.run(windows(1), NAMES, UNLIMITED))) == 1
    assert recorder.shapes == [(1, RATE)] * 3


def test_a_window_longer_than_a_batch_runs_alone(batches: BatchingRunner, recorder: Recorder) -> None:
    recorder.go.set()
    ((vector, _),) = batches.run(windows(1, 9.0), NAMES, UNLIMITED)
    assert vector.shape[0] == 1
    assert recorder.shapes == [(1, 9 * RATE)]


def test_windows_of_clients_that_left_are_not_run(batches: BatchingRunner, recorder: Recorder) -> None:
    left = Budget()
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(lambda: list(batches.run(windows(1), NAMES, UNLIMITED)))
        while recorder.entered < 1:
            threading.Event().wait(0.005)
        gone = [pool.submit(lambda: list(batches.run(windows(1), NAMES, left))) for _ in range(4)]
        while len(batches._queue) < 4:
            threading.Event().wait(0.005)
        left.unwanted.set()
        recorder.go.set()
        assert len(first.result(30)) == 1
        assert all(isinstance(one.exception(30), OffkeyError) for one in gone)
    assert recorder.shapes == [(1, RATE)]


def test_a_window_that_fails_does_not_fail_the_others(batches: BatchingRunner, recorder: Recorder) -> None:
    recorder.failing = 0.5
    bad = windows(1, seed=5)
    bad[0][0] = 0.5
    clips = [windows(1, seed=n) for n in range(4)]
    with ThreadPoolExecutor(5) as pool:
        submitted = submit_all(batches, recorder, pool, [*clips, bad])
        recorder.go.set()
        assert all(len(one.result(30)) == 1 for one in submitted[:-1])
        with pytest.raises(RuntimeError, match="the device failed"):
            submitted[-1].result(30)
    assert len(list(batches.run(windows(1), NAMES, UNLIMITED))) == 1  # the runner still works


def test_closing_fails_the_waiting_windows(recorder: Recorder) -> None:
    batches = BatchingRunner(recorder, max_samples=8 * RATE)
    with ThreadPoolExecutor(3) as pool:
        submitted = submit_all(batches, recorder, pool, [windows(1) for _ in range(3)])
        closing = threading.Thread(target=batches.close)
        closing.start()
        while not batches._closed:
            threading.Event().wait(0.005)
        recorder.go.set()
        closing.join(30)
        assert not closing.is_alive()
        ended = [one.exception(30) for one in submitted]
    assert sum(error is None for error in ended) == 1  # the one that ran
    assert all(isinstance(error, OffkeyError) and error.kind is ErrorKind.STOPPING for error in ended if error)
    with pytest.raises(OffkeyError):
        list(batches.run(windows(1), NAMES, UNLIMITED))


def test_a_clip_of_a_client_that_left_ends_between_batches(batches: BatchingRunner, recorder: Recorder) -> None:
    recorder.go.set()
    budget = Budget()
    outputs = batches.run(windows(20), NAMES, budget)
    next(outputs)
    budget.unwanted.set()
    with pytest.raises(OffkeyError):
        list(outputs)
    assert sum(rows for rows, _ in recorder.shapes) <= 9  # the first batch may have had one window


def test_an_encoder_returns_equal_embeddings_with_batches(bundle: Path) -> None:
    one_by_one = Encoder(bundle, Device.CPU)
    batched = Encoder(bundle, Device.CPU)
    batched._runner = BatchingRunner(open_session(bundle / MODEL_FILE, Device.CPU), max_samples=160 * RATE)
    clip = (0.1 * np.random.default_rng(0).standard_normal(47 * RATE)).astype(np.float32)
    expected, found = one_by_one.embed(clip), batched.embed(clip)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-5)
    np.testing.assert_array_equal(found.starts, expected.starts)
    for ours, theirs in zip(found.spectrograms, expected.spectrograms, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    batched.close()
