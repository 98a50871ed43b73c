"""`offkey train` and `offkey export`. Torch is imported when a command runs, so that `offkey --help` is quick."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(no_args_is_help=True, help="Train a student and export it as a model bundle.")
_console = Console(stderr=True)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="TOML file: what differs from the defaults")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    runs: Annotated[Path, typer.Option(help="folder in which the run folder is made")] = Path("runs"),
) -> None:
    """Train a student to retain mixtures; prints the run folder."""
    with _for_people():
        from training.config import load_config
        from training.loop import train as run_training

        settings = load_config(config, overrides or ())
        with _progress() as progress:
            run = run_training(settings, config.stem, runs, progress)
    typer.echo(run.folder)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run folder that `offkey train` printed")],
    name: Annotated[str, typer.Option(help="of the bundle")],
    version: Annotated[str, typer.Option(help="of the bundle")] = "1",
    models: Annotated[Path, typer.Option(help="folder of bundles")] = Path("models"),
    measured: Annotated[Path | None, typer.Option(help="figures for the card, by benchmarks/student.py")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="put it in place of a bundle of that version")] = False,
) -> None:
    """Write a run's student as a model bundle; prints its folder."""
    with _for_people():
        from training.export import export_run
        from training.run import Run

        folder = export_run(Run(run), name, version, models, measured=measured, replace=replace)
    typer.echo(folder)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_console)


@contextmanager
def _for_people() -> Iterator[None]:
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
