"""Share options, the progress bar and text conversion among the commands."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from offkey.transport import DEFAULT_URL

Url = Annotated[str, typer.Option("--url", envvar="OFFKEY_URL", help="Address of the service.")]
MachineId = Annotated[str, typer.Option("--machine", "-m", help="Machine id, one physical unit.")]

URL: str = DEFAULT_URL


def progress() -> Progress:
    """Return a progress bar on standard error, so that standard output can be piped."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,  # it would go to standard error with the bar
    )


def plain(text: str) -> Text:
    """Return text from outside without markup and control characters, safe for a terminal."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))
