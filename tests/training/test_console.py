"""Progress: bars on a terminal, lines in a log file, and never both."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.console import Console

from training import console

SCRIPT = """
from training.console import progress_bars
with progress_bars() as progress:
    task = progress.add_task("whitening", total=40)
    for done in range(1, 41):
        progress.update(task, completed=done, description=f"whitening, {done}")
"""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What a console that is no terminal has got."""
    text = io.StringIO()
    monkeypatch.setattr(console, "_console", Console(file=text, width=40, get_time=clock))
    return lambda: text.getvalue().splitlines()


def test_a_log_file_gets_a_line_every_ten_seconds_and_one_at_the_end(
    clock: Clock, lines: Callable[[], list[str]]
) -> None:
    with console.progress_bars() as progress:
        task = progress.add_task("training", total=400)
        for step in range(1, 401):
            clock.now += 0.125
            progress.update(task, completed=step, description=f"training, alignment [{step / 1000:.3f}]")
        progress.update(task, completed=400)
    found = lines()
    assert [line.partition(", alignment ")[2].partition("%")[0] for line in found] == [
        "[0.081]: 81/400, 20",
        "[0.161]: 161/400, 40",
        "[0.241]: 241/400, 60",
        "[0.321]: 321/400, 80",
        "[0.400]: 400/400, 100",
    ]
    assert found[0].endswith(", 0:00:40 left")
    assert found[4].endswith(", 0:00:50 in total")


def test_advancing_a_task_prints_as_updating_it_does(clock: Clock, lines: Callable[[], list[str]]) -> None:
    with console.progress_bars() as progress:
        task = progress.add_task("embedding clips", total=60)
        for _ in range(30):
            clock.now += 1
            progress.advance(task, 2)
    assert [line.partition("%")[0] for line in lines()] == [
        "embedding clips: 22/60, 37", "embedding clips: 42/60, 70", "embedding clips: 60/60, 100",
    ]  # fmt: skip


def test_tasks_have_lines_of_their_own_and_what_is_not_shown_has_none(
    clock: Clock, lines: Callable[[], list[str]]
) -> None:
    with console.progress_bars() as progress:
        first, second = (progress.add_task(name, total=2) for name in ("first", "second"))
        hidden = progress.add_task("hidden", total=2, visible=False)
        endless = progress.add_task("endless", total=None)
        progress.add_task("untouched", total=4000)
        for task in (first, hidden, endless, second, first, hidden, endless):
            clock.now += 6
            progress.update(task, advance=1)
    assert [line.partition("%")[0] for line in lines()] == ["first: 2/2, 100"]


def test_other_processes_of_a_run_print_nothing(
    lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with console.progress_bars() as progress:
        progress.update(progress.add_task("training", total=1), completed=1)
    assert lines() == []


def test_a_terminal_gets_bars_and_no_lines() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert found.stdout == ""
    assert found.stderr.startswith("whitening, 40: 40/40, 100%")
    assert found.stderr.count("\n") == 1

    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=theirs, env=environ) as process:
        os.close(theirs)
        drawn = b""
        try:
            while part := os.read(ours, 4096):
                drawn += part
        except OSError:  # the other end is closed
            pass
        assert process.wait() == 0
    os.close(ours)
    assert b"40/40" in drawn
    assert b"100%" not in drawn
