"""Fixtures of the use cases' tests: a running service, and a second one on the same store."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from service.bank import BankCache
from service.domain.access import COMMAND_LINE
from service.store import Store
from service.store.database.lock import FolderLock
from service.store.database.sqlite import SqliteDatabase
from service.usecases.service import Call, Service


@pytest.fixture
def call(api: TestClient) -> Call:
    """A request to the service of `api`."""
    service: Service = api.app.state.service
    return service.call(COMMAND_LINE)


@pytest.fixture
def other_call(call: Call) -> Iterator[Call]:
    """A request to a second service on the same folder, as in another process: nothing in memory is shared.

    It has a store and a bank cache of its own; the encoder and the decoders hold no state of machines.
    """
    data_dir = call.service.settings.data_dir
    store = Store(SqliteDatabase(data_dir), data_dir, FolderLock(data_dir, "other.lock"))
    banks = BankCache(exact_limit=10_000, max_bytes=2**20)
    with closing(store):
        yield replace(call.service, store=store, banks=banks).call(COMMAND_LINE)


@pytest.fixture(params=["this process", "another process"])
def writer(request: pytest.FixtureRequest, call: Call, other_call: Call) -> Call:
    """A request that changes a bank: to the service under test, and to another one."""
    return call if request.param == "this process" else other_call


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Generations of the banks that are built from now on, in order."""
    generations, build = list[int](), BankCache._build

    def record(cache: BankCache, *arguments: object) -> object:
        bank = build(cache, *arguments)
        generations.append(bank.generation)
        return bank

    monkeypatch.setattr(BankCache, "_build", record)
    return generations
