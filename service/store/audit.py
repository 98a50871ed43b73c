"""Who changed what: written in the transaction of the change, so that there is neither without the other."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import Connection, bindparam, delete, insert, select

from service.domain.access import Caller
from service.store.database.base import Transactions
from service.store.schema import audit

MAX_AUDIT_ENTRIES = 100_000  # older ones leave

_RECORD = insert(audit).returning(audit.c.audit_id)
_FORGET = delete(audit).where(audit.c.audit_id <= bindparam("oldest"))


class Action(StrEnum):
    """What can be done to what is stored."""

    CREATE_MACHINE = "create-machine"
    DESCRIBE_MACHINE = "describe-machine"
    DELETE_MACHINE = "delete-machine"
    ENROLL = "enroll"
    FORCE_ENROLL = "force-enroll"  # the clips were not asked whether they sound anomalous
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
    """Write down a change in its own transaction, and forget what is too old."""
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
    connection.execute(_FORGET, {"oldest": audit_id - MAX_AUDIT_ENTRIES})


def audit_page(transactions: Transactions, before: int, limit: int) -> list[AuditRecord]:
    """Return up to `limit` changes whose id is less than `before`, the newest first."""
    with transactions.read() as connection:
        rows = connection.execute(
            select(audit).where(audit.c.audit_id < before).order_by(audit.c.audit_id.desc()).limit(limit)
        ).mappings()
        return [
            AuditRecord(**{**row, "action": Action(row["action"]), "at": row["at"].replace(tzinfo=UTC)}) for row in rows
        ]
