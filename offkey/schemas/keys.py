"""What `/keys` and `/audit` take and answer."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, field_validator

from offkey.schemas.base import Answer
from offkey.vocabulary import ANONYMOUS_NAME, COMMAND_LINE_NAME, KEY_NAME_PATTERN, MACHINE_PREFIX_PATTERN, Scope


class KeySettings(BaseModel):
    """What a key is made with. It never changes after."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=KEY_NAME_PATTERN, description="by which the audit log names it", examples=["line-3"])
    scopes: list[Scope] = Field(
        min_length=1, max_length=len(Scope), description="enroll implies score, admin implies both"
    )
    machine_prefix: str | None = Field(
        None,
        pattern=MACHINE_PREFIX_PATTERN,
        description="with which the ids of its machines begin; null: it is for all machines",
        examples=["plant-a."],
    )
    rate_per_minute: int | None = Field(
        None, ge=1, le=1_000_000, description="most requests a minute; null: as many as come"
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name.lower() in {ANONYMOUS_NAME, COMMAND_LINE_NAME}:
            raise ValueError(f"the audit log calls something else {name.lower()}; take another name")
        return name


class Key(Answer):
    """A key, without its secret."""

    key_id: str
    name: str
    scopes: list[Scope]
    machine_prefix: str | None
    rate_per_minute: int | None
    created_at: datetime
    revoked_at: datetime | None = Field(description="null: it is in force")


class NewKey(Key):
    """A key that was just made. No later answer has `key`."""

    key: str = Field(description="what a client sends as `Authorization: Bearer`")


class KeyList(Answer):
    """Keys, by id. `next_after` is the `after` of the next page, null on the last."""

    keys: list[Key]
    next_after: str | None


class AuditEntry(Answer):
    """Who changed what."""

    audit_id: int
    at: datetime
    who: str = Field(description="name of the key; anonymous: without one; command line: while the service was stopped")
    key_id: str | None
    action: str = Field(examples=["enroll", "delete-machine"], description="docs/security.md lists them")
    machine_id: str | None
    detail: str
    request_id: str | None = Field(description="as in `X-Request-ID` and in the log")


class AuditList(Answer):
    """Changes, the newest first. `next_before` is the `before` of the next page, null on the last."""

    entries: list[AuditEntry]
    next_before: int | None
