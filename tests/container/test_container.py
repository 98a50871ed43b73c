"""The image is built, started as in docker-compose.yml, used, killed and started again.

Runs on podman (whose build is buildah) and podman-compose. `.ci/container` prepares a Debian machine.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.synthetic import MACHINES, PlannedClip, plan_tree, write_tree

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("container"),  # one build for all
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the engine's host network is a virtual machine's"),
]

ROOT = Path(__file__).parents[2]
BUILD_SECONDS = 600  # the dependencies are a download of some 300 MB
READY_SECONDS = 60
GRACE_SECONDS = 30  # stop_grace_period in docker-compose.yml


def _tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
    if found is not None:
        return found
    pytest.skip(f"{name} is not installed; .ci/container prepares a Debian machine for these tests")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Node:
    """The service in its container."""

    podman: str
    container: str
    http: httpx2.Client

    def run(self, *arguments: str, timeout: float = 60) -> str:
        """Run podman; give what it printed."""
        done = subprocess.run([self.podman, *arguments], capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            pytest.fail(f"podman {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr}")
        return done.stdout.strip()

    def inside(self, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as the image's user."""
        return subprocess.run(
            [self.podman, "exec", *options, self.container, *command], capture_output=True, text=True, timeout=60
        )

    def state(self, field: str) -> str:
        """Return a field of the container from podman."""
        return self.run("inspect", "--format", f"{{{{{field}}}}}", self.container)

    def wait_until_ready(self) -> None:
        """Wait for `/readyz`.

        Health checks need systemd, which runs on few machines for tests: podman would wait in vain.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if self.http.get("/readyz", timeout=2).status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # not listening yet
            time.sleep(0.1)
        logs = subprocess.run([self.podman, "logs", self.container], capture_output=True, text=True, timeout=30)
        pytest.fail(f"not ready after {READY_SECONDS} s; its log:\n{logs.stdout}{logs.stderr}")

    def start(self) -> None:
        """Start the stopped container again."""
        self.run("start", self.container)
        self.wait_until_ready()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    podman, compose = _tool("podman"), _tool("podman-compose")
    port = os.environ.get("OFFKEY_TEST_PORT") or str(_free_port())
    # A name of its own, so that neither another run nor a node of the user's is touched.
    project = f"offkey-test-{os.getpid()}"
    image = f"{project}_offkey"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OFFKEY_")}
    environment["OFFKEY_PORT"] = port
    build_args = os.environ.get("OFFKEY_TEST_BUILD_ARGS", "")

    def run_compose(*arguments: str, timeout: int) -> None:
        # coreutils' timeout ends podman too, where Python's would leave it running behind podman-compose.
        command = ["timeout", "--kill-after=10", str(timeout), compose, "--in-pod=false", "--project-name", project]
        command += ["--file", "docker-compose.yml", "--file", "tests/container/host-network.yml"]
        # Docker's format, since OCI's has no health check; no layers, so that none remain.
        command += [f"--podman-build-args=--format=docker --layers=false {build_args}", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout + 30)
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
            pytest.fail(f"podman-compose {' '.join(arguments)} exited with {done.returncode}:\n{tail}")

    try:
        run_compose("build", timeout=BUILD_SECONDS)
        run_compose("up", "--detach", "--no-build", timeout=60)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            node = Node(podman, f"{project}_offkey_1", http)
            node.wait_until_ready()
            yield node
    finally:
        try:
            run_compose("down", "--volumes", "--timeout", "1", timeout=60)
        finally:
            subprocess.run([podman, "rmi", "--force", image], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[PlannedClip, bytes]]:
    """Synthetic clips of every example machine, as WAV: 10 + 3 healthy ones to enroll, 12 to score."""
    root = tmp_path_factory.mktemp("clips")
    planned = plan_tree(train_source=10, train_target=3, test_each=3, severities=[100])
    write_tree(root, planned)
    return [(clip, (root / clip.path).read_bytes()) for clip in planned]


def _post(node: Node, path: str, audio: bytes, **query: str) -> dict[str, Any]:
    answer = node.http.post(path, params=query, content=audio)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _scores(node: Node, clips: list[tuple[PlannedClip, bytes]]) -> dict[PlannedClip, float]:
    return {
        clip: _post(node, "/score", audio, machine_id=clip.machine_id)["clips"][0]["anomaly_score"]
        for clip, audio in clips
        if clip.split == "test"
    }


def test_a_killed_container_gives_the_same_scores(node: Node, clips: list[tuple[PlannedClip, bytes]]) -> None:
    for machine_id in MACHINES:
        assert node.http.put(f"/machines/{machine_id}").status_code == 201
    for clip, audio in clips:
        if clip.split == "train":
            answer = _post(node, "/enroll", audio, machine_id=clip.machine_id, domain=clip.domain)
            assert answer["clips"][0]["status"] == "enrolled"
    before = _scores(node, clips)

    for machine_id in MACHINES:
        of_machine = {clip: score for clip, score in before.items() if clip.machine_id == machine_id}
        healthy = [score for clip, score in of_machine.items() if clip.label == "normal"]
        faulty = [score for clip, score in of_machine.items() if clip.label == "anomaly"]
        assert len(healthy) == len(faulty) == 6
        assert min(faulty) > max(healthy), (machine_id, healthy, faulty)

    started = node.state(".State.StartedAt")
    node.run("kill", "--signal", "KILL", node.container)
    node.start()
    assert node.state(".State.StartedAt") != started
    assert _scores(node, clips) == pytest.approx(before, abs=1e-6)


def test_the_service_is_confined(node: Node) -> None:
    assert node.inside("id", "-u").stdout.strip() == "10001"
    status = dict(
        line.split(":\t", 1) for line in node.inside("cat", "/proc/self/status").stdout.splitlines() if ":\t" in line
    )
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    for folder in ("/etc", "/app/models", "/opt/offkey"):
        assert "Read-only file system" in node.inside("touch", f"{folder}/probe").stderr
    for folder in ("/data", "/tmp"):
        assert node.inside("sh", "-c", f"touch {folder}/probe && rm {folder}/probe").returncode == 0
    assert int(node.state(".HostConfig.Memory")) == 2 * 2**30
    assert int(node.state(".HostConfig.PidsLimit")) == 512


def test_the_image_holds_only_what_serves(node: Node) -> None:
    for module in ("pip", "torch", "hatchling", "pytest"):
        found = node.inside("python", "-c", f"import {module}")
        assert f"No module named '{module}'" in found.stderr
    assert node.inside("sh", "-c", "command -v gcc g++ cc pip").stdout == ""


def test_the_encoder_runtime_reports_to_nobody(node: Node) -> None:
    # Where it may report to its maker, ONNX Runtime keeps the identifier it reports under in its cache.
    imported = node.inside("python", "-c", "import onnxruntime", options=["--env", "HOME=/tmp"])
    assert imported.returncode == 0, imported.stderr
    assert node.inside("find", "/tmp", "-name", "deviceid").stdout == ""


def test_the_health_check_tells_the_truth(node: Node) -> None:
    node.run("healthcheck", "run", node.container)
    kind, *command = json.loads(node.state("json .Config.Healthcheck.Test"))
    assert kind == "CMD"
    nobody_listens = node.inside(*command, options=["--env", f"OFFKEY_PORT={_free_port()}"])
    assert nobody_listens.returncode != 0


def test_sigterm_ends_it_in_time(node: Node) -> None:
    begun = time.monotonic()
    node.run("stop", "--time", str(GRACE_SECONDS), node.container, timeout=GRACE_SECONDS + 30)
    assert time.monotonic() - begun < GRACE_SECONDS
    assert node.state(".State.ExitCode") == "0"
    node.start()
