"""Every route needs a key of its scope: checked on the route table of the application."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute

from launch import in_process
from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import Scope
from service.domain.access import Caller
from service.http.auth import AuthenticatedRoute
from service.settings import Settings
from service.store import MachineRecord, Store

# What anybody may have: the probes, and pages that are the same in every installation.
OPEN = {"/", "/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/static-offline-docs"}


def routes(table: list[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route, also of routers that are included."""
    for route in table:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from routes(inner.routes)


def guarded(app: FastAPI) -> list[AuthenticatedRoute]:
    """The routes that need a key. Fails if there is one that is neither guarded nor known to be open."""
    found = []
    for route in routes(app.routes):
        if isinstance(route, AuthenticatedRoute):
            found.append(route)
        else:
            assert getattr(route, "path", None) in OPEN, f"{route} is open"
    return found


def concrete(route: APIRoute, machine_id: str = "fan-1") -> tuple[str, str]:
    """A request for a route: its method and path."""
    path = route.path
    for name, value in {
        "machine_id": machine_id,
        "clip_id": "1",
        "noise_id": "1",
        "key_id": "0" * 12,
        "job_id": "1",
        "name": "x",
    }.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, f"{path}: give its parameters a value"
    (method,) = route.methods
    return method, path


def make(api: TestClient, name: str, *scopes: str, key: str | None = None, **more: object) -> str:
    answer = api.post("/keys", json={"name": name, "scopes": scopes, **more}, headers=bearer(key))
    assert answer.status_code == 201, answer.text
    text: str = answer.json()["key"]
    return text


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def broken(key: str | None) -> dict[str, Any]:
    """Return a body that is no JSON. FastAPI would refuse it before it calls a dependency."""
    return {"headers": {**bearer(key), "Content-Type": "application/json"}, "content": b"{"}


def kind(answer: Any) -> str:
    found: str = answer.json()["type"].rpartition(":")[2]
    return found


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, str]]]:
    """The application with a machine `fan-1` and a key of each scope, by scope."""
    with in_process(tmp_path_factory.mktemp("data"), workers=2) as api:
        assert api.put("/machines/fan-1").status_code == 201
        admin = make(api, "ops", "admin")
        others = {scope: make(api, f"for {scope}", scope, key=admin) for scope in ("score", "enroll")}
        yield api, {"admin": admin, **others}


def test_every_route_needs_a_key_or_is_known_to_be_open(locked: tuple[TestClient, dict[str, str]]) -> None:
    api, keys = locked
    table = guarded(api.app)
    assert len(table) > 15
    for route in table:
        method, path = concrete(route)
        # Without a key, nothing is reported about the body and the parameters.
        for wrong in (None, "", "nonsense", keys["admin"][:-1], f"{keys['admin']}0", keys["admin"][:-4] + "beef"):
            answer = api.request(method, path, **broken(wrong))
            assert (answer.status_code, kind(answer)) == (401, "unauthenticated"), (method, path, wrong)
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="offkey"'
            assert not wrong or wrong not in answer.text
        assert api.request(method, path, headers={"Authorization": f"Basic {keys['admin']}"}).status_code == 401
        assert api.request(method, path, params={"key": keys["admin"]}).status_code == 401
    for page in ("/livez", "/readyz", "/docs", "/openapi.json"):
        assert api.get(page).status_code == 200


def test_a_forgotten_route_is_noticed(api: TestClient) -> None:
    api.app.get("/forgotten")(lambda: None)
    with pytest.raises(AssertionError, match="forgotten"):
        guarded(api.app)
    with pytest.raises(TypeError, match="names 0 scopes"):
        AuthenticatedRoute("/forgotten", lambda: None)


