"""`Idempotency-Key`: a request that is sent again is done once, and answered as it was."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from fastapi.testclient import TestClient

from service.http.problems import PROBLEM_JSON


class Clock:
    """Replaces `datetime` in the store, and can be set forward."""

    ahead = timedelta()

    @classmethod
    def now(cls, zone: object) -> datetime:
        return datetime.now(UTC) + cls.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr("service.store.idempotency.datetime", Clock)
    monkeypatch.setattr(Clock, "ahead", timedelta())
    return Clock


def enroll(api: TestClient, data: bytes, key: str | None = "key-1", **params: str) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.post("/enroll", params={"machine_id": "fan-1", **params}, content=data, headers=headers)


def stored(api: TestClient) -> int:
    with api.app.state.service.store._database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM idempotency").scalar_one())


def test_the_same_request_is_answered_the_same(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    first = enroll(fan_api, fan(7))
    assert (first.status_code, first.json()["generation"]) == (201, 2)
    enroll(fan_api, fan(8), key=None)
    again = enroll(fan_api, fan(7))
    assert (again.status_code, again.json()) == (201, first.json())  # not 200 and a duplicate, as without a key
    assert fan_api.get("/machines/fan-1").json()["generation"] == 3
    duplicate = enroll(fan_api, fan(7), "key-2")
    assert (duplicate.status_code, duplicate.json()["clips"][0]["status"]) == (200, "duplicate")
    assert enroll(fan_api, fan(7), "key-2").json() == duplicate.json()


def test_a_form_counts_for_what_it_says(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    """Its boundary is another one each time."""
    files = [("clips", (f"{number}.wav", fan(number))) for number in (7, 8)]
    header = {"Idempotency-Key": "key-1"}
    first = fan_api.post("/enroll", params={"machine_id": "fan-1"}, files=files, headers=header)
    again = fan_api.post("/enroll", data={"machine_id": "fan-1", "domain": "source"}, files=files, headers=header)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()


def test_another_request_with_the_key_is_refused(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    fan_api.put("/machines/fan-2")
    assert enroll(fan_api, fan(7)).status_code == 201
    for data, params in (
        (fan(8), {}),
        (fan(7), {"domain": "target"}),
        (fan(7), {"name": "another"}),
        (fan(7), {"machine_id": "fan-2"}),
    ):
        answer = enroll(fan_api, data, **params)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == PROBLEM_JSON
        assert answer.json()["type"].endswith("idempotency-key-reused")
    assert fan_api.get("/machines/fan-1").json()["generation"] == 2


def test_what_was_refused_can_be_sent_again(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    assert enroll(fan_api, b"no audio").status_code == 422
    assert enroll(fan_api, fan(7)).status_code == 201


def test_an_answer_is_stored_for_a_day_and_then_deleted(
    fan_api: TestClient, fan: Callable[..., bytes], clock: type[Clock]
) -> None:
    first = enroll(fan_api, fan(7))
    clock.ahead = timedelta(hours=23, minutes=59)
    assert enroll(fan_api, fan(7)).json() == first.json()
    clock.ahead = timedelta(hours=24, minutes=1)
    assert enroll(fan_api, fan(8)).status_code == 201  # the key is free again
    for number in range(3):
        enroll(fan_api, fan(7), f"more-{number}")
    assert stored(fan_api) == 4
    clock.ahead = timedelta(hours=49)
    enroll(fan_api, fan(7), "last")
    assert stored(fan_api) == 1


def test_an_answer_goes_with_its_machine(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    """It would name clips that no longer exist."""
    enroll(fan_api, fan(7))
    fan_api.delete("/machines/fan-1")
    fan_api.put("/machines/fan-1")
    answer = enroll(fan_api, fan(7))
    assert (answer.status_code, answer.json()["bank"]["source"]) == (201, 1)


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ä".encode(), b"\x7f"])
def test_keys_are_short_and_printable(fan_api: TestClient, fan: Callable[..., bytes], key: str | bytes) -> None:
    answer = fan_api.post(
        "/enroll",
        params={"machine_id": "fan-1"},
        content=fan(7),
        headers={b"Idempotency-Key": key},
    )
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("malformed-request")


def test_sent_many_times_at_once_it_is_done_once(
    serve: Callable[..., str], fan: Callable[..., bytes], tmp_path: object
) -> None:
    url = serve(tmp_path, workers=4)
    httpx2.put(f"{url}/machines/fan-1")

    def send(_: int) -> httpx2.Response:
        return httpx2.post(
            f"{url}/enroll?machine_id=fan-1", content=fan(7), headers={"Idempotency-Key": "key-1"}, timeout=60
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert httpx2.get(f"{url}/machines/fan-1").json()["generation"] == 1
