"""What every way of running a graph does."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.audio.budget import Budget
from service.audio.decode import Samples

INPUT = "waveform"  # of every bundle's graph

Outputs = list[NDArray[np.float32]]  # of one window, each `(1, ...)`


class Runner(Protocol):
    """Runs windows through the graph. Safe to call from many threads at once."""

    provider: str  # of ONNX Runtime
    workers: int  # callers that keep its device busy

    def run(self, windows: Sequence[Samples], outputs: Sequence[str], budget: Budget) -> Iterator[Outputs]:
        """The named outputs of each window, in order.

        Args:
            windows: each `(samples,)`.
            outputs: names of outputs of the graph.
            budget: of the request, which is asked on the way whether to go on.

        Raises:
            OffkeyError: the service is stopping, or nobody waits for the answer any more.
        """

    def close(self) -> None:
        """Give the model's memory back."""