def test_a_route_outside_of_the_guard_fails_rather_than_lets_in(api: TestClient) -> None:
    route = next(iter(guarded(api.app)))
    api.app.add_api_route("/unguarded", lambda: "secret", dependencies=route.dependencies)
    answer = api.get("/unguarded")
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_each_scope_opens_what_it_should(locked: tuple[TestClient, dict[str, str]]) -> None:
    api, keys = locked
    found: dict[str, set[str]] = {scope: set() for scope in keys}
    for scope, key in keys.items():
        for route in guarded(api.app):
            method, path = concrete(route, machine_id="no-such-machine")
            answer = api.request(method, path, **broken(key))
            assert answer.status_code != 401, (method, path)
            if answer.status_code == 403:
                assert kind(answer) == "forbidden"
                assert answer.json()["needed_scope"] == route.scope
                assert f"needs {route.scope}" in answer.json()["detail"]
            else:
                found[scope].add(f"{method} {route.path}")
    score = {
        "POST /score", "GET /info", "GET /metrics", "GET /machines", "GET /machines/{machine_id}",
        "GET /machines/{machine_id}/threshold", "GET /machines/{machine_id}/clips",
            "GET /machines/{machine_id}/drift", "GET /machines/{machine_id}/noise", "GET /models",
    }  # fmt: skip
    enroll = {
        "POST /enroll", "POST /feedback", "PUT /machines/{machine_id}", "DELETE /machines/{machine_id}/clips/{clip_id}",
            "POST /noise", "DELETE /machines/{machine_id}/noise/{noise_id}",
        "GET /jobs", "GET /jobs/{job_id}", "GET /jobs/{job_id}/entries", "DELETE /jobs/{job_id}",
    }  # fmt: skip
    admin = {
        "DELETE /machines/{machine_id}", "PUT /machines/{machine_id}/threshold",
        "DELETE /machines/{machine_id}/threshold", "POST /keys", "GET /keys", "DELETE /keys/{key_id}", "GET /audit",
        "POST /reembed", "POST /snapshots", "GET /snapshots", "GET /snapshots/{name}", "DELETE /snapshots/{name}",
    }  # fmt: skip
    assert found == {"score": score, "enroll": score | enroll, "admin": score | enroll | admin}
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "keys.md").read_text()
    for scope, own in (("score", score), ("enroll", enroll), ("admin", admin)):
        (row,) = re.findall(rf"^\| `{scope}` \|(.*)\|$", page, re.MULTILINE)
        assert set(re.findall(r"`([A-Z]+ /[^`]*)`", row)) == own


def test_the_document_says_which_key_a_route_needs(locked: tuple[TestClient, dict[str, str]]) -> None:
    api, _ = locked
    document = api.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    needed = {(concrete(route)[0].lower(), route.path) for route in guarded(api.app)}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if (method, path) in needed:
                assert operation["security"] == [{"key": []}], (method, path)
                assert {"401", "403", "429", "503"} <= set(operation["responses"])
            else:
                assert "security" not in operation
                assert path in OPEN


def test_this_computer_needs_no_key_until_one_is_created(settings: Settings) -> None:
    with in_process(settings) as api:
        assert api.get("/machines").status_code == 200
        assert api.get("/machines", headers={"Authorization": "Basic of-a-proxy"}).status_code == 200
        admin = make(api, "ops", "admin")
        assert api.get("/machines").status_code == 401
        key_id = admin.split("_")[1]
        assert api.delete(f"/keys/{key_id}", headers=bearer(admin)).status_code == 204
        assert api.get("/machines").status_code == 401  # revoking the last key does not open the service
    with in_process(settings) as api:
        assert api.get("/machines").status_code == 401


def test_a_key_is_for_the_machines_of_its_prefix(api: TestClient, fan: Callable[..., bytes]) -> None:
    for machine_id in ("a.fan-1", "a.fan-2", "A.fan-1", "b.fan-1"):
        api.put(f"/machines/{machine_id}")
    admin = make(api, "ops", "admin")
    mine = bearer(make(api, "plant a", "admin", key=admin, machine_prefix="a."))
    listed = api.get("/machines", headers=mine).json()["machines"]
    assert [machine["machine_id"] for machine in listed] == ["a.fan-1", "a.fan-2"]
    assert len(api.get("/machines", headers=bearer(admin)).json()["machines"]) == 4

    for route in guarded(api.app):
        for other in ("b.fan-1", "A.fan-1", "ghost"):
            method, path = concrete(route, machine_id=other)
            named = {"machine_id": other} if "{machine_id}" not in route.path else {}
            if route.scope is Scope.ADMIN and named:
                answer = api.request(method, path, headers=mine)
                assert "whole service" in answer.json()["detail"]
            else:
                answer = api.request(method, path, params=named, headers=mine)
            assert (answer.status_code, kind(answer)) == (403, "forbidden"), (method, path)
            assert answer.json()["machine_prefix"] == "a."

    clip = fan(0)
    for route in ("/score", "/enroll", "/feedback"):  # the id may come in the body
        form = {"files": {"clips": ("c.wav", clip)}, "data": {"machine_id": "b.fan-1"}, "headers": mine}
        answer = api.post(route, **form)
        assert (answer.status_code, kind(answer)) == (403, "forbidden"), route
    assert api.post("/enroll?machine_id=a.fan-1", content=clip, headers=mine).status_code == 201
    assert api.delete("/machines/a.fan-2", headers=mine).status_code == 204
    assert api.get("/machines/b.fan-1", headers=bearer(admin)).json()["clips"] == {"source": 0, "target": 0}


def test_an_answer_that_is_given_again_is_of_an_own_machine(api: TestClient, fan: Callable[..., bytes]) -> None:
    api.put("/machines/b.fan-1")
    admin = make(api, "ops", "admin")
    mine = make(api, "plant a", "enroll", key=admin, machine_prefix="a.")

    def enroll(key: str) -> int:
        headers = {**bearer(key), "Idempotency-Key": "once"}
        form = {"files": {"clips": ("c.wav", fan(0))}, "data": {"machine_id": "b.fan-1"}}
        return api.post("/enroll", headers=headers, **form).status_code

    assert [enroll(admin), enroll(admin), enroll(mine)] == [201, 201, 403]


