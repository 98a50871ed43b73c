"""The clients have every route of the OpenAPI document, with its parameters."""

import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from offkey import AsyncClient, Client, Domain, Scope, ThresholdSettings, UnreachableError

# Each method of a client with all its arguments.
CALLS: dict[str, Callable[[Any, Path], object]] = {
    "score": lambda client, _: client.score("fan-1", b"x", neighbors=2, localize=True),
    "enroll": lambda client, _: client.enroll("fan-1", b"x", domain=Domain.TARGET, recording="tape", force=True),
    "enroll_archive": lambda client, _: client.enroll_archive(
        "fan-1", b"x", domain=Domain.TARGET, recording="tape", force=True
    ),
    "feedback": lambda client, _: client.feedback("fan-1", b"x", domain=Domain.TARGET, recording="tape"),
    "add_noise": lambda client, _: client.add_noise("fan-1", b"x"),
    "machines": lambda client, _: list(client.machines()),
    "machine": lambda client, _: client.machine("fan-1"),
    "put_machine": lambda client, _: client.put_machine("fan-1", description="Hall 2"),
    "delete_machine": lambda client, _: client.delete_machine("fan-1"),
    "threshold": lambda client, _: client.threshold("fan-1"),
    "put_threshold": lambda client, _: client.put_threshold("fan-1", ThresholdSettings()),
    "reset_threshold": lambda client, _: client.reset_threshold("fan-1"),
    "drift": lambda client, _: client.drift("fan-1"),
    "clips": lambda client, _: list(client.clips("fan-1")),
    "delete_clip": lambda client, _: client.delete_clip("fan-1", 1),
    "noise": lambda client, _: client.noise("fan-1"),
    "delete_noise": lambda client, _: client.delete_noise("fan-1", 1),
    "jobs": lambda client, _: list(client.jobs()),
    "job": lambda client, _: client.job(1),
    "job_entries": lambda client, _: list(client.job_entries(1)),
    "cancel_job": lambda client, _: client.cancel_job(1),
    "start_snapshot": lambda client, _: client.start_snapshot(),
    "snapshots": lambda client, _: client.snapshots(),
    "delete_snapshot": lambda client, _: client.delete_snapshot("x.tar"),
    "download_snapshot": lambda client, folder: client.download_snapshot("x.tar", folder),
    "models": lambda client, _: client.models(),
    "reembed": lambda client, _: client.reembed("fan-1"),
    "api_keys": lambda client, _: list(client.api_keys()),
    "create_key": lambda client, _: client.create_key("ops", [Scope.ADMIN], machine_prefix="a", rate_per_minute=1),
    "revoke_key": lambda client, _: client.revoke_key("0" * 12),
    "audit": lambda client, _: list(client.audit()),
    "info": lambda client, _: client.info(),
    "metrics": lambda client, _: client.metrics(),
    "alive": lambda client, _: client.alive(),
    "ready": lambda client, _: client.ready(),
    "wait": lambda client, _: client.wait(1, timeout=1),
}
WITHOUT_ROUTE = {"close", "send", "items"}

# `name` is for a clip as the raw body. The clients send forms, and lists by pages of the default size.
NOT_SENT = {"name", "limit", "after", "before"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_each_method_is_tested_here(kind: type) -> None:
    public = {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}
    assert public == CALLS.keys() | WITHOUT_ROUTE


def test_the_clients_have_the_same_methods_and_arguments() -> None:
    for name in CALLS:
        blocking, awaited = inspect.signature(getattr(Client, name)), inspect.signature(getattr(AsyncClient, name))
        assert blocking.parameters.keys() == awaited.parameters.keys(), name
        assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name))
    assert inspect.signature(Client.__init__).parameters.keys() == inspect.signature(AsyncClient).parameters.keys() | {
        "self"
    }


def test_every_route_can_be_called_with_every_parameter(
    connect: Callable[..., Any], record: Callable[..., Any], api: TestClient, tmp_path: Path
) -> None:
    document = api.get("/openapi.json").json()
    sent: dict[tuple[str, str], set[str]] = {}
    for call in CALLS.values():
        service = record(httpx2.Response(200))
        with suppress(UnreachableError):  # the empty response is an answer of few routes
            call(connect(service), tmp_path)
        request = service.requests[0]
        sent.setdefault((request.method, request.url.path), set()).update(request.url.params)
        sent[request.method, request.url.path].update(name for name in request.headers if name == "idempotency-key")
    missing = []
    for template, operations in document["paths"].items():
        path = re.compile(re.sub(r"\{\w+\}", "[^/]+", template))
        for method, operation in operations.items():
            parameters = {each["name"].lower() for each in operation.get("parameters", ()) if each["in"] != "path"}
            found = [names for (verb, url), names in sent.items() if verb == method.upper() and path.fullmatch(url)]
            if not found or not parameters - NOT_SENT <= set.union(*found):
                missing.append((method, template, parameters))
    assert not missing
