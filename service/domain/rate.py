"""A token bucket that limits the requests of a key."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Bucket:
    tokens: float
    filled_at: float  # seconds


class RateLimiter:
    """One token bucket for each key. A bucket holds the requests of one minute and fills at a constant rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key_id: str, per_minute: int) -> float:
        """Take one token. Returns 0, or the seconds until the next token."""
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(key_id, _Bucket(per_minute, now))
            bucket.tokens = min(per_minute, bucket.tokens + (now - bucket.filled_at) * per_minute / 60.0)
            bucket.filled_at = now
            if bucket.tokens < 1.0:
                return (1.0 - bucket.tokens) * 60.0 / per_minute
            bucket.tokens -= 1.0
            return 0.0
