"""Create, show, change and delete machines and their clips."""

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import (
    Clip,
    ClipCounts,
    ClipList,
    Machine,
    MachineList,
    MachineSettings,
    MachineSummary,
    Threshold,
    ThresholdSettings,
)
from service.store import MachineRecord
from service.usecases.service import Call
from service.usecases.threshold import settings_of, threshold_of

_NO_THRESHOLD = {ErrorKind.EMPTY_BANK, ErrorKind.BANK_TOO_SMALL, ErrorKind.EMBEDDING_SPACE_MISMATCH}


def put_machine(call: Call, machine_id: str, settings: MachineSettings) -> tuple[Machine, bool]:
    """Create a machine or change its description. Returns it and whether it is new."""
    with call.store.begin() as tx:
        record, created = tx.put_machine(machine_id, settings.description)
    return _machine(call, record), created


def put_threshold(call: Call, machine_id: str, settings: ThresholdSettings) -> Machine:
    """Set how a machine's threshold is chosen. Raises `OffkeyError` (unknown machine)."""
    rate, value = settings.false_alarm_rate, settings.decision_threshold
    with call.store.begin(machine_id) as tx:
        record = tx.set_threshold(settings.rule, false_alarm_rate=rate, decision_threshold=value)
    return _machine(call, record)


def get_machine(call: Call, machine_id: str) -> Machine:
    """Return a machine. Raises `OffkeyError` (unknown machine)."""
    return _machine(call, call.store.machine(machine_id))


def list_machines(call: Call, after: str, limit: int) -> MachineList:
    """Return a page of machines."""
    records = call.store.machines(after=after, limit=limit)
    return MachineList(
        machines=[
            MachineSummary(
                machine_id=record.machine_id,
                description=record.description,
                generation=record.generation,
                clips=_counts(record),
                created_at=record.created_at,
            )
            for record in records
        ],
        next_after=records[-1].machine_id if len(records) == limit else None,
    )


def delete_machine(call: Call, machine_id: str) -> None:
    """Delete a machine with its bank. Raises `OffkeyError` (unknown machine)."""
    with call.store.begin(machine_id) as tx:
        gone = tx.delete_machine()
    call.service.banks.evict(gone.machine_key)
    call.service.metrics.remove_machine(machine_id)


def list_clips(call: Call, machine_id: str, after: int, limit: int) -> ClipList:
    """Return a page of a machine's clips. Raises `OffkeyError` (unknown machine)."""
    records = call.store.clips(machine_id, after=after, limit=limit)
    return ClipList(
        clips=[Clip.model_validate(record) for record in records],
        next_after=records[-1].clip_id if len(records) == limit else None,
    )


def delete_clip(call: Call, machine_id: str, clip_id: int) -> Machine:
    """Delete a clip from the bank and return the machine. Raises `OffkeyError` (unknown machine or clip)."""
    with call.store.begin(machine_id) as tx:
        record = tx.delete_clip(clip_id)
    return _machine(call, record)


def _machine(call: Call, record: MachineRecord) -> Machine:
    return Machine(
        machine_id=record.machine_id,
        description=record.description,
        generation=record.generation,
        clips=_counts(record),
        embedding_space_id=record.embedding_space_id,
        threshold_settings=settings_of(call, record),
        threshold=_threshold(call, record),
        created_at=record.created_at,
    )


def _threshold(call: Call, record: MachineRecord) -> Threshold | None:
    try:
        return threshold_of(call, record, call.bank(record))
    except OffkeyError as error:
        if error.kind in _NO_THRESHOLD:
            return None
        raise


def _counts(record: MachineRecord) -> ClipCounts:
    return ClipCounts(source=record.source_clips, target=record.target_clips)
