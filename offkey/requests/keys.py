"""Describe the calls about API keys and the audit log."""

from collections.abc import Sequence

from offkey.keys import check_key_id
from offkey.requests.request import Listing, Request, read_nothing
from offkey.schemas import AuditEntry, AuditList, Key, KeyList, KeySettings, NewKey
from offkey.vocabulary import Scope


def api_keys() -> Listing[KeyList, Key]:
    """List the API keys by id, including revoked ones. Their secrets are not stored."""
    return Listing(Request("GET", "/keys", KeyList.model_validate_json), lambda page: page.keys)


def create_key(
    name: str, scopes: Sequence[Scope], *, machine_prefix: str | None = None, rate_per_minute: int | None = None
) -> Request[NewKey]:
    """Create an API key. Only this answer contains its secret.

    Args:
        name: name in the audit log.
        scopes: permissions of the key. `enroll` includes `score`, `admin` includes both.
        machine_prefix: beginning of the machine ids that the key may use; None for all machines.
        rate_per_minute: limit in requests a minute; None for no limit.
    """
    settings = KeySettings(
        name=name, scopes=list(scopes), machine_prefix=machine_prefix, rate_per_minute=rate_per_minute
    )
    return Request("POST", "/keys", NewKey.model_validate_json, json=settings, is_idempotent=False)


def revoke_key(key_id: str) -> Request[None]:
    """Revoke an API key. It is refused from the next request on."""
    return Request("DELETE", f"/keys/{check_key_id(key_id)}", read_nothing)


def audit() -> Listing[AuditList, AuditEntry]:
    """List the changes in the audit log, the newest first."""
    return Listing(Request("GET", "/audit", AuditList.model_validate_json), lambda page: page.entries, cursor="before")
