"""Tells whether a machine's scores of late are still those of the enrolled clips."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from offkey.schemas import DomainDrift, DriftReport, DriftWindow
from offkey.vocabulary import Domain, Verdict
from service.bank import Bank
from service.domain.drift import MIN_RECORDINGS, MIN_SCORES, Drift
from service.domain.self_scores import SelfScores
from service.store.scores import RecentScore
from service.usecases.service import Context

LAST_CLIPS = 100
LAST_HOURS = 24
# Where domains or windows differ, what is told of the machine: what most asks for a person.
_ORDER = (Verdict.HIGHER, Verdict.LOWER, Verdict.STEADY, Verdict.UNKNOWN)


def get_drift(context: Context, machine_id: str) -> DriftReport:
    """Hold what was scored lately against the bank's self-scores.

    Raises:
        OffkeyError: the machine is unknown, or its bank is empty, too small or of another embedding space.
    """
    record = context.store.machine(machine_id)
    bank = context.bank(record)
    context.score_buffer.write()
    return _report(context, machine_id, record.machine_key, bank)


def watch_drift(context: Context, machine_keys: Iterable[int]) -> None:
    """Bring the metrics of machines that were scored up to date, of those whose bank is in memory."""
    for key in machine_keys:
        bank, machine_id = context.banks.at_hand(key), context.store.shift.machine_id(key)
        if bank is not None and machine_id is not None:
            report = _report(context, machine_id, key, bank)
            shifts = {
                own.domain.value: own.windows[0].median_shift
                for own in report.domains
                if own.windows[0].median_shift is not None
            }
            context.metrics.drift(machine_id, report.verdict.value, shifts)


def _report(context: Context, machine_id: str, machine_key: int, bank: Bank) -> DriftReport:
    scores = context.store.shift.recent_scores(machine_key, bank.generation, bank.detector.backend)
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
        return "Nothing: what was scored lately scores as the enrolled clips do among each other."
    if verdict is Verdict.UNKNOWN:
        missing = MIN_RECORDINGS - max(own.recordings for own in domains)
        if missing > 0:
            return f"Enroll {missing} more recordings: fewer than {MIN_RECORDINGS} of a domain are not enough to tell."
        most = max(window.n for own in domains for window in own.windows)
        return f"Wait: of {MIN_SCORES} clips that it takes, {most} were scored since the bank was changed last."
    if verdict is Verdict.HIGHER:
        return (
            "Listen to clips of late: they score higher than the enrolled ones do among each other. If the machine is "
            "healthy, its sound or the recording has changed: enroll recent healthy clips (POST /enroll). If it is "
            "not, this is a fault that grows."
        )
    return (
        "Enroll recent healthy clips (POST /enroll), and delete those of conditions that are gone: what is scored "
        "lately differs less than the enrolled clips among each other, so that the threshold is higher than it need be."
    )
