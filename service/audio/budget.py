"""Budget of a request: how much audio it may decode, and whether to continue."""

import math
import threading

from offkey.errors import ErrorKind, OffkeyError

RETRY_AFTER_SECONDS = 5  # time for this node to restart; another node can answer at once


class Budget:
    """Audio that one request may decode. A file can hold far more than its size suggests.

    Args:
        samples: limit, in frames x channels. A frame at a rate below the model's counts as the number of samples that
            it is resampled to, because these are embedded.
        stopping: event that is set when the service shuts down.
        left: decoded audio left, in samples. None for all of it.

    Attributes:
        unwanted: event to set when the client no longer waits for the answer.
        samples: limit, in samples.
        left: decoded audio left, in samples.
    """

    def __init__(
        self, samples: float = math.inf, stopping: threading.Event | None = None, *, left: float | None = None
    ) -> None:
        self.unwanted = threading.Event()
        self.samples = samples
        self.left = samples if left is None else left
        self._stopping = stopping

    def check(self) -> None:
        """Check that the request should continue. Raises `OffkeyError` (stopping) if not."""
        if self.unwanted.is_set() or (self._stopping is not None and self._stopping.is_set()):
            raise stopping_error()

    def spend(self, samples: float) -> None:
        """Subtract `samples`. Raises `OffkeyError` if fewer are left, or if the service is stopping."""
        self.check()
        self.left -= samples
        if self.left < 0:
            raise OffkeyError(
                ErrorKind.TOO_MUCH_AUDIO,
                f"The clips of this request hold more than {self.samples:.0f} samples (frames x channels). Send "
                "fewer or shorter clips in one request, or record at a lower rate.",
                max_decoded_samples=self.samples,
            )


UNLIMITED = Budget()


def stopping_error() -> OffkeyError:
    """Create the error for a request that the service does not finish because it shuts down."""
    return OffkeyError(
        ErrorKind.STOPPING,
        f"The service is shutting down and did not finish this request. Send it again in {RETRY_AFTER_SECONDS} s.",
        retry_after=RETRY_AFTER_SECONDS,
    )
