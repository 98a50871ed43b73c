"""A key is valid until it is revoked in the store, whichever process revokes it."""

import asyncio

import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.schemas import KeySettings
from offkey.vocabulary import Scope
from service.usecases.keys import create_key, revoke_key
from service.usecases.service import Call


def name_of_caller(call: Call, sent: str | None) -> str:
    """Return the caller that the service identifies by the text of a key."""
    return asyncio.run(call.service.authenticator.authenticate(sent, "request-1")).name


def refused(call: Call, sent: str | None) -> None:
    with pytest.raises(OffkeyError) as error:
        name_of_caller(call, sent)
    assert error.value.kind is ErrorKind.UNAUTHENTICATED


def test_keys_that_another_process_creates_and_revokes_count_at_the_next_request(call: Call, other_call: Call) -> None:
    settings = KeySettings(name="line-1", scopes=[Scope.SCORE])
    for _ in range(2):  # the second time from the cache
        assert name_of_caller(call, None) == "anonymous"
    key = create_key(other_call.store, settings)
    refused(call, None)
    for _ in range(2):
        assert name_of_caller(call, key.key) == "line-1"
    revoke_key(other_call.store, key.key_id)
    refused(call, key.key)
    refused(call, None)  # revoking the last key does not open the service again
