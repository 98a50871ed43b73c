"""What `GET /metrics` tells Prometheus. Labels are bounded: routes by template, never machine ids."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})  # a client can send any word as a method
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one application; two applications in one process do not share them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "offkey_requests", "Answered requests.", ["method", "route", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "offkey_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._refused = Counter(
            "offkey_requests_refused",
            "Requests answered with a problem, by its type.",
            ["type"],
            registry=self._registry,
        )
        self._permits = Gauge(
            "offkey_permits",
            "Requests that are running or waiting for a thread.",
            ["pool"],
            registry=self._registry,
        )
        self._decoders_lost = Gauge(
            "offkey_decoders_lost",
            "Decoder processes that ended in the middle of a clip since the start, by cause.",
            ["cause"],
            registry=self._registry,
        )
        self._decoder_peak = Gauge(
            "offkey_decoder_peak_bytes",
            "Most resident memory that a decoder process has had since the start.",
            registry=self._registry,
        )
        self._stage_seconds = Histogram(
            "offkey_stage_seconds",
            "Time of one stage of a request, for one clip.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._scored = Counter(
            "offkey_clips_scored", "Scored clips by decision.", ["is_anomalous"], registry=self._registry
        )
        self._enrolled = Counter("offkey_clips_enrolled", "Clips added to a bank.", registry=self._registry)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is a template such as `/machines/{machine_id}`."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def refused(self, kind: str) -> None:
        """Count a request that was answered with a problem. `kind` is the last part of the problem's type."""
        self._refused.labels(kind).inc()

    def watch(self, **pools: Callable[[], int]) -> None:
        """Report how many permits each pool has given, asked for at every scrape."""
        for pool, permits in pools.items():
            self._permits.labels(pool).set_function(permits)

    def watch_decoders(self, lost: Mapping[str, int], peak_bytes: Callable[[], int]) -> None:
        """Report how many decoders were lost by each cause, and the memory of the largest."""
        for cause in lost:
            self._decoders_lost.labels(cause).set_function(partial(lost.__getitem__, cause))
        self._decoder_peak.set_function(peak_bytes)

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Time a stage: decode, embed, search or store."""
        start = perf_counter()
        try:
            yield
        finally:
            self._stage_seconds.labels(stage).observe(perf_counter() - start)

    def scored(self, is_anomalous: bool) -> None:
        """Count a scored clip."""
        self._scored.labels(str(is_anomalous).lower()).inc()

    def enrolled(self, clips: int) -> None:
        """Count clips added to a bank."""
        self._enrolled.inc(clips)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
