"""Time the stages of one request."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import perf_counter


class Stage(StrEnum):
    """A timed part of a request. Stages do not overlap, so together with `other` they add up to the total."""

    RECEIVE = "receive"  # read the body
    QUEUE = "queue"  # wait for a worker
    DECODE = "decode"
    ACOUSTICS = "acoustics"
    EMBED = "embed"
    SEARCH = "search"
    LOCALIZE = "localize"
    STORE = "store"
    OTHER = "other"


class Stages:
    """Times the stages of one request, from its creation on."""

    def __init__(self, observe: Callable[[Stage, float], None]) -> None:
        """Start the timer. `observe` is called with the seconds of each stage when it ends."""
        self._observe = observe
        self._start = perf_counter()
        self._spent = dict.fromkeys(Stage, 0.0)  # seconds; keys never change, so other threads can read it

    def add(self, stage: Stage, seconds: float) -> None:
        """Add seconds to a stage."""
        self._spent[stage] += seconds
        self._observe(stage, seconds)

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Add the time inside the block to a stage. Blocks must not be nested."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - start)

    def end(self) -> float:
        """End the request. Time outside of all stages is added to `other`. Returns the total, in seconds."""
        seconds = perf_counter() - self._start
        spent = sum(self._spent.values())
        if spent:  # nothing to report without stages
            self.add(Stage.OTHER, max(seconds - spent, 0.0))
        return seconds

    def timing_ms(self) -> dict[str, float]:
        """Return the milliseconds so far by stage, and their `total`."""
        total = 1e3 * (perf_counter() - self._start)
        found = {stage.value: round(1e3 * seconds, 3) for stage, seconds in self._spent.items() if seconds}
        return {**found, Stage.OTHER.value: round(max(total - sum(found.values()), 0.0), 3), "total": round(total, 3)}
