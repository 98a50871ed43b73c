"""Define the JSON about API keys and the audit log."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator

from offkey.schemas.base import Answer
from offkey.vocabulary import ANONYMOUS_NAME, COMMAND_LINE_NAME, KEY_NAME_PATTERN, MACHINE_PREFIX_PATTERN, Scope


class KeySettings(BaseModel):
    """Settings of a new key. They never change."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=KEY_NAME_PATTERN, description="name in the audit log", examples=["line-3"])
    scopes: list[Scope] = Field(
        min_length=1, max_length=len(Scope), description="permissions; `enroll` includes `score`, `admin` includes both"
    )
    machine_prefix: str | None = Field(
        None,
        pattern=MACHINE_PREFIX_PATTERN,
        description="beginning of the machine ids that the key may use; null if it may use all",
        examples=["plant-a."],
    )
    rate_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="limit in requests a minute; null if there is none"
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name.lower() in {ANONYMOUS_NAME, COMMAND_LINE_NAME}:
            raise ValueError(f"{name.lower()} has another meaning in the audit log; use another name")
        return name


class Key(Answer):
    """A key, without its secret."""

    key_id: str
    name: str
    scopes: list[Scope]
    machine_prefix: str | None
    rate_per_minute: int | None
    created_at: datetime
    revoked_at: datetime | None = Field(description="time of the revocation; null if the key is valid")


class NewKey(Key):
    """A new key. Only this answer contains `key`."""

    key: str = Field(description="value for the header `Authorization: Bearer`")


class KeyList(Answer):
    """Keys, by id. `next_after` is the `after` of the next page, null on the last."""

    keys: list[Key]
    next_after: str | None


class AuditEntry(Answer):
    """One change in the audit log."""

    audit_id: int
    at: datetime
    who: str = Field(
        description="name of the key; `anonymous` if there was none, `command line` if the service was stopped"
    )
    key_id: str | None
    action: str = Field(
        examples=["enroll", "delete-machine"], description="action; docs/how-to/keys.md lists all of them"
    )
    machine_id: str | None
    detail: str
    request_id: str | None = Field(
        description="id in `X-Request-ID` and in the log; null for changes from the command line"
    )


class AuditList(Answer):
    """Changes, the newest first. `next_before` is the `before` of the next page, null on the last."""

    entries: list[AuditEntry]
    next_before: int | None
