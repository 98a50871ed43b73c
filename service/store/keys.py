"""Create, read and revoke API keys. Only the hash of a secret is stored."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token
from offkey.vocabulary import Scope
from service.store.database.base import Database, VersionedCache
from service.store.errors import translate_row_errors
from service.store.schema import api_key

_ANY = ("any key",)  # entry of the cache


@dataclass(frozen=True)
class KeyRecord:
    """A key, without its secret."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    machine_prefix: str | None  # None for all machines
    rate_per_minute: int | None  # requests; None for no limit
    created_at: datetime
    revoked_at: datetime | None  # None if it is valid


class Keys:
    """Reads the keys of a store. What it caches is checked against the version of the database."""

    def __init__(self, database: Database, cache: VersionedCache) -> None:
        self._database = database
        self._cache = cache

    def page(self, *, after: str, limit: int) -> list[KeyRecord]:
        """Return up to `limit` keys whose id sorts after `after`, by id. Revoked keys are included."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(api_key).where(api_key.c.key_id > after).order_by(api_key.c.key_id).limit(limit)
            ).mappings()
            return [_key_record(row) for row in rows]

    @property
    def none_exists(self) -> bool:
        """Whether the cache shows that no key was ever created."""
        return self._cache.get(_ANY) is False

    def exist(self) -> bool:
        """Return whether a key was ever created. Revoking the last one does not open the service again."""
        return self._cache.read(_ANY, lambda connection: connection.execute(_FIRST).first() is not None)

    def cached(self, token: Token) -> KeyRecord | None:
        """Return the key that a token proves if it is cached. None if the store must be read."""
        cached: tuple[KeyRecord, str] | None = self._cache.get(("key", token.key_id))
        return cached[0] if cached is not None and _proves(token, cached[1]) else None

    def find(self, token: Token) -> KeyRecord | None:
        """Return the key that a token proves. None if there is none, it was revoked, or the secret is wrong."""

        def load(connection: Connection) -> tuple[KeyRecord, str] | None:
            row = connection.execute(_BY_ID.where(api_key.c.key_id == token.key_id)).mappings().one_or_none()
            if row is None or row["revoked_at"] is not None or not _proves(token, row["secret_sha256"]):
                return None
            return _key_record(row), row["secret_sha256"]

        found = self._cache.read(("key", token.key_id), load)
        return None if found is None else found[0]


_FIRST = select(api_key.c.key_id).limit(1)
_BY_ID = select(api_key)


def create_key(
    connection: Connection,
    name: str,
    scopes: Iterable[Scope],
    machine_prefix: str | None,
    rate_per_minute: int | None,
) -> tuple[KeyRecord, Token]:
    """Create a key and its token."""
    token = Token.new()
    row = connection.execute(
        insert(api_key)
        .values(
            key_id=token.key_id,
            name=name,
            scopes=" ".join(sorted(set(scopes))),
            machine_prefix=machine_prefix,
            secret_sha256=token.secret_sha256,
            rate_per_minute=rate_per_minute,
            created_at=datetime.now(UTC),
        )
        .returning(api_key)
    ).mappings()
    return _key_record(row.one()), token


@translate_row_errors()
def revoke_key(connection: Connection, key_id: str) -> str | None:
    """Revoke a key and return its name. None if it was revoked before. Raises `OffkeyError` (unknown key)."""
    found = connection.execute(_BY_ID.where(api_key.c.key_id == key_id)).mappings().one_or_none()
    if found is None:
        raise OffkeyError(ErrorKind.UNKNOWN_KEY, f"There is no key {key_id}. GET /keys lists them.")
    if found["revoked_at"] is not None:
        return None
    connection.execute(update(api_key).where(api_key.c.key_id == key_id).values(revoked_at=datetime.now(UTC)))
    return str(found["name"])


def audit_detail(key: KeyRecord) -> str:
    """Return the text of the audit log about a new key."""
    machines = "" if key.machine_prefix is None else f", machines {key.machine_prefix}*"
    rate = "" if key.rate_per_minute is None else f", {key.rate_per_minute} requests a minute"
    return f"{key.key_id} {key.name}: {' '.join(sorted(key.scopes))}{machines}{rate}"


def _proves(token: Token, secret_sha256: str) -> bool:
    return hmac.compare_digest(secret_sha256.encode(), token.secret_sha256.encode())


def _key_record(row: RowMapping) -> KeyRecord:
    return KeyRecord(
        key_id=row["key_id"],
        name=row["name"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"].split()),
        machine_prefix=row["machine_prefix"],
        rate_per_minute=row["rate_per_minute"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
