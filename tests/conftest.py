"""Fixtures that tests of more than one folder use."""

import functools
import gc
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import soundfile
from fastapi.testclient import TestClient

from offkey.client import Client
from offkey.vocabulary import Domain
from service.app import create_app
from service.cli import main
from service.encoder.bundle import GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, file_sha256, load_manifest
from service.settings import Settings, shipped_bundle
from service.store import Action, BankLimits, NewClip, Store
from service.synthetic import MACHINES
from service.usecases.service import Service

# Measured at each first start otherwise; the tests of the measurement ask for it.
os.environ.setdefault("OFFKEY_LIMITS", '{"run_threads": 1}')
# Traces and fits make objects by the million; to look through them for cycles took a tenth of all the time.
gc.set_threshold(100_000, 20, 100)

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE_RATE = 16_000


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of development recordings, encoders and golden vectors, which a user does not have."""
    folder = Path(os.environ.get("OFFKEY_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"the development data is not at {folder} (set OFFKEY_SHARED to point elsewhere)")
    return folder


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The bundle that ships."""
    return shipped_bundle()


@pytest.fixture(scope="session")
def mirrored_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that ships with the values of its embeddings in reverse order.

    Its distances are those of the other, so that scores must be equal, and between the two spaces they are nonsense.
    """
    folder = tmp_path_factory.mktemp("mirrored") / "1"
    folder.mkdir()
    model = onnx.load(str(bundle / MODEL_FILE))
    for node in model.graph.node:
        node.output[:] = ["straight" if name == "embedding" else name for name in node.output]
    ends = {name: onnx.numpy_helper.from_array(np.array([value]), name)
            for name, value in (("last", -1), ("before", -(2**31)), ("values", 1), ("step", -1))}  # fmt: skip
    model.graph.initializer.extend(ends.values())
    model.graph.node.append(onnx.helper.make_node("Slice", ["straight", *ends], ["embedding"]))
    onnx.save(model, str(folder / MODEL_FILE))
    with np.load(bundle / GOLDEN_FILE) as golden:
        np.savez(folder / GOLDEN_FILE, **{**golden, "embedding": golden["embedding"][:, ::-1]})
    manifest = load_manifest(bundle)
    sha256 = file_sha256(folder / MODEL_FILE)
    changed = manifest.model_copy(
        update={
            "name": "offkey-mirrored",
            "version": "1",
            "model_sha256": sha256,
            "embedding_space_id": f"offkey-mirrored/1-{sha256[:12]}",
            "golden": manifest.golden.model_copy(update={"sha256": file_sha256(folder / GOLDEN_FILE)}),
        }
    )
    (folder / MANIFEST_FILE).write_text(changed.model_dump_json())
    return folder


def wav(
    samples: np.ndarray, sample_rate: int = SAMPLE_RATE, *, container: str = "WAV", subtype: str | None = None
) -> bytes:
    """Encode samples `(frames,)` or `(frames, channels)` as an audio file."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=container, subtype=subtype)
    return file.getvalue()


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """`encode(samples, sample_rate=16000, container="WAV", subtype=None)` -> bytes of an audio file."""
    return wav


@pytest.fixture(scope="session")
def fan() -> Callable[..., bytes]:
    """`fan(number, severity=0.0, domain="source", seconds=3.0)` -> a synthetic fan clip as WAV."""

    @functools.cache  # hundreds of tests enroll the same first few
    def clip(number: int, severity: float = 0.0, domain: str = "source", seconds: float = 3.0) -> bytes:
        samples = MACHINES["fan-synthetic"].clip(
            split="train", domain=domain, number=number, severity=severity, seconds=seconds
        )
        return wav(samples, subtype="PCM_16")

    return clip


@pytest.fixture(scope="session")
def fill() -> Callable[..., None]:
    """`fill(data_dir, machines=3, clips=4)` makes a store of machines m0, m1, ... with random unit embeddings."""

    def make(data_dir: Path, machines: int = 3, clips: int = 4, windows: int = 2, dim: int = 64) -> None:
        rng = np.random.default_rng(0)
        store = Store.open(data_dir)
        for machine in range(machines):
            with store.begin() as tx:
                record, _ = tx.put_machine(f"m{machine}", f"the {machine}th")
            vectors = rng.standard_normal((clips, windows, dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
            new = [
                NewClip(
                    sha256=f"{machine:032x}{clip:032x}",
                    name=f"{clip}.wav",
                    recording=None,
                    domain=Domain.TARGET if clip == 0 else Domain.SOURCE,
                    seconds=10.0 * windows,
                    sample_rate=16_000,
                    channels=1,
                    vectors=vectors[clip],
                    starts=10.0 * np.arange(windows),
                )
                for clip in range(clips)
            ]
            with store.begin(record) as tx:
                tx.add_clips(new, "a-space", BankLimits(10**6, 10**6), Action.ENROLL)
        store.close()

    return make


@functools.cache
def _crc_table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> bits - 1 else 0)) & (1 << bits) - 1
        table.append(value)
    return table


