"""Bad input: each a 4xx problem of its own type, never a 5xx, never NaN, and nothing enrolled."""

import json
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient

from launch import in_process
from service.http.problems import PROBLEM_JSON, PROBLEMS, TYPE_PREFIX
from service.settings import Settings

RATE = 16_000


def assert_problem(answer: object, status: int, kind: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_JSON
    body = json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} in an answer"))
    assert body["type"] == TYPE_PREFIX + kind
    assert body["status"] == status
    assert body["title"] in {title for _, title in PROBLEMS.values()}
    assert len(body["detail"]) > 20
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


def with_rate(data: bytes, rate: int) -> bytes:
    spoiled = bytearray(data)
    spoiled[24:28] = struct.pack("<I", rate)
    return bytes(spoiled)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def bad_clips(encode: Callable[..., bytes]) -> dict[str, tuple[bytes, str]]:
    nan = noise(2.0)
    nan[100] = np.nan
    flac = encode(noise(3.0), container="FLAC", subtype="PCM_16")
    wav = encode(noise(3.0), subtype="PCM_16")
    return {
        "empty body": (b"", "empty-audio"),
        "text named wav": (b"this is no sound\n" * 50, "undecodable-audio"),
        "truncated flac": (flac[: len(flac) // 2], "truncated-audio"),
        "truncated wav": (wav[: len(wav) // 2], "truncated-audio"),
        "zero length": (encode(noise(0)), "empty-audio"),
        "silence": (encode(np.zeros(2 * RATE)), "silent-audio"),
        "NaN samples": (encode(nan, subtype="FLOAT"), "non-finite-audio"),
        "integers as floats": (encode(30_000 * noise(2.0), subtype="FLOAT"), "out-of-range-audio"),
        "1 Hz header": (with_rate(wav, 1), "unsupported-sample-rate"),
        "4 GHz header": (with_rate(wav, 4_000_000_000), "unsupported-sample-rate"),
        "17 channels": (encode(np.repeat(noise(1.0)[:, None], 17, axis=1)), "too-many-channels"),
        "too short": (encode(noise(0.05)), "clip-too-short"),
        "one sample": (encode(noise(1 / RATE) + 0.1), "silent-audio"),
        "too long": (encode(noise(1.0).repeat(601), container="FLAC", subtype="PCM_16"), "clip-too-long"),
    }


@pytest.fixture(scope="module")
def refusing(fan: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application with a machine `fan-1` of five clips, for all tests that change nothing."""
    with in_process(tmp_path_factory.mktemp("data"), workers=2) as api:
        api.put("/machines/fan-1")
        files = [("clips", (f"healthy_{number}.wav", fan(number))) for number in range(5)]
        assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
        yield api
        assert api.get("/machines/fan-1").json()["clips"]["source"] == 5


@pytest.mark.parametrize("route", ["/score", "/enroll"])
@pytest.mark.parametrize("multipart", [False, True], ids=["raw", "multipart"])
def test_bad_clips(refusing: TestClient, encode: Callable[..., bytes], route: str, multipart: bool) -> None:
    before = refusing.get("/machines/fan-1").json()
    for case, (data, kind) in bad_clips(encode).items():
        if len(data) > 20 * 2**20:
            pytest.fail(f"{case} is over the body limit, so that it tests something else")
        body = {"files": [("clips", ("bad.wav", data))]} if multipart else {"content": data}
        answer = refusing.post(route, params={"machine_id": "fan-1"}, **body)
        found = assert_problem(answer, 422, kind)
        if multipart:
            assert found["clip"] == "bad.wav", case
    assert refusing.get("/machines/fan-1").json() == before


@pytest.mark.parametrize("route", ["/score", "/enroll"])
def test_bad_addresses(refusing: TestClient, fan: Callable[..., bytes], route: str) -> None:
    def post(machine_id: str | None, data: bytes = fan(0), **params: str) -> object:
        named = {} if machine_id is None else {"machine_id": machine_id}
        return refusing.post(route, params={**named, **params}, content=data)

    assert_problem(post("ghost"), 404, "unknown-machine")
    assert_problem(post(None), 422, "malformed-request")
    for machine_id in ("../x", "", " ", "-a", "x" * 65, "x" * 10_000, "ƒan"):
        assert_problem(post(machine_id), 422, "invalid-machine-id")
    form = {"files": [("clips", ("a.wav", fan(0)))]}
    assert_problem(refusing.post(route, data={"machine_id": "../x"}, **form), 422, "invalid-machine-id")


def test_banks_that_cannot_score(api: TestClient, fan: Callable[..., bytes]) -> None:
    api.put("/machines/new")
    new = {"machine_id": "new"}
    assert_problem(api.post("/score", params=new, content=fan(0)), 409, "empty-bank")
    api.post("/enroll", params=new, content=fan(0))
    assert_problem(api.post("/score", params=new, content=fan(1)), 409, "bank-too-small")
    api.post("/enroll", params={**new, "domain": "target"}, content=fan(0, domain="target"))
    assert_problem(api.post("/score", params=new, content=fan(1)), 409, "bank-too-small")
    api.post("/enroll", params=new, content=fan(1))
    assert api.post("/score", params=new, content=fan(2)).status_code == 200


@pytest.mark.parametrize(("neighbors", "kind"), [
    ("6", "too-many-neighbors"), ("33", "too-many-neighbors"), ("0", "malformed-request"),
    ("-1", "malformed-request"), ("many", "malformed-request"), ("1e9", "malformed-request"),
    ("9" * 30, "too-many-neighbors"),
])  # fmt: skip
def test_k_outside_the_bank(refusing: TestClient, fan: Callable[..., bytes], neighbors: str, kind: str) -> None:
    params = {"machine_id": "fan-1", "neighbors": neighbors}
    assert_problem(refusing.post("/score", params=params, content=fan(0)), 422, kind)


def test_bad_domains(refusing: TestClient, fan: Callable[..., bytes]) -> None:
    fan_1 = {"machine_id": "fan-1"}
    answer = refusing.post("/enroll", params={**fan_1, "domain": "moon"}, content=fan(7))
    assert_problem(answer, 422, "malformed-request")
    form = {"data": {**fan_1, "domain": "moon"}, "files": [("clips", ("a.wav", fan(7)))]}
    assert_problem(refusing.post("/enroll", **form), 422, "malformed-request")
    conflict = refusing.post("/enroll", params={**fan_1, "domain": "target"}, content=fan(0))
    assert_problem(conflict, 409, "domain-conflict")


def test_bad_forms(refusing: TestClient, fan: Callable[..., bytes]) -> None:
    fan_1 = {"machine_id": "fan-1"}
    header = {"Content-Type": "multipart/form-data; boundary=xyz"}
    broken = [
        ({"Content-Type": "multipart/form-data"}, b"--xyz\r\n\r\n"),
        (header, b"--xyz--\r\n"),
        (header, b"no boundary here\r\n--xyz--"),
        (header, b'--xyz\r\nContent-Disposition: form-data; name="clips"\r\n\r\n' + b"x" * 5_000 + b"\r\n--xyz--\r\n"),
        (header, b'--xyz\r\nContent-Disposition: form-data; name="colour"\r\n\r\nred\r\n--xyz--\r\n'),
    ]
    for headers, content in broken:
        answer = refusing.post("/score", params=fan_1, content=content, headers=headers)
        assert_problem(answer, 422, "malformed-request")
    for field in ("domain", "recording"):  # of an enrollment; a score is against both domains
        answer = refusing.post("/score", params=fan_1, data={field: "target"}, files=[("clips", ("a.wav", fan(0)))])
        assert field in assert_problem(answer, 422, "malformed-request")["detail"]
    many = [("clips", (f"{number}.wav", b"x")) for number in range(65)]
    assert_problem(refusing.post("/score", params=fan_1, files=many), 413, "too-many-clips")


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A form with the boundary xyz; a clip is named by its file."""
    shown = [
        (b'name="clips"; filename="%s"' if name.endswith(".wav") else b'name="%s"') % name.encode() for name, _ in parts
    ]
    return b"".join(
        b"--xyz\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name, data)
        for name, (_, data) in zip(shown, parts, strict=True)
    )


XYZ = {"Content-Type": "multipart/form-data; boundary=xyz"}


@pytest.mark.parametrize("missing", [b"--xyz--", b"-", b"audio"])
def test_a_form_that_is_cut_off_is_refused_whole(
    fan_api: TestClient, fan: Callable[..., bytes], missing: bytes
) -> None:
    """With a Content-Length that fits, only the absent closing boundary shows that something is missing."""
    whole = multipart(("one.wav", fan(7)), ("two.wav", fan(8))) + b"--xyz--"
    cut = whole[:-30_000] if missing == b"audio" else whole.removesuffix(missing)
    before = fan_api.get("/machines/fan-1").json()
    answer = fan_api.post("/enroll", params={"machine_id": "fan-1"}, content=cut, headers=XYZ)
    assert_problem(answer, 400, "truncated-body")
    assert_problem(fan_api.post("/enroll", params={"machine_id": "fan-1"}, headers=XYZ), 400, "truncated-body")
    assert fan_api.get("/machines/fan-1").json() == before
    answer = fan_api.post("/enroll", params={"machine_id": "fan-1"}, content=whole, headers=XYZ)
    assert (answer.status_code, len(answer.json()["clips"])) == (201, 2)


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "utf-16", "hex", "no-such"])
def test_a_charset_that_cannot_decode_is_no_failure(
    refusing: TestClient, fan: Callable[..., bytes], charset: str
) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary=xyz; charset={charset}"}
    body = multipart(("one.wav", fan(7)), ("machine_id", b"fan-1")) + b"--xyz--"
    answer = refusing.post("/score", content=body, headers=headers)
    if answer.status_code != 200:
        assert_problem(answer, 422, "malformed-request")


@pytest.mark.parametrize(("field", "query", "form"), [
    ("machine_id", "fan-1", ["other"]), ("domain", "source", ["target"]), ("domain", None, ["source", "target"]),
])  # fmt: skip
def test_query_and_form_must_agree(
    fan_api: TestClient, fan: Callable[..., bytes], field: str, query: str | None, form: list[str]
) -> None:
    params = {"machine_id": "fan-1", **({} if query is None else {field: query})}
    files = [("clips", ("one.wav", fan(7)))]
    answer = fan_api.post("/enroll", params=params, data={field: form}, files=files)
    problem = assert_problem(answer, 422, "malformed-request")
    assert field in problem["detail"]
    if query is not None:
        assert fan_api.post("/enroll", params=params, data={field: query}, files=files).status_code == 201


def test_large_forms_need_no_disk(
    fan_api: TestClient, encode: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")  # as good as full
    files = [("clips", ("long.wav", encode(noise(60.0), subtype="FLOAT")))]
    assert len(files[0][1][1]) > 3 * 2**20
    answer = fan_api.post("/score", params={"machine_id": "fan-1"}, files=files)
    assert answer.status_code == 200, answer.text


def test_a_request_may_decode_so_much_and_no_more(
    settings: Settings, fan: Callable[..., bytes], encode: Callable[..., bytes]
) -> None:
    dense = [np.repeat(noise(4.0, seed).round(2)[:, None], 8, axis=1) for seed in range(3)]
    files = [("clips", (f"{seed}.flac", encode(dense[seed], 64_000, container="FLAC"))) for seed in range(3)]
    budget = dense[0].size + dense[1].size
    with in_process(settings, max_decoded_samples=budget) as api:
        assert api.get("/info").json()["limits"]["max_decoded_samples"] == budget
        api.put("/machines/fan-1")
        answer = api.post("/enroll", params={"machine_id": "fan-1"}, files=files)
        problem = assert_problem(answer, 413, "too-much-audio")
        assert (problem["clip"], problem["max_decoded_samples"]) == ("2.flac", budget)
        assert api.get("/machines/fan-1").json()["clips"] == {"source": 0, "target": 0}


@pytest.mark.parametrize("body", [
    {"false_alarm_rate": 0.1}, {"colour": "red"}, {"description": "x" * 501}, [], "text",
])  # fmt: skip
def test_bad_settings(api: TestClient, body: object) -> None:
    assert_problem(api.put("/machines/fan-1", json=body), 422, "malformed-request")


@pytest.mark.parametrize("body", [
    {"false_alarm_rate": 0}, {"false_alarm_rate": 1}, {"false_alarm_rate": -0.1}, {"false_alarm_rate": "high"},
    {"false_alarm_rate": 1e-300}, {"decision_threshold": "1"},
    {"rule": "median"}, {"rule": "manual"}, {"decision_threshold": 1.0}, {"rule": "gamma", "decision_threshold": 1.0},
    {"rule": "manual", "decision_threshold": False}, {"rule": "manual", "decision_threshold": "1"},
    {"rule": "manual", "decision_threshold": 1.0, "false_alarm_rate": 0.1}, {"rule": "gamma", "false_alarm_rate": 1},
    [], "text",
])  # fmt: skip
def test_bad_threshold_settings(refusing: TestClient, body: object) -> None:
    before = refusing.get("/machines/fan-1").json()
    assert_problem(refusing.put("/machines/fan-1/threshold", json=body), 422, "malformed-request")
    assert refusing.get("/machines/fan-1").json() == before


@pytest.mark.parametrize("key", ["false_alarm_rate", "decision_threshold"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_thresholds_that_are_not_numbers(refusing: TestClient, key: str, value: str) -> None:
    text = f'{{"rule": "{"manual" if key == "decision_threshold" else "conformal"}", "{key}": {value}}}'
    headers = {"Content-Type": "application/json"}
    answer = refusing.put("/machines/fan-1/threshold", content=text, headers=headers)
    assert_problem(answer, 422, "malformed-request")


@pytest.mark.parametrize("text", ['{"false_alarm_rate": NaN}', '{"false_alarm_rate": Infinity}', "{", "\xff"])
def test_bad_json(api: TestClient, text: str) -> None:
    answer = api.put("/machines/fan-1", content=text.encode("latin-1"), headers={"Content-Type": "application/json"})
    assert_problem(answer, 422, "malformed-request")
    assert_problem(api.get("/machines/fan-1"), 404, "unknown-machine")


def test_addresses_that_are_not_there(api: TestClient) -> None:
    assert_problem(api.get("/nothing"), 404, "unknown-route")
    assert_problem(api.get("/machines/a%2Fb"), 404, "unknown-route")
    assert_problem(api.get("/machines/%2E%2E"), 422, "invalid-machine-id")
    answer = api.patch("/machines/fan-1")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "DELETE, GET, PUT"
    assert api.post("/livez").headers["allow"] == "GET, HEAD"
    for clip_id, kind in (("0", "malformed-request"), ("x", "malformed-request"), (str(2**63), "malformed-request")):
        assert_problem(api.delete(f"/machines/fan-1/clips/{clip_id}"), 422, kind)
    for params in ({"after": -1}, {"limit": 0}, {"limit": 1_001}):
        assert_problem(api.get("/machines/fan-1/clips", params=params), 422, "malformed-request")
