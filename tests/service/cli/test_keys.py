"""Keys through the command, and the door of `offkey serve`, in a process of its own."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from launch import as_process
from offkey import Client, OffkeyError, ProblemError, Scope
from service.cli.server import unknown_settings
from service.usecases.authenticate import is_loopback

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_first_key_comes_before_the_service_and_others_through_it(offkey: Run, tmp_path: Path) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    made = offkey("keys", "create", "ops", "--scope", "admin", "--data-dir", data)
    assert made.returncode == 0, made.stderr
    admin = made.stdout.strip()
    key_id = admin.split("_")[1]
    assert admin.rpartition("_")[2] not in made.stderr
    again = offkey("keys", "list", OFFKEY_DATA_DIR=str(data))
    assert key_id in again.stdout
    assert admin.rpartition("_")[2] not in again.stdout

    with as_process(data, log=log) as running:
        url = running.url
        refused = offkey("keys", "list", "--data-dir", data)
        assert refused.returncode == 1
        assert "--url" in refused.stderr
        refused = offkey("machines", "--url", url)
        assert refused.returncode == 1
        assert "OFFKEY_KEY" in refused.stderr
        assert offkey("machines", "--url", url, OFFKEY_KEY=f"{admin}\n").returncode == 0
        limits = ("--machine-prefix", "line-3.", "--rate", "600")
        made = offkey("keys", "create", "line 3", "--scope", "enroll", *limits, "--url", url, OFFKEY_KEY=admin)
        line = made.stdout.strip()
        listed = offkey("keys", "list", "--url", url, OFFKEY_KEY=admin).stdout
        assert all(word in listed for word in ("ops", "line 3", "enroll", "line-3.*", "600"))

        with Client(url, key=line) as client:
            client.put_machine("line-3.fan-1")
            with pytest.raises(ProblemError) as forbidden:
                client.put_machine("line-4.fan-1")
            assert forbidden.value.kind == "forbidden"
            assert offkey("keys", "revoke", line.split("_")[1], "--url", url, OFFKEY_KEY=admin).returncode == 0
            with pytest.raises(ProblemError) as revoked:
                client.put_machine("line-3.fan-1")
            assert revoked.value.kind == "unauthenticated"
        with Client(url, key=admin) as client:
            whole = client.create_key("reader", [Scope.SCORE])
            assert [(one.who, one.action) for one in client.audit()] == [
                ("ops", "create-key"),
                ("ops", "revoke-key"),
                ("line 3", "create-machine"),
                ("ops", "create-key"),
                ("command line", "create-key"),
            ]
            client.revoke_key(whole.key_id)
            assert {one.key_id for one in client.api_keys() if one.revoked_at} == {whole.key_id, line.split("_")[1]}

    assert offkey("keys", "revoke", key_id, "--data-dir", data).returncode == 0
    kept = log.read_bytes() + b"".join(path.read_bytes() for path in data.iterdir())
    assert key_id.encode() in kept
    for key in (admin, line, whole.key):
        assert key.rpartition("_")[2].encode() not in kept


def test_an_upload_without_a_key_is_refused_before_it_comes(offkey: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert offkey("keys", "create", "ops", "--scope", "admin", "--data-dir", data).returncode == 0
    with as_process(data, log=tmp_path / "log") as running:
        url = running.url
        address = urlsplit(url)
        for route, content in (("POST /enroll", "audio/wav"), ("POST /keys", "application/json")):
            with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
                begun = time.monotonic()
                head = f"{route}?machine_id=fan-1 HTTP/1.1\r\nHost: x\r\nContent-Type: {content}\r\n"
                connection.sendall(f"{head}Content-Length: 20000000\r\n\r\n".encode())  # and nothing of it
                assert connection.recv(1024).startswith(b"HTTP/1.1 401 ")
                assert time.monotonic() - begun < 2
        answer = httpx2.post(f"{url}/enroll?machine_id=fan-1", content=bytes(20_000_000))  # all of it, regardless
        assert answer.status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_network_is_not_let_in_by_oversight(tmp_path: Path, host: str) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--host", host, "--port", "0", "--data-dir", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 1
    for way in ("offkey keys create", "127.0.0.1", "OFFKEY_OPEN_TO_NETWORK=true"):
        assert way in found.stderr
    assert "Traceback" not in found.stderr


def test_a_network_is_let_in_with_a_key_or_by_saying_so(tmp_path: Path) -> None:
    said, log = tmp_path / "said", tmp_path / "log"
    with as_process(said, log=log, host="0.0.0.0", open_to_network=True) as running:
        url = running.url
        assert httpx2.get(f"{url}/machines").status_code == 200
        assert "everybody who reaches 0.0.0.0 is admitted" in log.read_text()
        with Client(url) as client:
            client.create_key("ops", [Scope.ADMIN])
        assert httpx2.get(f"{url}/machines").status_code == 401
    with as_process(said, log=log, host="0.0.0.0") as running:
        url = running.url
        assert httpx2.get(f"{url}/machines").status_code == 401


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
        ("", False), ("10.0.0.1", False), ("no.such.host.invalid", False),
    ],
)  # fmt: skip
def test_which_addresses_are_of_this_computer_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_what_makes_no_sense_is_said_in_one_message(offkey: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for arguments, status, message in (
        (("create", "x", "--scope", "root"), 2, "--scope"),
        (("create", "anonymous", "--scope", "score"), 2, "another name"),
        (("create", "x", "--scope", "score", "--machine-prefix", "../"), 2, "machine_prefix"),
        (("create", "x", "--scope", "score", "--rate", "0"), 2, "rate_per_minute"),
        (("list",), 1, "no store"),
        (("revoke", "0" * 12), 1, "no store"),
        (("revoke", "../x"), 1, "no key id"),
    ):
        found = offkey("keys", *arguments, "--data-dir", data)
        assert (found.returncode, message in found.stderr) == (status, True), (arguments, found.stderr)
        assert "Traceback" not in found.stderr
    assert not data.exists()
    assert offkey("keys", "create", "x", "--scope", "score", "--data-dir", data).returncode == 0
    found = offkey("keys", "revoke", "0" * 12, "--data-dir", data)
    assert (found.returncode, "no key" in found.stderr) == (1, True)


def test_a_key_that_cannot_be_one_is_neither_sent_nor_shown(offkey: Run) -> None:
    with pytest.raises(OffkeyError) as refused:
        Client("http://127.0.0.1:9", key="offkey_topsecret")
    assert "topsecret" not in str(refused.value)
    found = offkey("info", "--url", "http://127.0.0.1:9", OFFKEY_KEY="topsecret\r\nX-Other: 1")
    assert found.returncode == 1
    assert "OFFKEY_KEY" in found.stderr
    assert "topsecret" not in found.stderr + found.stdout


def test_the_key_of_the_commands_is_no_mistyped_setting() -> None:
    assert unknown_settings({"OFFKEY_KEY": "x", "OFFKEY_OPEN_TO_NETWORK": "true"}) == []


def ask(client: Client, times: int) -> None:
    for _ in range(times):
        client.info()


def test_a_client_waits_for_its_rate(
    serve: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(tmp_path / "data")
    with Client(url) as client:
        admin = client.create_key("ops", [Scope.ADMIN]).key
    with Client(url, key=admin) as client:
        key = client.create_key("line 3", [Scope.SCORE], rate_per_minute=60).key
    monkeypatch.setenv("OFFKEY_KEY", key)
    with Client(url) as client, Client(url, retries=0) as impatient:
        ask(client, 60)
        with pytest.raises(ProblemError) as refused:
            ask(impatient, 60)
        assert refused.value.kind == "rate-limited"
        assert json.loads(refused.value.problem.model_dump_json())["retry_after"] == 1
        assert client.info().version
