"""Console output shared by the training commands: progress and error messages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn

_console = Console(stderr=True)
_LINE_SECONDS = 10.0  # seconds between two lines of a task if there is no terminal


def is_first() -> bool:
    """Return whether this is the first process of a training run, which prints the output."""
    return os.environ.get("RANK", "0") == "0"


def progress_bars() -> Progress:
    """Create a progress display on standard error: bars on a terminal, occasional lines in a log file."""
    if is_first() and (not _console.is_terminal or _console.is_dumb_terminal):
        return _ProgressLines(console=_console)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_console, disable=not is_first())


class _ProgressLines(Progress):
    """Prints a line per task at most every 10 s, and one at its end."""

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, disable=True)  # no bars
        self._printed: dict[TaskID, float] = {}  # time of the last line

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Update a task, as `Progress.update`."""
        with self._lock:
            task = self._tasks[task_id]
            before = task.finished
            super().update(task_id, **changes)
            # The first line is printed after an interval, so that a short task prints one line.
            waited = self.get_time() - self._printed.setdefault(task_id, self.get_time())
            if not (task.visible and task.total) or before or not (task.finished or waited >= _LINE_SECONDS):
                return
            self._printed[task_id] = self.get_time()
            self.console.print(_line(task), highlight=False, markup=False, soft_wrap=True)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task, as `Progress.advance`, which does not call `update`."""
        self.update(task_id, advance=advance)


def _line(task: Task) -> str:
    """Format a task as text: `training, alignment 0.481: 200/400, 50%, 0:03:12 left`."""
    seconds = task.elapsed if task.finished else task.time_remaining
    # The time left is unknown until two updates give a speed.
    spent = (
        "" if seconds is None else f", {timedelta(seconds=round(seconds))} {'in total' if task.finished else 'left'}"
    )
    return f"{task.description}: {task.completed:.0f}/{task.total:.0f}, {task.percentage:.0f}%{spent}"


@contextmanager
def user_errors() -> Iterator[None]:
    """Print errors that the user can fix in one line and exit with status 1; raise all others."""
    try:
        from training.errors import EXPECTED
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("training", "service")):
            raise
        needs = f"offkey: training needs {error.name}, which is not installed: pip install 'offkey[train]'"
        _console.print(needs, style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    try:
        yield
    except EXPECTED as error:
        _console.print(f"offkey: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
