"""Interface of runners, which run windows through the graph."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.audio.budget import Budget
from service.audio.decode import Samples

INPUT = "waveform"  # input name of every bundle's graph

Outputs = list[NDArray[np.float32]]  # outputs of one window, each `(1, ...)`


class Runner(Protocol):
    """Runs windows through the graph. Safe to call from many threads at once."""

    provider: str  # ONNX Runtime provider
    workers: int  # number of callers that keep the device busy

    def run(self, windows: Sequence[Samples], outputs: Sequence[str], budget: Budget) -> Iterator[Outputs]:
        """Run windows in order. Yields the named outputs of each window.

        Args:
            windows: windows `(samples,)`.
            outputs: names of outputs of the graph.
            budget: budget of the request, checked between runs.

        Raises:
            OffkeyError: the service is stopping, or the client no longer waits for the answer.
        """

    def close(self) -> None:
        """Release the memory of the model."""
