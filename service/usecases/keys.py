"""Make, list and revoke API keys, and read the audit log."""

from offkey.schemas import AuditEntry, AuditList, Key, KeyList, KeySettings, NewKey
from service.store import KeyRecord, Store


def create_key(store: Store, settings: KeySettings) -> NewKey:
    """Make a key. Its text is in the answer and nowhere else."""
    record, token = store.keys.create(
        settings.name,
        settings.scopes,
        machine_prefix=settings.machine_prefix,
        rate_per_minute=settings.rate_per_minute,
    )
    return NewKey(**_key(record).model_dump(), key=token.text)


def list_keys(store: Store, after: str, limit: int) -> KeyList:
    """Return a page of keys, revoked ones too."""
    records = store.keys.page(after=after, limit=limit)
    return KeyList(
        keys=[_key(record) for record in records],
        next_after=records[-1].key_id if len(records) == limit else None,
    )


def revoke_key(store: Store, key_id: str) -> None:
    """Let a key open nothing from now on. Raises `OffkeyError` (unknown key)."""
    store.keys.revoke(key_id)


def list_audit(store: Store, before: int, limit: int) -> AuditList:
    """Return a page of the audit log, the newest first."""
    records = store.audit(before=before, limit=limit)
    return AuditList(
        entries=[AuditEntry.model_validate(record) for record in records],
        next_before=records[-1].audit_id if len(records) == limit else None,
    )


def _key(record: KeyRecord) -> Key:
    return Key(
        key_id=record.key_id,
        name=record.name,
        scopes=sorted(record.scopes),
        machine_prefix=record.machine_prefix,
        rate_per_minute=record.rate_per_minute,
        created_at=record.created_at,
        revoked_at=record.revoked_at,
    )