def _crc(data: bytes, polynomial: int, bits: int) -> bytes:
    """The cyclic redundancy check of a FLAC frame or of its head."""
    table, value = _crc_table(polynomial, bits), 0
    for byte in data:
        value = value << 8 & (1 << bits) - 1 ^ table[value >> bits - 8 ^ byte]
    return value.to_bytes(bits // 8)


@pytest.fixture(scope="session")
def dense() -> bytes:
    """Three seconds of decoding on a fast machine, more elsewhere, in less than five megabytes.

    It is 600 s of eight channels with a click each second. To encode all of it takes longer than to decode it, so
    its two kinds of frames are encoded once each and put together under numbers of their own.
    """
    size, frames = 4_096, 56_400
    samples = np.zeros((2 * size, 8), dtype=np.float32)
    samples[0] = 0.5
    flac = wav(samples, 384_000, container="FLAC", subtype="PCM_16")
    start, last = 4, 0
    while not last:  # over the blocks before the first frame
        last, start = flac[start] >> 7, start + 4 + int.from_bytes(flac[start + 1 : start + 4])
    fixed = flac[start : start + 4]  # the sync code, and what the two have in common
    second = flac.rindex(fixed + b"\x01")  # its number
    rate = flac[start + 5 : start + 7]
    rests = flac[start + 8 : second - 2], flac[second + 8 : -2]  # without the checks of head and frame
    # How long frames are and the MD5 of the samples are left open.
    whole = [flac[:12], bytes(6), (int.from_bytes(flac[18:26]) & ~(2**36 - 1) | frames * size).to_bytes(8), bytes(16)]
    whole.append(flac[42:start])
    for number in range(frames):
        head = fixed + chr(number).encode("utf-8", "surrogatepass") + rate
        frame = head + _crc(head, 0x07, 8) + rests[number % (384_000 // size + 1) > 0]
        whole.append(frame + _crc(frame, 0x8005, 16))
    return b"".join(whole)


@pytest.fixture
def processes() -> list["subprocess.Popen[bytes]"]:
    """Those that `serve` started, in order."""
    return []


@contextmanager
def _serving(bundle: Path, processes: list["subprocess.Popen[bytes]"]) -> Iterator[Callable[..., str]]:
    def start(data_dir: Path, **environ: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {"OFFKEY_PORT": str(port), "OFFKEY_DATA_DIR": str(data_dir), "OFFKEY_BUNDLE": str(bundle)}
        process = subprocess.Popen([sys.executable, "-m", "service.cli", "serve"], env={**os.environ, **own, **environ})
        processes.append(process)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        with Client(url) as client:
            while not client.ready():
                assert process.poll() is None, "the service ended while it was starting"
                assert time.monotonic() < deadline, "the service is not ready after 60 s"
                time.sleep(0.05)
        return url

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        assert process.wait(30) == 0


@pytest.fixture
def serve(bundle: Path, processes: list["subprocess.Popen[bytes]"]) -> Iterator[Callable[..., str]]:
    """`serve(data_dir, **environ)` -> address of `offkey serve` running in a process of its own."""
    with _serving(bundle, processes) as start:
        yield start


@pytest.fixture(scope="module")
def serve_all(bundle: Path) -> Iterator[Callable[..., str]]:
    """The same for all tests of a module, where one cannot disturb the next."""
    with _serving(bundle, []) as start:
        yield start


@pytest.fixture
def offkey(monkeypatch: pytest.MonkeyPatch) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`offkey(*arguments, **environ)` runs a command that ends by itself, with no other OFFKEY_* than is given.

    In this process: Python and its libraries take half a second to load, hundreds of times over. The examples of
    README.md and docs/ are run as users run them, and so is what is about how a process starts and ends.
    """

    def run(*arguments: object, **environ: str) -> "subprocess.CompletedProcess[str]":
        words = ["offkey", *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in [name for name in os.environ if name.startswith("OFFKEY_")]:
                patch.delenv(name)
            for name, value in {"COLUMNS": "200", **environ}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", words)
            try:
                status = main()
            except SystemExit as end:
                status = end.code
            if isinstance(status, str):  # as the interpreter does
                sys.stderr.write(f"{status}\n")
                status = 1
        return subprocess.CompletedProcess(words, int(status or 0), out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def settings(tmp_path: Path, bundle: Path) -> Settings:
    """Settings of a service whose data lives as long as the test."""
    return Settings(data_dir=tmp_path / "data", bundle=bundle, workers=2)


@pytest.fixture
def api(settings: Settings) -> Iterator[TestClient]:
    """The application, in this process, with an empty store. A failure of the service is answered, not raised."""
    with TestClient(create_app(Service.open(settings)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def fan_api(api: TestClient, fan: Callable[..., bytes]) -> TestClient:
    """The application with a machine `fan-1` of five enrolled clips."""
    return _with_fan(api, fan, clips=5)


@pytest.fixture
def full_api(api: TestClient, fan: Callable[..., bytes]) -> TestClient:
    """The application with a machine `fan-1` of 20 enrolled clips, enough for the guard."""
    return _with_fan(api, fan, clips=20)


def _with_fan(api: TestClient, fan: Callable[..., bytes], clips: int) -> TestClient:
    assert api.put("/machines/fan-1").status_code == 201
    files = [("clips", (f"healthy_{number}.wav", fan(number))) for number in range(clips)]
    assert api.post("/enroll", params={"machine_id": "fan-1"}, files=files).status_code == 201
    return api
