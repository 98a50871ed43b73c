"""Audio that was made to hurt: no 5xx, no hang, bounded memory and CPU time, on /score and /enroll."""

import io
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from service.http.problems import PROBLEM_JSON
from torture import scaled

MUTATED = scaled(20_000, 500)
SHARD = 250  # mutated files in one test, so that tests can run side by side
HANG_SECONDS = 5.0
BUSY_SECONDS = 0.3  # neighbors on a busy machine share its caches, and the same work then takes more CPU time
MEBIBYTE = 2**20


def crafted(valid: dict[str, bytes]) -> dict[str, bytes]:
    """Files that are broken on purpose, by what is wrong with them."""
    files = {}
    for name, data in valid.items():
        size = len(data)
        for at in (1, 4, 12, 20, 36, 43, 44, 60, size // 4, size // 2, 3 * size // 4, size - 1):
            files[f"{name} cut at {at}"] = data[:at]
        for at in (0, 4, 8, 16, 20, 22, 24, 32, 40, 48):
            for word in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
                files[f"{name} with {word.hex()} at {at}"] = data[:at] + word + data[at + 4 :]
        files[f"{name} hollow"] = data[: size // 4] + bytes(size // 2) + data[3 * size // 4 :]
        files[f"{name} full"] = data[: size // 4] + b"\xff" * (size // 2) + data[3 * size // 4 :]
        files[f"{name} twice"] = data + data
        files[f"{name} after junk"] = b"junk" * 1_000 + data
        files[f"{name} backwards"] = data[::-1]
    wav = valid["WAV-PCM_16"]
    for field, at, width, values in (
        ("channels", 22, "<H", (0, 17, 65_535)),
        ("rate", 24, "<I", (0, 1, 1_999, 384_001, 2**31 - 1, 2**31, 2**32 - 1)),
        ("block align", 32, "<H", (0, 1, 65_535)),
        ("bits", 34, "<H", (0, 1, 7, 64, 255, 65_535)),
        ("data size", 40, "<I", (0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)),
        ("codec", 20, "<H", (0, 2, 0x31, 0x55, 0xFFFE, 65_535)),
    ):
        for value in values:
            word = struct.pack(width, value)
            files[f"WAV of {field} {value}"] = wav[:at] + word + wav[at + len(word) :]
    numbers = valid["WAV-FLOAT"]
    for value in (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 101.0):
        files[f"WAV that holds {value}"] = numbers[:-400] + np.float32(value).tobytes() + numbers[-396:]
    for value in (0.0, 1e-45, 1e-30, np.nan, np.inf):
        files[f"WAV all {value}"] = numbers[:-60_000] + np.full(15_000, value, np.float32).tobytes()
    return files


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, overwrite, cut out, repeat or insert, a few times, near the head as often as anywhere."""
    spoiled = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(len(spoiled), rng.choice((64, 512, len(spoiled)))))
        length = rng.choice((1, 1, 2, 4, 8, 64, 1024))
        match rng.randrange(5):
            case 0:
                spoiled[at] ^= 1 << rng.randrange(8)
            case 1:
                spoiled[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
            case 2 if len(spoiled) > 2_048:
                del spoiled[at : at + length]
            case 3:
                spoiled[at:at] = spoiled[at : at + length]
            case _:
                spoiled[at : at + length] = rng.randbytes(length)
    return bytes(spoiled)


def post(api: TestClient, route: str, name: str, data: bytes) -> int:
    """Post a file; hold the answer against what every answer must be; return its status."""
    # Scores of a bank that changes would each wait for it to be built.
    machine = {"/score": "fan-1", "/enroll": "victim"}[route]
    start = time.monotonic()
    answer = api.post(route, params={"machine_id": machine}, content=data)
    assert time.monotonic() - start < HANG_SECONDS, name
    assert answer.status_code < 500, f"{name}: {answer.text}"
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == PROBLEM_JSON, name
        assert len(answer.json()["detail"]) > 20, name
    else:
        assert "NaN" not in answer.text, name
    return answer.status_code


def assert_unhurt(api: TestClient, fan: Callable[..., bytes]) -> None:
    """It still scores, and no decoder grew over 128 MiB; the service itself holds at most the samples, 42 MiB."""
    assert api.post("/score", params={"machine_id": "fan-1"}, content=fan(9)).status_code == 200
    assert 0 < api.app.state.service.decoder.pool.peak_bytes < 128 * MEBIBYTE


@pytest.mark.parametrize("route", ["/score", "/enroll"])
def test_crafted_files(fan_api: TestClient, fan: Callable[..., bytes], valid: dict[str, bytes], route: str) -> None:
    fan_api.put("/machines/victim")
    for name, data in valid.items():
        assert post(fan_api, route, name, data) in (200, 201), name
    files = crafted(valid)
    assert len(files) >= 300
    answers = [post(fan_api, route, name, data) for name, data in files.items()]
    assert answers.count(422) > 200
    assert_unhurt(fan_api, fan)


@pytest.mark.parametrize("route", ["/score", "/enroll"])
@pytest.mark.parametrize("shard", range(MUTATED // SHARD))
def test_mutated_files(
    fan_api: TestClient, fan: Callable[..., bytes], valid: dict[str, bytes], route: str, shard: int
) -> None:
    fan_api.put("/machines/victim")
    rng = random.Random(shard)
    kinds = list(valid.items())
    for number in range(SHARD):
        name, data = kinds[number % len(kinds)]
        post(fan_api, route, f"{name}, shard {shard}, file {number}", mutate(data, rng))
    assert_unhurt(fan_api, fan)


def bomb(sample_rate: int, channels: int, seconds: int) -> bytes:
    """A FLAC file of a kilobyte or two for a second of every channel."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate, channels, format="FLAC", subtype="PCM_16") as flac:
        block = np.zeros((sample_rate, channels), dtype=np.float32)
        block[0] = 0.5
        for _ in range(seconds):
            flac.write(block)
    return file.getvalue()


def cpu_of_dead_decoders(api: TestClient) -> float:
    """Seconds of CPU time of the decoders that have ended; one that was refused a clip is among them in a moment."""
    time.sleep(0.3)
    fork_server = api.app.state.service.decoder.pool._process.pid
    fields = Path(f"/proc/{fork_server}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("sample_rate", "channels", "seconds", "kind"),
    [(384_000, 8, 60, "too-much-audio"), (48_000, 1, 3_600, "clip-too-long"), (192_000, 2, 700, "too-much-audio")],
)
def test_bombs_are_refused_within_a_second_of_cpu_time(
    fan_api: TestClient, sample_rate: int, channels: int, seconds: int, kind: str
) -> None:
    data = bomb(sample_rate, channels, seconds)
    assert len(data) * 100 < 2 * sample_rate * channels * seconds
    for route in ("/score", "/enroll"):
        before = cpu_of_dead_decoders(fan_api)
        answer = fan_api.post(route, params={"machine_id": "fan-1"}, content=data)
        assert answer.json()["type"] == f"urn:offkey:problem:{kind}"
        assert cpu_of_dead_decoders(fan_api) - before < 1.0 + BUSY_SECONDS
    assert fan_api.app.state.service.decoder.pool.peak_bytes < 128 * MEBIBYTE


def test_flac_headers_that_promise_nothing_or_everything(fan_api: TestClient, valid: dict[str, bytes]) -> None:
    """VLC writes 0 frames and means that it does not know; 2^36-1 frames are a lie."""
    flac = valid["FLAC-PCM_16"]

    def with_frames(frames: int) -> bytes:
        field = int.from_bytes(flac[18:26]) & ~(2**36 - 1) | frames
        return flac[:18] + field.to_bytes(8) + flac[26:]

    assert with_frames(19_200) == flac
    answer = fan_api.post("/score", params={"machine_id": "fan-1"}, content=with_frames(0))
    assert answer.json()["clips"][0]["seconds"] == 1.2
    answer = fan_api.post("/score", params={"machine_id": "fan-1"}, content=with_frames(2**36 - 1))
    assert answer.json()["type"] == "urn:offkey:problem:truncated-audio"
