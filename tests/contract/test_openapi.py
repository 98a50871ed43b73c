"""The OpenAPI document, checked for every route of the application."""

from fastapi.testclient import TestClient
from openapi_spec_validator import validate

from offkey.errors import ErrorKind
from service.http.problems import PROBLEM_JSON, PROBLEMS


def test_the_document_is_valid_openapi(api: TestClient) -> None:
    validate(api.get("/openapi.json").json())


def test_every_error_is_documented_as_a_problem(api: TestClient) -> None:
    document = api.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")):
                    assert set(response["content"]) == {PROBLEM_JSON}, (method, path, status)


def test_every_error_kind_has_a_status_and_a_title() -> None:
    assert set(PROBLEMS) == set(ErrorKind)
    assert all(400 <= status < 600 and title for status, title in PROBLEMS.values())


def test_bodies_are_audio_or_forms(api: TestClient) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    for route in ("/score", "/enroll"):
        assert {"audio/*", "multipart/form-data"} <= set(paths[route]["post"]["requestBody"]["content"])


def test_only_what_is_sent_is_refused_unknown_fields(api: TestClient) -> None:
    """A client made from this document must not break when a later version answers with one field more."""
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    closed = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    assert closed == {"KeySettings", "MachineSettings", "ThresholdSettings"}
