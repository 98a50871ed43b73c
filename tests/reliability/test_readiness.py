"""The time until a service is ready does not depend on how much is enrolled."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_it_is_ready_within_five_seconds_at_a_hundred_machines(
    serve: Callable[..., str],
    processes: list["subprocess.Popen[bytes]"],
    fill: Callable[..., None],
    tmp_path: Path,
) -> None:
    fill(tmp_path / "full", machines=100, clips=200, windows=1, dim=256)
    fill(tmp_path / "empty", machines=0)
    seconds = {}
    for name in ("empty", "full"):
        begin = time.monotonic()
        serve(tmp_path / name)  # returns when it is ready
        seconds[name] = time.monotonic() - begin
        processes[-1].terminate()
        assert processes[-1].wait(30) == 0
    assert seconds["full"] < max(5.0, 1.5 * seconds["empty"])  # a slow computer takes longer for either
