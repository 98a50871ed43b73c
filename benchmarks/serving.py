"""Compare `POST /score` with the same work in a loop in one process, and with other servers: the cost of serving.

    python benchmarks/serving.py [--peers VENV/bin/python] [--networks shipped cnn-5m vit-b]

Every side decodes the same 10 s clip, runs the same ONNX file and searches the same embeddings exactly. The load comes
from `hey`, a compiled generator on the same cores, whose share of the CPU is reported. Sides take turns; figures are
medians over rounds. Offkey also measures acoustics and localizes; a second row has it without localization.
`--peers` names a Python with litserve and bentoml. Networks are the shipped student, and stand-ins of random weights in
the size of a 5 M CNN and of a ViT-B: the cost of serving does not grow with the network, so its share falls.
"""

import argparse
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import hey
import numpy as np
import soundfile
from machine import write
from rich.console import Console
from rich.table import Table
from stand_ins import STAND_INS, stand_in
from threadpoolctl import threadpool_limits

from offkey.client import Client
from service.encoder.bundle import MODEL_FILE
from service.encoder.encoder import Encoder
from service.encoder.processor import cores
from service.settings import Device, shipped_bundle
from service.synthetic import plan_tree, write_tree

MACHINE = "fan-synthetic"
SERVERS = Path(__file__).parent / "servers"
CORES = cores()
CONCURRENCY = 32
SHIPPED = "shipped"
MOST_CLIPS = 640  # per side and round, at concurrency 32
PEERS = {"litserve": "LitServe", "bentoml": "BentoML"}
SECONDS = 6.0  # or as many as the model alone does in so long


@dataclass(frozen=True)
class Side:
    """A server: its command, where it takes clips, and whether in a form."""

    name: str
    command: Callable[[int], list[str]]
    path: str = "/score"
    form: bool = True
    ready: str = "/docs"


@dataclass(frozen=True)
class Measured:
    """One run of the load generator."""

    rate: float  # clips per second
    p50: float  # seconds
    p99: float
    cpu: float  # seconds of CPU time per clip that the server took, with all its processes
    generator: float  # share of all cores that the load generator took


