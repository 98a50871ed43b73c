"""The `offkey` command."""

import sys
from importlib.metadata import entry_points
from typing import NoReturn

import typer
from rich.console import Console

from offkey import OffkeyError, ProblemError, UnreachableError, __version__
from service.cli import clips, demo, drift, jobs, keys, machines, serve, snapshots, synthesize, threshold

_OWN_PACKAGES = ("offkey", "service", "training")

# The modules of the commands import what only the service needs when a command runs: the client commands work
# without it, and `offkey --help` is fast.
app = typer.Typer(
    name="offkey",
    help="Hear when a machine sounds off: enroll healthy clips, score every clip after.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (serve, clips, jobs, machines, threshold, drift, snapshots, demo, synthesize):
    app.add_typer(module.app)
app.add_typer(keys.app, name="keys")
for plugin in entry_points(group="offkey.commands"):
    app.add_typer(plugin.load())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offkey {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Hear when a machine sounds off: enroll healthy clips, score every clip after."""


def main() -> None:
    """Run the command. An error is one message on standard error and exit status 1."""
    try:
        app()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN_PACKAGES:
            raise
        _fail(f"This command needs the service: pip install 'offkey[service]' ({error.name} is not installed).")
    except (ProblemError, UnreachableError, OffkeyError, OSError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"offkey: {message}", style="red", markup=False)
    sys.exit(1)
