"""Choose the decision threshold of a machine, and report what it promises."""

from collections.abc import Iterator, Mapping

from offkey.schemas import DomainPromise, ThresholdChoice
from offkey.schemas import Threshold as ThresholdAnswer
from offkey.vocabulary import Domain, Rule
from service.bank import Bank
from service.domain.detector import MIN_SCALE_RECORDINGS, ClipScores
from service.domain.self_scores import SelfScores
from service.domain.threshold import Promise, Threshold, conformal_threshold, gamma_threshold, manual_threshold
from service.store import MachineRecord
from service.usecases.service import Call

USEFUL_RECORDINGS = 20
_GAMMA_RATE = 0.1  # the baselines of DCASE Task 2 decide at the 0.9 quantile


def settings_of(call: Call, record: MachineRecord) -> ThresholdChoice:
    """Return the threshold settings of a machine, or the defaults of the service."""
    rate = record.false_alarm_rate
    if rate is None and record.threshold_rule is not Rule.MANUAL:
        rate = _GAMMA_RATE if record.threshold_rule is Rule.GAMMA else call.service.settings.false_alarm_rate
    return ThresholdChoice(
        rule=record.threshold_rule, false_alarm_rate=rate, decision_threshold=record.decision_threshold
    )


def get_threshold(call: Call, machine_id: str) -> ThresholdAnswer:
    """Return the decision threshold of a machine.

    Raises:
        OffkeyError: the machine is unknown, or its bank is empty, too small or of another embedding space.
    """
    record = call.store.machine(machine_id)
    return threshold_of(call, record, call.bank(record))


def threshold_of(call: Call, record: MachineRecord, bank: Bank) -> ThresholdAnswer:
    """Return the decision threshold of a bank. Equal calibration versions mean equal thresholds."""
    return threshold_answer(call, bank, settings_of(call, record))[0]


def threshold_answer(call: Call, bank: Bank, settings: ThresholdChoice) -> tuple[ThresholdAnswer, Threshold]:
    """Return the decision threshold of a bank by a rule, as an answer and as a value of the domain."""
    found = choose_threshold(settings, bank.detector.self_scores)
    clips, pooled = bank.clips, bank.detector.pooled
    # Only if the coreset left clips out: otherwise the threshold is the same as without the setting.
    reduced = f":coreset-{call.service.settings.coreset_windows}" if bank.compared != clips else ""
    requested = settings.decision_threshold if found.rule is Rule.MANUAL else settings.false_alarm_rate
    promised = found.promised_false_alarm_rate
    threshold = ThresholdAnswer(
        decision_threshold=found.value,
        rule=found.rule,
        calibration_version=f"{bank.generation}:{bank.detector.backend}:{found.rule}:{requested!r}{reduced}",
        requested_false_alarm_rate=found.requested_false_alarm_rate,
        promised_false_alarm_rate=promised if promised < 1.0 else None,
        domains=[
            DomainPromise(
                domain=domain,
                clips=clips[domain],
                compared_clips=bank.compared[domain],
                recordings=promise.recordings,
                decision_threshold=found.values[domain],
                promised_false_alarm_rate=promise.false_alarm_rate if promise.false_alarm_rate < 1.0 else None,
                lowest_false_alarm_rate=promise.lowest_false_alarm_rate if promise.recordings > 1 else None,
                above_threshold=promise.above,
                pooled_scale=domain in pooled,
            )
            for domain, promise in found.promises.items()
        ],
        warnings=[
            *_warnings_of_rule(found),
            *_warnings_of_bank(bank),
            *(line for d, promise in found.promises.items() for line in _warnings(found, d, promise, d in pooled)),
        ],
    )
    return threshold, found


def deciding_threshold(bank: Bank, settings: ThresholdChoice, chosen: Threshold, scores: ClipScores) -> Threshold:
    """Return the threshold for clips as long as a scored one; `chosen` is that for the enrolled clips."""
    if scores.reference is bank.detector.whole:
        return chosen
    return choose_threshold(settings, scores.reference.self_scores)


def choose_threshold(settings: ThresholdChoice, self_scores: Mapping[Domain, SelfScores]) -> Threshold:
    """Choose the threshold for self-scores by a rule."""
    if settings.rule is Rule.MANUAL:
        assert settings.decision_threshold is not None
        return manual_threshold(self_scores, settings.decision_threshold)
    assert settings.false_alarm_rate is not None
    choose = gamma_threshold if settings.rule is Rule.GAMMA else conformal_threshold
    return choose(self_scores, settings.false_alarm_rate)


def _warnings_of_rule(found: Threshold) -> Iterator[str]:
    if found.rule is not Rule.CONFORMAL:
        yield f"A {found.rule} threshold promises no false-alarm rate; only the conformal rule does."


def _warnings_of_bank(bank: Bank) -> Iterator[str]:
    if bank.lacks_pieces and bank.detector.uses_details:
        yield (
            "The clips were enrolled by an earlier version, which computed no variants and no shorter cuts of them: "
            "other noise raises more alarms than it should, and nothing is promised for shorter clips. Run `offkey "
            "reembed --machine`; enroll clips again whose audio was not kept."
        )


def _warnings(found: Threshold, domain: Domain, promise: Promise, pooled: bool) -> Iterator[str]:
    recordings = f"{promise.recordings} {domain} recording{'s' if promise.recordings > 1 else ''}"
    if promise.missing_recordings:
        instead = (
            f"promise a false-alarm rate of {promise.false_alarm_rate:.3g} there, not the requested "
            f"{found.requested_false_alarm_rate:.3g}"
            if promise.false_alarm_rate < 1.0
            else "promises no false-alarm rate there"
        )
        yield f"{recordings} {instead}. Enroll {promise.missing_recordings} more of the {domain} domain."
    elif promise.recordings < USEFUL_RECORDINGS:
        yield (
            f"{recordings}: with fewer than {USEFUL_RECORDINGS} the rate that comes about varies much from bank to "
            f"bank. Enroll {USEFUL_RECORDINGS - promise.recordings} more."
        )
    if pooled:
        yield (
            f"{recordings}: too few to show how much healthy recordings of the {domain} domain differ, so the other "
            f"domain's deviation is used. Enroll {MIN_SCALE_RECORDINGS - promise.recordings} more."
        )
