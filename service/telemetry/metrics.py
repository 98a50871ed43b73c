"""Count and time for Prometheus. Labels are bounded: routes are templates, and the number of machines is limited."""

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from offkey.errors import OffkeyError
from offkey.vocabulary import JobState
from service.telemetry.stages import Stage

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})  # a client can send any word as a method
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

MAX_DRIFT_MACHINES = 100  # machines with series of their own: the first ones scored


class SizedPool(Protocol):
    """A pool of requests."""

    @property
    def slots(self) -> int:
        """Number of requests that run or wait."""


class Metrics:
    """Metrics of one service. Two services in one process do not share them."""

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
        self._abandoned = Counter(
            "offkey_requests_abandoned", "Requests whose client left before the answer.", registry=self._registry
        )
        self._slots = Gauge(
            "offkey_slots",
            "Requests that are running or waiting for a thread.",
            ["pool"],
            registry=self._registry,
        )
        self._decoders_lost = Gauge(
            "offkey_decoders_lost",
            "Decoder processes that ended while decoding a clip since the start, by cause.",
            ["cause"],
            registry=self._registry,
        )
        self._decoder_peak = Gauge(
            "offkey_decoder_peak_bytes",
            "Largest resident memory of a decoder process since the start.",
            registry=self._registry,
        )
        stage_seconds = Histogram(
            "offkey_stage_seconds",
            "Time of one stage of a request with clips. All stages of a request add up to its time.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = {stage: stage_seconds.labels(stage.value) for stage in Stage}
        self._scored = Counter(
            "offkey_clips_scored", "Scored clips by decision.", ["is_anomalous"], registry=self._registry
        )
        self._enrolled = Counter("offkey_clips_enrolled", "Clips added to a bank.", registry=self._registry)
        self._acoustics_warnings = Counter(
            "offkey_acoustics_warnings",
            "Scored clips whose acoustics differ from all enrolled clips, by measure.",
            ["measure"],
            registry=self._registry,
        )
        self._drift_shift = Gauge(
            "offkey_drift_median_shift_sigma",
            f"Shift of recent scores from those of the bank, for up to {MAX_DRIFT_MACHINES} machines.",
            ["machine_id", "domain"],
            registry=self._registry,
        )
        self._drift_machines = Gauge(
            "offkey_drift_machines",
            "Machines scored since the start, by the verdict on their drift.",
            ["verdict"],
            registry=self._registry,
        )
        self._jobs = Gauge("offkey_jobs", "Stored jobs, by state.", ["state"], registry=self._registry)
        self._job_states: Callable[[], Mapping[str, int]] = dict
        self._drift_lock = Lock()
        self._verdicts: dict[str, str] = {}  # by machine id
        self._shown: dict[str, list[str]] = {}  # domains by machine id

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is a template such as `/machines/{machine_id}`."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def refused(self, kind: str) -> None:
        """Count a request that was answered with a problem. `kind` is the last part of the problem's type."""
        self._refused.labels(kind).inc()

    def abandoned(self) -> None:
        """Count a request whose client left before its answer."""
        self._abandoned.inc()

    def watch_pools(self, pools: Mapping[str, SizedPool]) -> None:
        """Report the requests that run or wait in each pool, read at every scrape."""
        for name, pool in pools.items():
            self._slots.labels(name).set_function(partial(getattr, pool, "slots"))

    def watch_decoders(self, lost: Mapping[str, int], peak_bytes: Callable[[], int]) -> None:
        """Report how many decoders were lost by each cause, and the memory of the largest."""
        for cause in lost:
            self._decoders_lost.labels(cause).set_function(partial(lost.__getitem__, cause))
        self._decoder_peak.set_function(peak_bytes)

    def watch_jobs(self, states: Callable[[], Mapping[str, int]]) -> None:
        """Report the number of jobs in each state, read at every scrape."""
        self._job_states = states

    def stage(self, stage: Stage, seconds: float) -> None:
        """Observe the seconds of a stage."""
        self._stages[stage].observe(seconds)

    def scored(self, is_anomalous: bool) -> None:
        """Count a scored clip."""
        self._scored.labels(str(is_anomalous).lower()).inc()

    def enrolled(self, clips: int) -> None:
        """Count clips added to a bank."""
        self._enrolled.inc(clips)

    def acoustics_warned(self, measures: Iterable[str]) -> None:
        """Count a scored clip that differs from all enrolled clips in these measures."""
        for measure in measures:
            self._acoustics_warnings.labels(measure).inc()

    def drift(self, machine_id: str, verdict: str, shifts: Mapping[str, float]) -> None:
        """Report the drift of a machine, and its shift (sigma) by domain if it is among the first ones."""
        with self._drift_lock:
            self._verdicts[machine_id] = verdict
            self._count_verdicts()
            if machine_id in self._shown or len(self._shown) < MAX_DRIFT_MACHINES:
                self._hide(machine_id)
                self._shown[machine_id] = list(shifts)
                for domain, shift in shifts.items():
                    self._drift_shift.labels(machine_id, domain).set(shift)

    def remove_machine(self, machine_id: str) -> None:
        """Remove the series of a deleted machine."""
        with self._drift_lock:
            self._verdicts.pop(machine_id, None)
            self._count_verdicts()
            self._hide(machine_id)

    def _count_verdicts(self) -> None:
        self._drift_machines.clear()
        for verdict, machines in Counts(self._verdicts.values()).items():
            self._drift_machines.labels(verdict).set(machines)

    def _hide(self, machine_id: str) -> None:
        for domain in self._shown.pop(machine_id, []):
            self._drift_shift.remove(machine_id, domain)

    def exposition(self) -> bytes:
        """Return the metrics in the Prometheus text format."""
        with suppress(OffkeyError):  # without the store, the last counts are reported
            found = self._job_states()
            for state in JobState:
                self._jobs.labels(state.value).set(found.get(state.value, 0))
        return generate_latest(self._registry)
