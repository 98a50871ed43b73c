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
from service.usecases.service import Context
from service.usecases.threshold import settings_of, threshold_of

_NO_THRESHOLD = {ErrorKind.EMPTY_BANK, ErrorKind.BANK_TOO_SMALL, ErrorKind.EMBEDDING_SPACE_MISMATCH}


def put_machine(context: Context, machine_id: str, settings: MachineSettings) -> tuple[Machine, bool]:
    """Create a machine or describe it anew. Returns it and whether it is new."""
    record, created = context.store.put_machine(machine_id, description=settings.description)
    return _machine(context, record), created


def put_threshold(context: Context, machine_id: str, settings: ThresholdSettings) -> Machine:
    """Choose how a machine's threshold comes about. Raises `OffkeyError` (unknown machine)."""
    record = context.store.put_threshold(
        machine_id,
        settings.rule,
        false_alarm_rate=settings.false_alarm_rate,
        decision_threshold=settings.decision_threshold,
    )
    return _machine(context, record)


def get_machine(context: Context, machine_id: str) -> Machine:
    """Return a machine. Raises `OffkeyError` (unknown machine)."""
    return _machine(context, context.store.machine(machine_id))


def list_machines(context: Context, after: str, limit: int) -> MachineList:
    """Return a page of machines."""
    records = context.store.machines(after=after, limit=limit)
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


def delete_machine(context: Context, machine_id: str) -> None:
    """Delete a machine with its bank. Raises `OffkeyError` (unknown machine)."""
    context.banks.forget(context.store.delete_machine(machine_id))
    context.metrics.forget(machine_id)


def list_clips(context: Context, machine_id: str, after: int, limit: int) -> ClipList:
    """Return a page of a machine's clips. Raises `OffkeyError` (unknown machine)."""
    records = context.store.clips(machine_id, after=after, limit=limit)
    return ClipList(
        clips=[Clip.model_validate(record) for record in records],
        next_after=records[-1].clip_id if len(records) == limit else None,
    )


def delete_clip(context: Context, machine_id: str, clip_id: int) -> Machine:
    """Take a clip out of the bank and return the machine. Raises `OffkeyError` (unknown machine or clip)."""
    record = context.store.delete_clip(machine_id, clip_id)
    context.banks.forget(record.machine_key)  # the guard would go on comparing with the clip
    return _machine(context, record)


def _machine(context: Context, record: MachineRecord) -> Machine:
    return Machine(
        machine_id=record.machine_id,
        description=record.description,
        generation=record.generation,
        clips=_counts(record),
        embedding_space_id=record.embedding_space_id,
        threshold_settings=settings_of(context, record),
        threshold=_threshold(context, record),
        created_at=record.created_at,
    )


def _threshold(context: Context, record: MachineRecord) -> Threshold | None:
    try:
        return threshold_of(context, record, context.bank(record))
    except OffkeyError as error:
        if error.kind in _NO_THRESHOLD:
            return None
        raise


def _counts(record: MachineRecord) -> ClipCounts:
    return ClipCounts(source=record.source_clips, target=record.target_clips)
