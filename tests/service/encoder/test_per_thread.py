"""A runner on a CPU checks between windows whether anyone still waits for the answer."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import UNLIMITED, Budget
from service.encoder.per_thread import PerThreadRunner
from service.encoder.threads import SINGLE

WINDOWS = [np.full(4, number, dtype=np.float32) for number in range(5)]


class CountingSession:
    """Stands in for a session of ONNX Runtime: returns its input, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, _: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self.runs += 1
        return list(inputs.values())


@pytest.fixture
def session() -> CountingSession:
    return CountingSession()


@pytest.fixture
def runner(session: CountingSession) -> PerThreadRunner:
    return PerThreadRunner(session, session, SINGLE)


def test_windows_run_in_order(runner: PerThreadRunner, session: CountingSession) -> None:
    found = [float(outputs[0][0, 0]) for outputs in runner.run(WINDOWS, ["embedding"], UNLIMITED)]
    assert found == [0, 1, 2, 3, 4]
    assert session.runs == 5


def test_no_window_runs_after_the_client_has_left(runner: PerThreadRunner, session: CountingSession) -> None:
    budget = Budget()
    outputs = runner.run(WINDOWS, ["embedding"], budget)
    next(outputs)
    next(outputs)
    budget.unwanted.set()
    with pytest.raises(OffkeyError) as stopped:
        next(outputs)
    assert stopped.value.kind is ErrorKind.STOPPING
    assert session.runs == 2


def test_no_window_runs_while_the_service_stops(runner: PerThreadRunner, session: CountingSession) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(OffkeyError):
        list(runner.run(WINDOWS, ["embedding"], Budget(stopping=stopping)))
    assert session.runs == 0
