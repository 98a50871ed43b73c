"""What the commands that talk to a service share."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from offkey.client import DEFAULT_URL

Url = Annotated[str, typer.Option("--url", envvar="OFFKEY_URL", help="Address of the service.")]
MachineId = Annotated[str, typer.Option("--machine", "-m", help="Machine id, one physical unit.")]

URL: str = DEFAULT_URL


def progress() -> Progress:
    """A progress bar on standard error, so that standard output can be piped."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,  # it would go to standard error with the bar
    )


def plain(text: str) -> Text:
    """Text from outside as a terminal may show it: no markup, no control characters."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))
