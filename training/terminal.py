"""What the training commands share: where progress is drawn, and how a mistake is told."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_console = Console(stderr=True)


def is_first() -> bool:
    """Is this the process that speaks for all of a training run?"""
    return os.environ.get("RANK", "0") == "0"


def progress_bars() -> Progress:
    """Progress on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_console, disable=not is_first())


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
