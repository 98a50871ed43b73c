"""Create, list and revoke API keys, and read the audit log. Needs only a store: commands run it without a service."""

from offkey.schemas import AuditEntry, AuditList, Key, KeyList, KeySettings, NewKey
from service.store import KeyRecord, Store


def create_key(store: Store, settings: KeySettings) -> NewKey:
    """Create a key. Its text is only in this answer."""
    prefix, rate = settings.machine_prefix, settings.rate_per_minute
    with store.begin() as tx:
        record, token = tx.create_key(settings.name, settings.scopes, machine_prefix=prefix, rate_per_minute=rate)
    return NewKey(**_key(record).model_dump(), key=token.text)


def list_keys(store: Store, after: str, limit: int) -> KeyList:
    """Return a page of keys. Revoked keys are included."""
    records = store.keys.page(after=after, limit=limit)
    return KeyList(
        keys=[_key(record) for record in records],
        next_after=records[-1].key_id if len(records) == limit else None,
    )


def revoke_key(store: Store, key_id: str) -> None:
    """Revoke a key. It is refused from the next request on. Raises `OffkeyError` (unknown key)."""
    with store.begin() as tx:
        tx.revoke_key(key_id)


def list_audit(store: Store, before: int, limit: int) -> AuditList:
    """Return a page of the audit log, newest first."""
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
