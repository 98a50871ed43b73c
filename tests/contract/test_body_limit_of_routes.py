"""Every route with a body has a limit of its own: found in the OpenAPI document, so that a new route is tested too."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from launch import in_process

MAX_BODY, MAX_ZIP = 1_000, 5_000
ZIP = "application/zip"
ROUTES = [
    ("POST", "/enroll"),
    ("POST", "/feedback"),
    ("POST", "/keys"),
    ("POST", "/noise"),
    ("POST", "/score"),
    ("PUT", "/machines/{machine_id}"),
    ("PUT", "/machines/{machine_id}/threshold"),
]
OTHERS = [route for route in ROUTES if route != ("POST", "/enroll")]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with small limits and an empty machine `fan-1`, which no test changes."""
    folder = tmp_path_factory.mktemp("data")
    with in_process(folder, workers=1, max_body_bytes=MAX_BODY, max_zip_bytes=MAX_ZIP) as api:
        assert api.put("/machines/fan-1").status_code == 201
        yield api
        assert api.get("/machines/fan-1").json()["clips"] == {"source": 0, "target": 0}
        assert api.get("/keys").json()["keys"] == []
        assert list((folder / "jobs").glob("*")) == []


def send(api: TestClient, route: tuple[str, str], size: int, kind: str, *, chunked: bool) -> tuple[int, dict[str, Any]]:
    """Send a body of spaces, which JSON allows, and return the status and the problem of the answer."""
    method, path = route
    chunks = (b" " * 100 for _ in range(size // 100))
    answer = api.request(
        method,
        path.format(machine_id="fan-1"),
        params={} if "{" in path else {"machine_id": "fan-1"},
        headers={"Content-Type": kind},
        content=chunks if chunked else b"".join(chunks),
    )
    assert ("content-length" in answer.request.headers) is not chunked
    return answer.status_code, answer.json()


def test_the_list_of_routes_is_complete_and_they_document_the_problem(small: TestClient) -> None:
    paths = small.get("/openapi.json").json()["paths"]
    found = {
        (method.upper(), path): operation
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "requestBody" in operation
    }
    assert sorted(found) == ROUTES
    assert all("413" in operation["responses"] for operation in found.values())


@pytest.mark.parametrize("chunked", [False, True], ids=["stated", "chunked"])
@pytest.mark.parametrize("kind", ["application/json", "audio/wav", "multipart/form-data; boundary=b"])
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_a_body_over_the_limit_is_refused(small: TestClient, route: tuple[str, str], kind: str, chunked: bool) -> None:
    status, problem = send(small, route, MAX_BODY + 100, kind, chunked=chunked)
    assert (status, problem["type"], problem["max_body_bytes"]) == (413, "urn:offkey:problem:body-too-large", MAX_BODY)
    status, problem = send(small, route, MAX_BODY, kind, chunked=chunked)
    assert status in (400, 409, 422), problem  # it is read, and then found to be useless


@pytest.mark.parametrize("chunked", [False, True], ids=["stated", "chunked"])
@pytest.mark.parametrize("route", OTHERS, ids=" ".join)
def test_an_archive_has_the_normal_limit_elsewhere(small: TestClient, route: tuple[str, str], chunked: bool) -> None:
    status, problem = send(small, route, MAX_BODY + 100, ZIP, chunked=chunked)
    assert (status, problem["max_body_bytes"]) == (413, MAX_BODY)


@pytest.mark.parametrize("chunked", [False, True], ids=["stated", "chunked"])
@pytest.mark.parametrize("kind", [ZIP, "Application/Zip; charset=x"])
def test_an_archive_to_enroll_has_its_own_limit(small: TestClient, kind: str, chunked: bool) -> None:
    status, problem = send(small, ("POST", "/enroll"), MAX_ZIP + 100, kind, chunked=chunked)
    assert (status, problem["type"], problem["max_body_bytes"]) == (413, "urn:offkey:problem:body-too-large", MAX_ZIP)
    status, problem = send(small, ("POST", "/enroll"), MAX_ZIP, kind, chunked=chunked)
    assert (status, problem["type"]) == (422, "urn:offkey:problem:unreadable-archive")


@pytest.mark.parametrize("kind", ["application/zipped", "application/x-zip-compressed", "audio/zip", ""])
def test_only_the_media_type_of_archives_has_that_limit(small: TestClient, kind: str) -> None:
    status, problem = send(small, ("POST", "/enroll"), MAX_BODY + 100, kind, chunked=False)
    assert (status, problem["max_body_bytes"]) == (413, MAX_BODY)
