"""What the training commands share: where progress is drawn, and how a mistake is told."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn

_console = Console(stderr=True)
_LINE_SECONDS = 10.0  # between two lines of a task, where there is no terminal


def is_first() -> bool:
    """Is this the process that speaks for all of a training run?"""
    return os.environ.get("RANK", "0") == "0"


def progress_bars() -> Progress:
    """Return progress on standard error: bars on a terminal, a line now and then in a log file."""
    if is_first() and (not _console.is_terminal or _console.is_dumb_terminal):
        return _ProgressLines(console=_console)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_console, disable=not is_first())


class _ProgressLines(Progress):
    """Prints a line per task at most every 10 s, and one when it is finished."""

    def __init__(self, console: Console) -> None:
        super().__init__(console=console, disable=True)  # no bars
        self._printed: dict[TaskID, float] = {}  # when

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task as `Progress.update` does."""
        with self._lock:
            task = self._tasks[task_id]
            before = task.finished
            super().update(task_id, **changes)
            # The first line comes after an interval, so that a short task is one line.
            waited = self.get_time() - self._printed.setdefault(task_id, self.get_time())
            if not (task.visible and task.total) or before or not (task.finished or waited >= _LINE_SECONDS):
                return
            self._printed[task_id] = self.get_time()
            self.console.print(_line(task), highlight=False, markup=False, soft_wrap=True)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task as `Progress.advance` does, which does not go through `update`."""
        self.update(task_id, advance=advance)


def _line(task: Task) -> str:
    """Return what a bar shows, as text: `training, alignment 0.481: 200/400, 50%, 0:03:12 left`."""
    seconds = task.elapsed if task.finished else task.time_remaining
    # The time left is unknown until there are two updates to tell a speed from.
    spent = "" if seconds is None else f", {timedelta(seconds=round(seconds))} {'in all' if task.finished else 'left'}"
    return f"{task.description}: {task.completed:.0f}/{task.total:.0f}, {task.percentage:.0f}%{spent}"


@contextmanager
def for_people() -> Iterator[None]:
    """Say in one line what a person can mend; let everything else through."""
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
