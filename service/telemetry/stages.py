"""Where the time of one request goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import perf_counter


class Stage(StrEnum):
    """What is timed of a request. Its stages follow each other, so with `other` they add up to the whole."""

    RECEIVE = "receive"  # the body, from the client
    QUEUE = "queue"  # until a worker is free
    DECODE = "decode"
    MEASURE = "measure"  # the conditions
    EMBED = "embed"
    SEARCH = "search"
    LOCALIZE = "localize"
    STORE = "store"
    OTHER = "other"


class Stages:
    """The stages of one request, from the moment this is made."""

    def __init__(self, observe: Callable[[Stage, float], None]) -> None:
        """`observe` is told the seconds of each stage when it is over."""
        self._observe = observe
        self._start = perf_counter()
        self._spent = dict.fromkeys(Stage, 0.0)  # seconds; of equal size forever, so that it can be read meanwhile

    def add(self, stage: Stage, seconds: float) -> None:
        """Count so much time as a stage's."""
        self._spent[stage] += seconds
        self._observe(stage, seconds)

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Count the time inside as a stage's. No stage lies within another."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - start)

    def end(self) -> float:
        """The request is answered: what no stage took is `other`. Returns the seconds of the whole."""
        seconds = perf_counter() - self._start
        spent = sum(self._spent.values())
        if spent:  # a request without stages has nothing to tell
            self.add(Stage.OTHER, max(seconds - spent, 0.0))
        return seconds

    def timing_ms(self) -> dict[str, float]:
        """Milliseconds so far, by stage, and their `total`."""
        total = 1e3 * (perf_counter() - self._start)
        found = {stage.value: round(1e3 * seconds, 3) for stage, seconds in self._spent.items() if seconds}
        return {**found, Stage.OTHER.value: round(max(total - sum(found.values()), 0.0), 3), "total": round(total, 3)}