def main() -> None:
    """Measure and write results/serving-NETWORK.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="Python of an environment with litserve and bentoml")
    parser.add_argument("--networks", nargs="+", choices=[SHIPPED, *STAND_INS], default=[SHIPPED, *STAND_INS])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    hey.require()
    versions = peer_versions(options.peers)
    # Additional threads of numpy would only wait for the threads of the sides.
    threadpool_limits(1, user_api="blas")
    os.environ |= {"OPENBLAS_NUM_THREADS": "1"}
    for network in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            bundle = shipped_bundle() if network == SHIPPED else stand_in(network, root)
            clip, train = prepare(root, bundle)
            os.environ |= {"OFFKEY_BUNDLE": str(bundle), "BENCH_MODEL": str(bundle / MODEL_FILE)}
            os.environ |= {"BENCH_BANK": str(root / "bank.npy")}
            found = report(network, measure(root, clip, train, options.peers, options.rounds))
            result = {"rounds": options.rounds, "peers": versions, "sides": found}
            command = f"python benchmarks/serving.py --networks {network} --rounds {options.rounds}"
            print(write(f"serving-{network}", command + (" --peers PYTHON" if options.peers else ""), result))


def prepare(root: Path, bundle: Path) -> tuple[Path, list[Path]]:
    """Synthetic clips: one to score, and those to enroll, whose embeddings are `bank.npy` for the others."""
    clips = plan_tree([MACHINE], test_each=1)
    write_tree(root / "clips", clips)
    train = [root / "clips" / clip.path for clip in clips if clip.split == "train"]
    probe = next(root / "clips" / clip.path for clip in clips if clip.split == "test")
    encoder = Encoder(bundle, Device.CPU)
    rows = [encoder.embed(soundfile.read(path, dtype="float32")[0])[0] for path in train]
    np.save(root / "bank.npy", np.concatenate(rows))
    return probe, train


def measure(
    root: Path, clip: Path, train: list[Path], peers: Path | None, rounds: int
) -> dict[str, dict[int, list[Measured]]]:
    """Every side, round after round."""
    found: dict[str, dict[int, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    sides, ways, body = [*offkey(), *others(peers)], layouts(), clip.read_bytes()
    one = alone(ways["in process, one thread"][1], body, 1, 4).p50
    most = max(2 * CONCURRENCY, min(MOST_CLIPS, int(SECONDS * CORES / one)))
    for _ in range(rounds):
        for name, (concurrency, work, threads) in ways.items():
            found[name][concurrency].append(alone(work, body, threads, most // 2))
        for side in sides:
            with running(side, root, train) as server:
                load(server, side, clip, root, 4 * CORES, CORES)  # warm
                for concurrency, count in ((1, most // 4), (CONCURRENCY, most)):
                    found[side.name][concurrency].append(load(server, side, clip, root, count, concurrency))
    return found


def offkey() -> list[Side]:
    """The service as it comes, and without localization."""
    path = f"/score?machine_id={MACHINE}"

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "service.cli", "serve"]

    return [
        Side("offkey", command, path, form=False, ready="/readyz"),
        Side("offkey, localize=false", command, path + "&localize=false", form=False, ready="/readyz"),
    ]


def others(peers: Path | None) -> list[Side]:
    """Plain FastAPI, and LitServe and BentoML where there is an environment that has them."""
    sides = [Side("FastAPI", lambda port: [sys.executable, "plain.py", str(port)], form=False)]
    if peers is not None:
        bento = ["-m", "bentoml", "serve", "bento:Score", "--host", "127.0.0.1", "--port"]
        sides += [
            Side("LitServe", lambda port: [str(peers), "lit.py", str(port)], ready="/health"),
            Side("BentoML", lambda port: [str(peers), *bento, str(port)], ready="/readyz"),
        ]
    return sides


def peer_versions(peers: Path | None) -> dict[str, str]:
    """Of the servers in the environment of a Python."""
    if peers is None:
        return {}
    ask = f"from importlib.metadata import version; print(*map(version, {list(PEERS)!r}))"
    found = subprocess.run([str(peers), "-c", ask], check=True, capture_output=True, text=True).stdout
    return dict(zip(PEERS.values(), found.split(), strict=True))


class Running(NamedTuple):
    """A server in a process of its own."""

    url: str
    pid: int


@contextmanager
def running(side: Side, root: Path, train: list[Path], data: Path | None = None) -> Iterator[Running]:
    """A server, ready; Offkey with the clips enrolled, on a data folder of its own or on this one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = Path(tempfile.mkdtemp(dir=root)) if data is None else data
    environ = {**os.environ, "OFFKEY_PORT": str(port), "OFFKEY_DATA_DIR": str(data), "BENTOML_DO_NOT_TRACK": "true"}
    process = subprocess.Popen(
        side.command(port),
        cwd=SERVERS if not side.name.startswith("offkey") else None,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait(url + side.ready, process, side.name)
        if side.name.startswith("offkey") and train:
            with Client(url) as client:
                client.put_machine(MACHINE)
                client.enroll(MACHINE, train)
        yield Running(url, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait(url: str, process: "subprocess.Popen[bytes]", name: str) -> None:
    """Until a server answers."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit(f"{name} did not start.")


def load(server: Running, side: Side, clip: Path, root: Path, count: int, concurrency: int) -> Measured:
    """Send a clip `count` times with `hey`; every answer has to be 200."""
    body, kind = root / "body", "audio/wav"
    if side.form:
        kind = "multipart/form-data; boundary=frontier"
        head = b'--frontier\r\nContent-Disposition: form-data; name="clip"; filename="clip.wav"\r\n'
        head += b"Content-Type: audio/wav\r\n\r\n"
        body.write_bytes(head + clip.read_bytes() + b"\r\n--frontier--\r\n")
    else:
        body.write_bytes(clip.read_bytes())
    count = count // concurrency * concurrency
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    spent = -cpu_seconds(server.pid)
    answers = hey.post(server.url + side.path, body, kind, ["-n", str(count), "-c", str(concurrency), "-t", "120"])
    spent += cpu_seconds(server.pid)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    refused = [answer.status for answer in answers if answer.status != 200]
    if refused or len(answers) != count:
        raise SystemExit(f"{side.name}: {len(answers)} answers of {count}, among them {refused[:3]}.")
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # The generator's start is no part of the rate: from the first request's start to the last answer.
    took = max(answer.sent + answer.seconds for answer in answers)
    return measured([answer.seconds for answer in answers], took, spent, busy / seconds / CORES)


def cpu_seconds(session: int) -> float:
    """CPU time so far of all processes of a session."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def layouts() -> dict[str, tuple[int, Callable[[bytes], object], int]]:
    """Return ways to do the work without a server: the concurrency to compare with, the work, and its threads."""
    sys.path.insert(0, str(SERVERS))
    from work import Work

    narrow, wide = Work(1), Work(CORES)
    return {
        "in process, a thread per core": (CONCURRENCY, narrow, CORES),
        "in process, one thread": (1, narrow, 1),
        "in process, a run over all cores": (1, wide, 1),
    }


def alone(work: Callable[[bytes], object], body: bytes, threads: int, count: int) -> Measured:
    """Do the work `count` times on so many threads of this process."""

    def one(_: int) -> float:
        start = time.perf_counter()
        work(body)
        return time.perf_counter() - start

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(2 * CORES)))  # warm
        start, spent = time.perf_counter(), time.process_time()
        times = list(pool.map(one, range(count)))
        return measured(times, time.perf_counter() - start, time.process_time() - spent, 0.0)


def measured(times: list[float], seconds: float, cpu_seconds: float, generator: float) -> Measured:
    """What so many answers in `seconds` come to."""
    count, p99 = len(times), hey.percentile(times, 99)
    return Measured(count / seconds, statistics.median(times), p99, cpu_seconds / count, generator)


def report(network: str, found: dict[str, dict[int, list[Measured]]]) -> dict[str, dict[str, float]]:
    """Print medians over rounds, and the ratios that matter; return them."""
    rows = {
        f"{name} @{concurrency}": {
            field: statistics.median(getattr(one, field) for one in rounds)
            for field in ("rate", "p50", "p99", "cpu", "generator")
        }
        for name, each in found.items()
        for concurrency, rounds in each.items()
    }
    alone = [row for name, row in rows.items() if name.startswith("in process")]
    best_rate, best_p50 = max(row["rate"] for row in alone), min(row["p50"] for row in alone)
    table = Table(
        network + " @ concurrency", "clips/s", "of in-process", "p50, ms", "p99, ms", "CPU, ms", "generator's"
    )
    for name, row in rows.items():
        row["rate_of_in_process"], row["p50_of_in_process"] = row["rate"] / best_rate, row["p50"] / best_p50
        figures = (f"{row['rate']:.1f}", f"{row['rate_of_in_process']:.2f}", f"{1000 * row['p50']:.1f}")
        table.add_row(
            name, *figures, *(f"{1000 * row[field]:.1f}" for field in ("p99", "cpu")), f"{row['generator']:.0%}"
        )
    Console().print(table)
    return rows


if __name__ == "__main__":
    main()
