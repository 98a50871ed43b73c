"""What a request may still cost, and whether its answer is still wanted."""

import math
import threading

from offkey.errors import ErrorKind, OffkeyError

RETRY_AFTER_SECONDS = 5  # another node takes over at once; this one is back when it has restarted


class Budget:
    """The audio that one request may decode. A file can hold far more than its bytes suggest.

    Args:
        samples: how many, counted as frames x channels. At a rate below the model's a frame counts for as many
            as it is resampled to, because these are embedded.
        stopping: set when the service is about to end.
        left: how many of them are left; all unless said otherwise.

    Attributes:
        unwanted: to be set when nobody waits for the answer any more.
    """

    def __init__(
        self, samples: float = math.inf, stopping: threading.Event | None = None, *, left: float | None = None
    ) -> None:
        self.unwanted = threading.Event()
        self.samples = samples
        self.left = samples if left is None else left
        self._stopping = stopping

    def check(self) -> None:
        """Return if the request should go on. Raises `OffkeyError` (stopping), which may never be told, if not."""
        if self.unwanted.is_set() or (self._stopping is not None and self._stopping.is_set()):
            raise stopping_error()

    def spend(self, samples: float) -> None:
        """Take `samples` off. Raises `OffkeyError`: there were not so many left, or the service is stopping."""
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
    """What a request is answered that the service does not finish because it ends."""
    return OffkeyError(
        ErrorKind.STOPPING,
        f"The service is shutting down and did not finish this request. Send it again in {RETRY_AFTER_SECONDS} s.",
        retry_after=RETRY_AFTER_SECONDS,
    )
