"""API keys. What is kept of a secret is its hash; the secret itself leaves once, with the answer that made it."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import RowMapping, insert, select, update

from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token
from offkey.vocabulary import Scope
from service.domain.access import Caller
from service.store.audit import Action, record
from service.store.database.base import Transactions
from service.store.schema import api_key

_NO_KEY, _KEY = "no key", "key"  # in the memory of `Transactions`


@dataclass(frozen=True)
class KeyRecord:
    """A key, without its secret."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    machine_prefix: str | None  # None: for all machines
    rate_per_minute: int | None  # requests; None: as many as come
    created_at: datetime
    revoked_at: datetime | None  # None: it is in force


class Keys:
    """The keys of a store, for one caller."""

    def __init__(self, transactions: Transactions, caller: Caller) -> None:
        self._read, self._write = transactions.read, transactions.write
        self._transactions = transactions
        self._caller = caller

    def create(
        self, name: str, scopes: Iterable[Scope], *, machine_prefix: str | None, rate_per_minute: int | None
    ) -> tuple[KeyRecord, Token]:
        """Make a key. The token is not to be had again."""
        token = Token.new()
        written = " ".join(sorted(set(scopes)))
        with self._write() as connection:
            row = connection.execute(
                insert(api_key)
                .values(
                    key_id=token.key_id,
                    name=name,
                    scopes=written,
                    machine_prefix=machine_prefix,
                    secret_sha256=token.secret_sha256,
                    rate_per_minute=rate_per_minute,
                    created_at=datetime.now(UTC),
                )
                .returning(api_key)
            ).mappings()
            made = _key_record(row.one())
            record(connection, self._caller, Action.CREATE_KEY, detail=_told(made))
        return made, token

    def page(self, *, after: str, limit: int) -> list[KeyRecord]:
        """Return up to `limit` keys whose id sorts behind `after`, by id, revoked ones too."""
        with self._read() as connection:
            rows = connection.execute(
                select(api_key).where(api_key.c.key_id > after).order_by(api_key.c.key_id).limit(limit)
            ).mappings()
            return [_key_record(row) for row in rows]

    def revoke(self, key_id: str) -> None:
        """Let a key open nothing from now on. Revoking it again changes nothing.

        Raises:
            OffkeyError: there is no such key.
        """
        with self._write() as connection:
            found = connection.execute(select(api_key).where(api_key.c.key_id == key_id)).mappings().one_or_none()
            if found is None:
                raise OffkeyError(ErrorKind.UNKNOWN_KEY, f"There is no key {key_id}. GET /keys lists them.")
            if found["revoked_at"] is None:
                connection.execute(
                    update(api_key).where(api_key.c.key_id == key_id).values(revoked_at=datetime.now(UTC))
                )
                record(connection, self._caller, Action.REVOKE_KEY, detail=f"{key_id} {found['name']}")

    @property
    def none_exists(self) -> bool:
        """Whether it is known, without asking the database, that no key was ever made."""
        return self._transactions.recalled(_NO_KEY) is True

    def exist(self) -> bool:
        """Whether a key was ever made. Revoking the last one does not open the door again."""
        memory = self._transactions.memory
        with self._read() as connection:
            memory[_NO_KEY] = connection.execute(select(api_key.c.key_id).limit(1)).first() is None
        return not memory[_NO_KEY]

    def recall(self, token: Token) -> KeyRecord | None:
        """As `find`, where that is known without asking the database."""
        known: tuple[KeyRecord, str] | None = self._transactions.recalled((_KEY, token.key_id))
        return known[0] if known is not None and _proves(token, known[1]) else None

    def find(self, token: Token) -> KeyRecord | None:
        """Return the key that a token proves; None if there is none, it was revoked, or the secret is another."""
        memory = self._transactions.memory
        with self._read() as connection:
            row = connection.execute(select(api_key).where(api_key.c.key_id == token.key_id)).mappings().one_or_none()
            if row is None or row["revoked_at"] is not None or not _proves(token, row["secret_sha256"]):
                return None
            found = _key_record(row)
        memory[_KEY, token.key_id] = found, row["secret_sha256"]
        return found


def _proves(token: Token, secret_sha256: str) -> bool:
    return hmac.compare_digest(secret_sha256.encode(), token.secret_sha256.encode())


def _key_record(row: RowMapping) -> KeyRecord:
    revoked_at = row["revoked_at"]
    return KeyRecord(
        key_id=row["key_id"],
        name=row["name"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"].split()),
        machine_prefix=row["machine_prefix"],
        rate_per_minute=row["rate_per_minute"],
        created_at=row["created_at"].replace(tzinfo=UTC),
        revoked_at=None if revoked_at is None else revoked_at.replace(tzinfo=UTC),
    )


def _told(key: KeyRecord) -> str:
    machines = "" if key.machine_prefix is None else f", machines {key.machine_prefix}*"
    rate = "" if key.rate_per_minute is None else f", {key.rate_per_minute} requests a minute"
    return f"{key.key_id} {key.name}: {' '.join(sorted(key.scopes))}{machines}{rate}"
