"""Store responses, and return them to requests that repeat an `Idempotency-Key`."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from offkey.errors import ErrorKind, OffkeyError
from service.store.schema import idempotency

STORED_HOURS = 24


@dataclass(frozen=True)
class IdempotencyKey:
    """Key of a request that must be done only once.

    Attributes:
        key: text that the client chose.
        fingerprint: sha256 of everything that the response depends on.
    """

    key: str
    fingerprint: str


def find_response(connection: Connection, key: IdempotencyKey) -> str | None:
    """Return the response that was stored under a key. None if there is none.

    Raises:
        OffkeyError: the key was used for another request.
    """
    found = connection.execute(
        select(idempotency.c.fingerprint, idempotency.c.response).where(
            idempotency.c.idempotency_key == key.key, idempotency.c.stored_at > _oldest()
        )
    ).one_or_none()
    if found is None:
        return None
    if found.fingerprint != key.fingerprint:
        raise OffkeyError(
            ErrorKind.IDEMPOTENCY_KEY_REUSED,
            f"The Idempotency-Key {key.key!r} was used for another machine, domain or clips in the last "
            f"{STORED_HOURS} h. Use a new key for a new request.",
        )
    return str(found.response)


def store_response(connection: Connection, key: IdempotencyKey, machine_key: int, response: str) -> None:
    """Store a response in the transaction of the work it reports, and delete responses that are too old."""
    connection.execute(delete(idempotency).where(idempotency.c.stored_at <= _oldest()))
    connection.execute(
        insert(idempotency).values(
            idempotency_key=key.key,
            machine_key=machine_key,
            fingerprint=key.fingerprint,
            response=response,
            stored_at=datetime.now(UTC),
        )
    )


def _oldest() -> datetime:
    return datetime.now(UTC) - timedelta(hours=STORED_HOURS)
