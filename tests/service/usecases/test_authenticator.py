"""A caller is identified by the text of a key, whatever protocol carries it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from launch import settings_of
from offkey.errors import ErrorKind, OffkeyError
from offkey.keys import Token
from offkey.vocabulary import Scope
from service.domain.access import ANONYMOUS, Caller
from service.store import KeyRecord, Store
from service.usecases.admission import WorkPool
from service.usecases.authenticate import Authenticator, OpenToNetworkError

REQUEST_ID = "request-1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


def create_key(
    store: Store, name: str = "line 3", *scopes: Scope, prefix: str | None = None, rate: int | None = None
) -> tuple[KeyRecord, Token]:
    with store.begin() as tx:
        return tx.create_key(name, scopes or (Scope.SCORE,), machine_prefix=prefix, rate_per_minute=rate)


def revoke(store: Store, key: KeyRecord) -> None:
    with store.begin() as tx:
        tx.revoke_key(key.key_id)


def scenario(store: Store, steps: Callable[[Authenticator, WorkPool], Coroutine[Any, Any, None]]) -> None:
    """Run the steps of a test with an authenticator of two threads, which lets no request wait."""

    async def run() -> None:
        pool = WorkPool(2, queue_limit=0)
        try:
            await steps(Authenticator(settings_of(Path("unused")), store, pool), pool)
        finally:
            await pool.close(10)

    asyncio.run(run())


async def refusal(authenticator: Authenticator, sent: str | None) -> OffkeyError:
    with pytest.raises(OffkeyError) as refused:
        await authenticator.authenticate(sent, REQUEST_ID)
    return refused.value


@pytest.mark.parametrize("sent", [None, "", "of a proxy"])
def test_every_caller_is_anonymous_while_no_key_exists(store: Store, sent: str | None) -> None:
    async def steps(authenticator: Authenticator, _: WorkPool) -> None:
        for _ in range(2):  # from the store, then from the cache
            caller = await authenticator.authenticate(sent, REQUEST_ID)
            assert caller == Caller(ANONYMOUS.name, scopes=ANONYMOUS.scopes, request_id=REQUEST_ID)
        create_key(store)
        assert (await refusal(authenticator, sent)).kind is ErrorKind.UNAUTHENTICATED

    scenario(store, steps)


def test_the_caller_has_the_properties_of_its_key(store: Store) -> None:
    key, token = create_key(store, "line 3", Scope.SCORE, Scope.ENROLL, prefix="line-3.")

    async def steps(authenticator: Authenticator, _: WorkPool) -> None:
        for request_id in ("first", "second"):
            assert await authenticator.authenticate(token.text, request_id) == Caller(
                "line 3", key.key_id, frozenset({Scope.SCORE, Scope.ENROLL}), "line-3.", request_id
            )

    scenario(store, steps)


def test_only_the_whole_key_is_accepted(store: Store) -> None:
    _, token = create_key(store)
    _, other = create_key(store, "other")
    key_id, secret = token.text.split("_")[1:]
    wrong = [
        None, "", "nonsense", token.text[:-1], f"{token.text}0", token.text.upper(), secret, key_id,
        f"offkey_{key_id}_{other.text.split('_')[2]}", f"offkey_{'0' * 12}_{secret}",
    ]  # fmt: skip

    async def steps(authenticator: Authenticator, _: WorkPool) -> None:
        for sent in wrong:
            assert (await refusal(authenticator, sent)).kind is ErrorKind.UNAUTHENTICATED, sent
        await authenticator.authenticate(token.text, REQUEST_ID)  # now the key is cached
        for sent in wrong:
            error = await refusal(authenticator, sent)
            assert error.kind is ErrorKind.UNAUTHENTICATED, sent
            assert secret not in error.detail
        await authenticator.authenticate(token.text, REQUEST_ID)

    scenario(store, steps)


def test_a_revoked_key_is_refused_from_the_next_request_on(store: Store) -> None:
    key, token = create_key(store)

    async def steps(authenticator: Authenticator, _: WorkPool) -> None:
        await authenticator.authenticate(token.text, REQUEST_ID)
        revoke(store, key)
        assert (await refusal(authenticator, token.text)).kind is ErrorKind.UNAUTHENTICATED
        # Revoking the last key does not open the service.
        assert (await refusal(authenticator, None)).kind is ErrorKind.UNAUTHENTICATED

    scenario(store, steps)


def test_a_key_has_as_many_requests_a_minute_as_it_may_make(store: Store) -> None:
    _, limited = create_key(store, "limited", rate=3)
    _, free = create_key(store, "free")

    async def steps(authenticator: Authenticator, _: WorkPool) -> None:
        for _ in range(3):
            await authenticator.authenticate(limited.text, REQUEST_ID)
        error = await refusal(authenticator, limited.text)
        assert error.kind is ErrorKind.RATE_LIMITED
        assert error.values["rate_per_minute"] == 3
        assert 1 <= error.values["retry_after"] <= 20
        for _ in range(10):
            await authenticator.authenticate(free.text, REQUEST_ID)

    scenario(store, steps)


def test_a_cached_key_needs_no_thread_and_others_are_bounded(store: Store) -> None:
    """Requests without a valid key cannot keep the callers with one out."""
    _, token = create_key(store)

    async def steps(authenticator: Authenticator, pool: WorkPool) -> None:
        await authenticator.authenticate(token.text, REQUEST_ID)
        async with AsyncExitStack() as held:
            for _ in range(2):
                await held.enter_async_context(pool.slot())
            caller = await authenticator.authenticate(token.text, REQUEST_ID)
            assert caller.name == "line 3"
            assert (await refusal(authenticator, "nonsense")).kind is ErrorKind.OVERLOADED

    scenario(store, steps)


@pytest.mark.parametrize(("host", "open_to_network", "starts"), [
    ("127.0.0.1", False, True), ("::1", False, True), ("0.0.0.0", False, False), ("", False, False),
    ("0.0.0.0", True, True),
])  # fmt: skip
def test_a_service_without_a_key_is_not_open_to_the_network(
    store: Store, host: str, open_to_network: bool, starts: bool
) -> None:
    settings = settings_of(Path("unused"), host=host, open_to_network=open_to_network)
    pool = WorkPool(1, queue_limit=0)
    if not starts:
        with pytest.raises(OpenToNetworkError, match="There is no key"):
            Authenticator(settings, store, pool)
        create_key(store)
    Authenticator(settings, store, pool)
