"""Probes, `/info`, metrics and request ids."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service import __version__
from service.settings import Limits, Settings
from service.store.database.sqlite import DATABASE_FILE


def test_probes(api: TestClient) -> None:
    for probe in ("/livez", "/readyz"):
        answer = api.get(probe)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        answer = api.head(probe)  # the method of load balancers
        assert (answer.status_code, answer.content) == (200, b"")


def test_readiness_ends_with_the_store_and_liveness_does_not(api: TestClient, settings: Settings) -> None:
    api.app.state.service.store.close()
    (settings.data_dir / DATABASE_FILE).unlink()
    for journal in settings.data_dir.glob(f"{DATABASE_FILE}-*"):
        journal.unlink()
    answer = api.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("not-ready")
    assert answer.headers["Retry-After"] == "1"
    assert api.get("/livez").status_code == 200


def test_a_locked_store_is_answered_503_and_when_to_come_again(
    api: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.app.state.service.store.close()  # connections opened from here on wait less
    monkeypatch.setattr("service.store.database.sqlite._BUSY_MILLISECONDS", 50)
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = api.put("/machines/fan-1")
        assert answer.status_code == 503
        assert answer.json()["type"].endswith("store-busy")
        assert answer.headers["Retry-After"] == "1"
        assert api.get("/machines").status_code == 200  # readers need no lock
    assert api.put("/machines/fan-1").status_code == 201


def test_info_reports_every_limit(api: TestClient, settings: Settings) -> None:
    info = api.get("/info").json()
    assert info["version"] == __version__
    assert info["provider"] == "CPUExecutionProvider"
    assert settings.reported_limits().items() <= info["limits"].items()
    assert len(info["limits"]) > len(settings.reported_limits()) + 10  # and those that no setting changes
    assert set(Limits.model_fields) <= set(info["limits"])  # a new limit is reported as well


def test_metrics_count_what_was_done(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    files = [("clips", (f"{number}.wav", fan(number))) for number in range(4, 9)]  # the first one is a duplicate
    fan_api.post("/enroll", params={"machine_id": "fan-1"}, files=files)
    fan_api.post("/score", params={"machine_id": "fan-1"}, content=fan(0, severity=1.0))
    fan_api.get("/machines/fan-1")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(fan_api.get("/metrics").text)
        for sample in family.samples
    }
    assert found[("offkey_clips_enrolled_total",)] == 4
    assert found[("offkey_clips_scored_total", ("is_anomalous", "true"))] == 1
    request = ("method", "POST"), ("route", "/score"), ("status", "200")
    assert found[("offkey_requests_total", *request)] == 1
    for stage in ("decode", "embed", "search", "localize"):
        assert found[("offkey_stage_seconds_count", ("stage", stage))] >= 1


def test_the_stages_of_a_request_add_up(fan_api: TestClient, fan: Callable[..., bytes]) -> None:
    def sums(name: str) -> dict[str, float]:
        return {
            next(iter(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(fan_api.get("/metrics").text)
            for sample in family.samples
            if sample.name == f"{name}_sum"
        }

    fan_api.post("/score", params={"machine_id": "fan-1"}, content=fan(9))  # calibrates the bank
    stages, requests = sums("offkey_stage_seconds"), sums("offkey_request_seconds")
    answers = [
        fan_api.post("/score", params={"machine_id": "fan-1"}, content=fan(number, seconds=25.0)).json()
        for number in range(3)
    ]
    totals = []
    for answer in answers:
        timing = answer["timing_ms"]
        totals.append(total := timing.pop("total"))
        assert sum(timing.values()) == pytest.approx(total, abs=0.02)
        assert {"receive", "queue", "decode", "acoustics", "embed", "search", "localize", "other"} == set(timing)
        assert timing["embed"] > 0.3 * total  # nine windows
    # The clock of the histograms runs until the answer is sent.
    spent = sum(sums("offkey_stage_seconds").values()) - sum(stages.values())
    whole = sums("offkey_request_seconds")["/score"] - requests.get("/score", 0.0)
    assert spent == pytest.approx(whole, rel=1e-6)
    assert 1e3 * whole > sum(totals)


def test_metric_labels_are_bounded(api: TestClient) -> None:
    def series() -> int:
        return len(api.get("/metrics").text.splitlines())

    api.get("/metrics")
    api.get("/nothing-at-all")
    api.request("BREW", "/machines")
    api.get("/machines/m")
    before = series()
    for number in range(30):
        api.get(f"/machines/m{number}")
        api.get(f"/no/{number}")
        api.request(f"BREW{number}", "/machines")
    assert series() == before


def test_requests_have_an_id(api: TestClient) -> None:
    ids = {api.get("/livez").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_a_failure_of_the_service_is_a_problem_too(
    api: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(machine_id: str) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(api.app.state.service.store, "machine", fail)
    answer = api.get("/machines/fan-1")
    assert answer.status_code == 500
    assert answer.json()["type"].endswith("internal")
    assert "secret" not in answer.text
    request_id = answer.headers["x-request-id"]
    assert answer.json()["request_id"] == request_id
    logged = next(record for record in caplog.records if record.exc_info)
    assert request_id in logged.getMessage()
    assert "the secret inside" in caplog.text
    count = 'offkey_requests_total{method="GET",route="/machines/{machine_id}",status="500"} 1.0'
    assert count in api.get("/metrics").text


def test_probes_and_lists_do_not_wait_for_the_workers(api: TestClient) -> None:
    """As many requests as are allowed hold their places, and every worker is at work."""
    workers, go = api.app.state.service.admission.work_pool, threading.Event()
    limits = api.get("/info").json()["limits"]
    most = limits["workers"] + limits["queue_limit"]

    async def occupy() -> None:
        async with AsyncExitStack() as held:
            slots = [await held.enter_async_context(workers.slot()) for _ in range(most)]
            await asyncio.gather(*(slot.run(go.wait, 20) for slot in slots[: limits["workers"]]))

    busy = api.portal.start_task_soon(occupy)
    while workers.slots < most:
        time.sleep(0.01)
    start = time.monotonic()
    try:
        assert [api.get(path).status_code for path in ("/livez", "/readyz", "/machines", "/info")] == [200] * 4
        assert api.get("/machines/none").status_code == 503
        text = api.get("/metrics").text
    finally:
        go.set()
        busy.result()
    assert time.monotonic() - start < 5
    assert f'offkey_slots{{pool="work"}} {most}.0' in text
    assert 'offkey_slots{pool="light"} 1.0' in text  # this scrape
    assert 'offkey_requests_refused_total{type="overloaded"} 1.0' in text


@pytest.mark.parametrize("page", ["/", "/docs", "/redoc"])
def test_the_pages_need_no_other_host(api: TestClient, page: str) -> None:
    answer = api.get(page)
    assert answer.status_code == 200
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_the_data_folder_is_made(api: TestClient, settings: Settings) -> None:
    assert Path(settings.data_dir / DATABASE_FILE).is_file()
