"""Record who changed what, in the transaction of the change: there is neither without the other."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import Connection, bindparam, delete, insert, select

from service.domain.access import Caller
from service.store.schema import audit

MAX_AUDIT_ENTRIES = 100_000  # older entries are deleted

_RECORD = insert(audit).returning(audit.c.audit_id)
_DELETE_OLD = delete(audit).where(audit.c.audit_id <= bindparam("oldest"))


class Action(StrEnum):
    """Kind of a change."""

    CREATE_MACHINE = "create-machine"
    DESCRIBE_MACHINE = "describe-machine"
    DELETE_MACHINE = "delete-machine"
    ENROLL = "enroll"
    FORCE_ENROLL = "force-enroll"  # without the guard against anomalous clips
    FEEDBACK = "feedback"
    DELETE_CLIP = "delete-clip"
    ADD_NOISE = "add-noise"
    DELETE_NOISE = "delete-noise"
    CHANGE_THRESHOLD = "change-threshold"
    REEMBED = "reembed"
    CREATE_KEY = "create-key"
    REVOKE_KEY = "revoke-key"


@dataclass(frozen=True)
class AuditRecord:
    """One change. The attributes are those of `GET /audit`."""

    audit_id: int
    at: datetime
    who: str
    key_id: str | None
    action: Action
    machine_id: str | None
    detail: str
    request_id: str | None


def record(
    connection: Connection, caller: Caller, action: Action, machine_id: str | None = None, detail: str = ""
) -> None:
    """Write an entry in the transaction of the change, and delete entries that are too old."""
    audit_id = connection.execute(
        _RECORD,
        {
            "at": datetime.now(UTC),
            "who": caller.name,
            "key_id": caller.key_id,
            "action": action.value,
            "machine_id": machine_id,
            "detail": detail,
            "request_id": caller.request_id,
        },
    ).scalar_one()
    connection.execute(_DELETE_OLD, {"oldest": audit_id - MAX_AUDIT_ENTRIES})


def audit_page(connection: Connection, before: int, limit: int) -> list[AuditRecord]:
    """Return up to `limit` changes whose id is less than `before`, newest first."""
    rows = connection.execute(
        select(audit).where(audit.c.audit_id < before).order_by(audit.c.audit_id.desc()).limit(limit)
    ).mappings()
    return [AuditRecord(**{**row, "action": Action(row["action"])}) for row in rows]
