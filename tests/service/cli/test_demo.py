"""The demo: the README's first command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offkey import Client, ClipScore
from service.cli.demo import Verdict

# The demo with a few clips of each kind, for tests that do not depend on the scores.
SMALL = """
import functools
from service import cli, synthetic
synthetic.plan_tree = functools.partial(synthetic.plan_tree, train_source=4, train_target=2, test_each=3)
cli.main()
"""


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "160", "TMPDIR": str(tmp_path)}


@pytest.mark.timeout(300)
def test_the_demo_separates_every_machine_and_ends_by_itself(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "service.cli", "demo", "--once", "--port", "0"]
    found = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, timeout=280, check=False)
    assert found.returncode == 0, found.stdout[-3_000:] + found.stderr[-3_000:]
    for machine in ("fan", "gearbox", "pump", "bearing"):
        assert f"{machine}-synthetic" in found.stdout
    assert "ANOMALOUS" in found.stdout
    assert "normal" in found.stdout
    assert not list(tmp_path.iterdir())  # nothing is left behind


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_leaves_the_service_up_until_a_signal(tmp_path: Path, ending: signal.Signals) -> None:
    words = [sys.executable, "-c", SMALL, "demo", "--port", "0"]
    with subprocess.Popen(
        words, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if "The service is up at" in line)
            url = line.split("up at ")[1].split()[0]
            with Client(url) as client:
                assert client.ready()
                assert len(list(client.machines())) == 4
        finally:
            process.send_signal(ending)
        assert process.wait(60) == 0
    deadline = time.monotonic() + 10
    with Client(url) as client:
        while client.ready():
            assert time.monotonic() < deadline, "the service outlived the demo"
    assert not list(tmp_path.iterdir())  # nothing is left behind


@pytest.mark.parametrize(
    ("healthy", "subtle", "plain", "separated"), [(1.0, 0.5, 2.0, True), (1.0, 3.0, 0.5, False), (1.0, 3.0, 1.0, False)]
)
def test_only_plain_faults_decide(healthy: float, subtle: float, plain: float, separated: bool) -> None:
    def clip(score: float) -> ClipScore:
        return ClipScore.model_construct(name="x", anomaly_score=score, is_anomalous=score > 1)

    verdict = Verdict("m", {0: [clip(healthy)], 30: [clip(subtle)], 60: [clip(9.0)], 100: [clip(plain)]})
    assert verdict.separated is separated
    assert verdict.alarms(60) == "1 of 1"
