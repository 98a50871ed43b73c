"""Compare the recent scores of a machine with the scores of its enrolled clips."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from offkey.schemas import DomainDrift, DriftReport, DriftWindow
from offkey.vocabulary import Domain, Verdict
from service.bank import Bank
from service.domain.drift import MIN_RECORDINGS, MIN_SCORES, Drift
from service.domain.self_scores import SelfScores
from service.store import Store
from service.store.scores import RecentScore
from service.usecases.service import Call, Service

LAST_CLIPS = 100
LAST_HOURS = 24
# If domains or windows differ, the verdict of the machine is the one that most needs attention.
_ORDER = (Verdict.HIGHER, Verdict.LOWER, Verdict.STEADY, Verdict.UNKNOWN)


def get_drift(call: Call, machine_id: str) -> DriftReport:
    """Compare the recent scores of a machine with the self-scores of its bank.

    Raises:
        OffkeyError: the machine is unknown, or its bank is empty, too small or of another embedding space.
    """
    record = call.store.machine(machine_id)
    bank = call.bank(record)
    call.service.score_buffer.write()
    return _report(call.store, machine_id, record.machine_key, bank)


def watch_drift(service: Service, machine_keys: Iterable[int]) -> None:
    """Update the drift metrics of scored machines whose bank is cached."""
    for key in machine_keys:
        bank, machine_id = service.banks.cached(key), service.store.scores.machine_id(key)
        if bank is not None and machine_id is not None:
            report = _report(service.store, machine_id, key, bank)
            shifts = {
                own.domain.value: own.windows[0].median_shift
                for own in report.domains
                if own.windows[0].median_shift is not None
            }
            service.metrics.drift(machine_id, report.verdict.value, shifts)


def _report(store: Store, machine_id: str, machine_key: int, bank: Bank) -> DriftReport:
    scores = store.scores.recent_scores(machine_key, bank.generation, bank.detector.backend)
    domains = [
        _of_domain(domain, own, [one for one in scores if one.domain is domain])
        for domain, own in bank.detector.self_scores.items()
    ]
    verdict = _worst(own.verdict for own in domains)
    return DriftReport(
        machine_id=machine_id,
        generation=bank.generation,
        verdict=verdict,
        advice=_advice(verdict, domains),
        domains=domains,
    )


def _of_domain(domain: Domain, own: SelfScores, scores: Sequence[RecentScore]) -> DomainDrift:
    day = datetime.now(UTC) - timedelta(hours=LAST_HOURS)
    windows = [
        _window(f"last {LAST_CLIPS} clips", own, scores[-LAST_CLIPS:]),
        _window(f"last {LAST_HOURS} hours", own, [one for one in scores if one.scored_at >= day]),
    ]
    return DomainDrift(
        domain=domain,
        recordings=own.recordings,
        verdict=_worst(window.verdict for window in windows),
        windows=windows,
    )


def _window(name: str, own: SelfScores, scores: Sequence[RecentScore]) -> DriftWindow:
    if not scores:
        return DriftWindow(window=name, n=0, since=None, median_shift=None, p_value=None, verdict=Verdict.UNKNOWN)
    found = Drift.of(own, np.array([one.anomaly_score for one in scores]))
    return DriftWindow(
        window=name,
        n=found.scores,
        since=scores[0].scored_at,
        median_shift=found.median_shift,
        p_value=found.p_value,
        verdict=found.verdict,
    )


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    return min(verdicts, key=_ORDER.index)


def _advice(verdict: Verdict, domains: Sequence[DomainDrift]) -> str:
    if verdict is Verdict.STEADY:
        return "Nothing to do: recent clips score like the enrolled clips do among each other."
    if verdict is Verdict.UNKNOWN:
        missing = MIN_RECORDINGS - max(own.recordings for own in domains)
        if missing > 0:
            return f"Enroll {missing} more recordings: fewer than {MIN_RECORDINGS} of a domain are not enough."
        most = max(window.n for own in domains for window in own.windows)
        return f"Wait: {MIN_SCORES} scored clips are needed, and {most} were scored since the last change of the bank."
    if verdict is Verdict.HIGHER:
        return (
            "Listen to recent clips: they score higher than the enrolled clips do among each other. If the machine is "
            "healthy, its sound or the recording has changed: enroll recent healthy clips (POST /enroll). If it is "
            "not, this is a fault that grows."
        )
    return (
        "Enroll recent healthy clips (POST /enroll), and delete clips of conditions that no longer occur: recent clips "
        "differ less than the enrolled clips do among each other, so the threshold is higher than necessary."
    )
