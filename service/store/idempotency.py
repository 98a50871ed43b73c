"""Answers that are given again to a request with the same `Idempotency-Key`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from offkey.errors import ErrorKind, OffkeyError
from service.store.records import Enrolled, MachineRecord
from service.store.schema import idempotency

KEPT_HOURS = 24


@dataclass(frozen=True)
class Once:
    """A request that is to be done once however often it comes."""

    key: str
    fingerprint: str  # sha256 of all that the answer depends on
    answer: Callable[[Sequence[Enrolled], MachineRecord], str]  # of the clips that were added


class AnsweredError(Exception):
    """The request was answered before, with `answer`."""

    def __init__(self, answer: str) -> None:
        super().__init__("answered before")
        self.answer = answer


def earlier_answer(connection: Connection, key: str, fingerprint: str) -> str | None:
    """Return the answer that a request with this key was given.

    Raises:
        OffkeyError: it was another request.
    """
    found = connection.execute(
        select(idempotency.c.fingerprint, idempotency.c.answer).where(
            idempotency.c.idempotency_key == key, idempotency.c.answered_at > _horizon()
        )
    ).one_or_none()
    if found is None:
        return None
    if found.fingerprint != fingerprint:
        raise OffkeyError(
            ErrorKind.IDEMPOTENCY_KEY_REUSED,
            f"The Idempotency-Key {key!r} came with another machine, domain or clips in the last {KEPT_HOURS} h. Use a "
            "new key for a new request.",
        )
    return str(found.answer)


def keep_answer(connection: Connection, once: Once, machine_key: int, answer: str) -> None:
    """Keep an answer, in the transaction of what it tells of, and forget those that are too old."""
    connection.execute(delete(idempotency).where(idempotency.c.answered_at <= _horizon()))
    connection.execute(
        insert(idempotency).values(
            idempotency_key=once.key,
            machine_key=machine_key,
            fingerprint=once.fingerprint,
            answer=answer,
            answered_at=datetime.now(UTC),
        )
    )


def _horizon() -> datetime:
    return datetime.now(UTC) - timedelta(hours=KEPT_HOURS)