def put_machine(store: Store, machine_id: str) -> MachineRecord:
    with store.begin() as tx:
        return tx.put_machine(machine_id, "")[0]


def test_the_store_holds_to_the_prefix_by_itself(api: TestClient) -> None:
    """A route that takes a machine id from elsewhere is held too."""
    store = api.app.state.service.store
    record = put_machine(store, "b.fan-1")
    theirs = store.by(Caller("plant a", machine_prefix="a."))
    calls: list[Callable[[], object]] = [
        lambda: put_machine(theirs, "b.fan-1"),
        lambda: theirs.machine("b.fan-1"),
        lambda: theirs.clips("b.fan-1", after=0, limit=1),
        lambda: theirs.enrolled("b.fan-1", []),
        # Every other change is made in a unit of work about a machine.
        lambda: theirs.begin("b.fan-1").__enter__(),
        lambda: theirs.begin(record).__enter__(),
    ]
    for call in calls:
        with pytest.raises(OffkeyError) as refused:
            call()
        assert refused.value.kind is ErrorKind.FORBIDDEN
    assert store.machine("b.fan-1").description == ""
    assert theirs.machines(after="", limit=10) == []


def test_a_revoked_key_opens_nothing_from_the_next_request_on(api: TestClient) -> None:
    admin = make(api, "ops", "admin")
    key = make(api, "line 3", "score", key=admin)
    key_id = key.split("_")[1]
    assert api.get("/machines", headers=bearer(key)).status_code == 200
    assert api.delete(f"/keys/{key_id}", headers=bearer(admin)).status_code == 204
    answer = api.get("/machines", headers=bearer(key))
    assert (answer.status_code, kind(answer)) == (401, "unauthenticated")
    listed = {one["key_id"]: one for one in api.get("/keys", headers=bearer(admin)).json()["keys"]}
    assert listed[key_id]["revoked_at"] is not None
    assert listed[admin.split("_")[1]]["revoked_at"] is None
    assert api.delete(f"/keys/{key_id}", headers=bearer(admin)).status_code == 204
    missing = api.delete(f"/keys/{'0' * 12}", headers=bearer(admin))
    assert (missing.status_code, kind(missing)) == (404, "unknown-key")


def test_a_key_over_its_rate_gets_the_time_to_wait(api: TestClient) -> None:
    admin = make(api, "ops", "admin")
    key = make(api, "line 3", "score", key=admin, rate_per_minute=3)
    answers = [api.get("/machines", headers=bearer(key)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert kind(answers[-1]) == "rate-limited"
    assert answers[-1].json()["rate_per_minute"] == 3
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
    assert api.get("/machines", headers=bearer(admin)).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "", "scopes": ["score"]},
        {"name": "\x1b[31m", "scopes": ["score"]},
        {"name": "Anonymous", "scopes": ["score"]},
        {"name": "x", "scopes": ["score"], "machine_prefix": "../"},
        {"name": "x", "scopes": ["score"], "machine_prefix": ""},
        {"name": "x", "scopes": ["score"], "rate_per_minute": 0},
        {"name": "x", "scopes": ["score"], "secret": "chosen"},
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(locked: tuple[TestClient, dict[str, str]], settings: object) -> None:
    api, keys = locked
    before = api.get("/keys", headers=bearer(keys["admin"])).json()
    assert api.post("/keys", json=settings, headers=bearer(keys["admin"])).status_code == 422
    assert api.get("/keys", headers=bearer(keys["admin"])).json() == before


def test_only_the_answer_that_makes_a_key_has_its_secret(
    api: TestClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    admin = make(api, "ops", "admin")
    secret = admin.rpartition("_")[2]
    assert re.fullmatch("[0-9a-f]{64}", secret)  # 256 bits
    answers = [
        api.get("/keys", headers=bearer(admin)),
        api.get("/audit", headers=bearer(admin)),
        api.get("/metrics", headers=bearer(admin)),
        api.post("/keys", json={"name": 1}, headers=bearer(admin)),
        api.get("/machines", headers=bearer(f"{admin}0")),
    ]
    for answer in answers:
        assert secret not in answer.text
    kept = b"".join(path.read_bytes() for path in settings.data_dir.iterdir())
    assert b"ops" in kept
    assert secret.encode() not in kept
    assert bytes.fromhex(secret) not in kept
    api.get(f"/machines/{admin}?machine_id={admin}", headers=bearer(admin))  # by mistake
    logged = [one.getMessage() for one in caplog.records if not one.name.startswith("http")]  # not the test's client
    assert any("/keys" in line for line in logged)
    assert not any(secret in line for line in logged)
