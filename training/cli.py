"""`offkey train`, `distill` and `export`. Torch is imported when a command runs, so that `offkey --help` is quick."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(no_args_is_help=True, help="Train a student and export it as a model bundle.")
_console = Console(stderr=True)


_Config = Annotated[Path | None, typer.Argument(help="TOML file: what differs from the defaults")]
_Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
_Runs = Annotated[Path, typer.Option(help="folder in which the run folder is made")]


@app.command()
def train(
    config: _Config = None,
    overrides: _Overrides = None,
    runs: _Runs = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="run folder: go on from its newest checkpoint, with the config it began with")
    ] = None,
) -> None:
    """Train a student to retain mixtures; prints the run folder. Several processes: `torchrun -m training train`."""
    with _for_people():
        if resume is None:
            _train(config, overrides, runs, distill=False)
            return
        from training.config import load_config, override
        from training.loop import resume as go_on
        from training.run import Run

        run, asked = Run(resume), list(overrides or ())
        if config is not None and "=" in str(config):  # there is no config, only KEY=VALUE
            config, asked = None, [str(config), *asked]
        settings = load_config(config, asked) if config else override(run.config, asked)
        with _progress() as progress:
            go_on(run, settings, progress)
    _print(run.folder)


@app.command()
def distill(config: _Config = None, overrides: _Overrides = None, runs: _Runs = Path("runs")) -> None:
    """Train a student on the embeddings of another encoder, named by `teacher` in the config; prints the run folder."""
    with _for_people():
        _train(config, overrides, runs, distill=True)


def _train(config: Path | None, overrides: list[str] | None, runs: Path, *, distill: bool) -> None:
    from training.config import ConfigError, load_config
    from training.loop import train as run_training

    if config is None:
        raise ConfigError("Name a config, a TOML file with what differs from the defaults.")
    settings = load_config(config, overrides or ())
    if distill and settings.teacher.is_copy:
        raise ConfigError("Name a teacher: `teacher.bundle`, or `teacher.name` with its checkpoint and layers.")
    with _progress() as progress:
        run = run_training(settings, config.stem, runs, progress)
    _print(run.folder)


def _print(folder: Path) -> None:
    if os.environ.get("RANK", "0") == "0":
        typer.echo(folder)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run folder that `offkey train` printed")],
    name: Annotated[str, typer.Option(help="of the bundle")],
    version: Annotated[str, typer.Option(help="of the bundle")] = "1",
    models: Annotated[Path, typer.Option(help="folder of bundles")] = Path("models"),
    measured: Annotated[Path | None, typer.Option(help="figures for the card, by benchmarks/student.py")] = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="TREE",
            help="linear layers in 8-bit integers, and what that costs in AUC on these machines in DCASE layout",
        ),
    ] = None,
    int8_cost: Annotated[float, typer.Option(help="largest fall of mean AUC or pAUC by int8 that is accepted")] = 0.01,
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="beside the graph, so that another student can start from it")
    ] = True,
    replace: Annotated[bool, typer.Option("--replace", help="put it in place of a bundle of that version")] = False,
) -> None:
    """Write a run's student as a model bundle; prints its folder."""
    with _for_people():
        from training.export import export_run
        from training.int8 import Int8
        from training.run import Run

        asked = None if int8 is None else Int8(int8, int8_cost)
        with _progress() as progress:
            task = progress.add_task("int8 and float32", total=None, visible=asked is not None)
            folder = export_run(
                Run(run),
                name,
                version,
                models,
                measured=measured,
                int8=asked,
                weights=weights,
                replace=replace,
                heard=lambda done, total: progress.update(task, completed=done, total=total),
            )
    typer.echo(folder)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_console, disable=os.environ.get("RANK", "0") != "0")


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
