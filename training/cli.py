"""The training commands. Torch is imported when one of them runs, so that `offkey --help` is quick."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskID

from training.evaluation.challenge.command import evaluate
from training.evaluation.command import experiment
from training.importer.command import app as bundle
from training.terminal import for_people, is_first, progress_bars

app = typer.Typer(no_args_is_help=True, help="Train a student, export it as a model bundle, and measure it.")
app.command()(experiment)
app.command()(evaluate)
app.add_typer(bundle, name="bundle")


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
    with for_people():
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
        with progress_bars() as progress:
            go_on(run, settings, progress)
    _print(run.folder)


@app.command()
def distill(config: _Config = None, overrides: _Overrides = None, runs: _Runs = Path("runs")) -> None:
    """Train a student on the embeddings of another encoder, named by `teacher` in the config; prints the run folder."""
    with for_people():
        _train(config, overrides, runs, distill=True)


def _train(config: Path | None, overrides: list[str] | None, runs: Path, *, distill: bool) -> None:
    from training.config import ConfigError, load_config
    from training.loop import train as run_training

    if config is None:
        raise ConfigError("Name a config, a TOML file with what differs from the defaults.")
    settings = load_config(config, overrides or ())
    if distill and settings.teacher.is_copy:
        raise ConfigError("Name a teacher: `teacher.bundle`, or `teacher.name` with its checkpoint and layers.")
    with progress_bars() as progress:
        run = run_training(settings, config.stem, runs, progress)
    _print(run.folder)


def _print(folder: Path) -> None:
    if is_first():
        typer.echo(folder)


@app.command()
def compose(
    manifest: Annotated[Path, typer.Argument(help="CSV file of recordings, as `data.manifest` is")],
    folder: Annotated[Path, typer.Argument(help="is made")],
    sources: Annotated[int, typer.Option(min=1, help="machine-like clips")] = 6000,
    noises: Annotated[int, typer.Option(min=2, help="clips of noise")] = 6000,
    held_out: Annotated[
        int, typer.Option(min=0, help="clips of each kind to measure on, of recordings that no other clip is made of")
    ] = 200,
    held_out_split: Annotated[
        list[str] | None,
        typer.Option(metavar="SPLIT", help="keep these splits of the recordings for them  [default: a tenth of all]"),
    ] = None,
    role: Annotated[list[str] | None, typer.Option(help="of the recordings to take  [default: source]")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    permissive: Annotated[
        bool, typer.Option("--permissive/--any", help="only recordings whose weights may be published")
    ] = True,
) -> None:
    """Compose machine-like sounds and noises of recordings and made-up sound, to train on; prints their manifest."""
    with for_people():
        from training.composition.dataset import Composition
        from training.composition.dataset import compose as write

        asked = Composition(
            manifest,
            tuple(role or ("source",)),
            sources,
            noises,
            held_out,
            tuple(held_out_split or ()),
            seed,
            permissive,
        )
        with progress_bars() as progress:
            tasks: dict[str, TaskID] = {}

            def told(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=total)
                progress.update(tasks[what], completed=done)

            written = write(asked, folder, told)
    for name, reason in written.refused.items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    typer.echo(written.manifest)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run folder that `offkey train` printed")],
    name: Annotated[str, typer.Option(help="of the bundle")],
    version: Annotated[str, typer.Option(help="of the bundle")] = "1",
    models: Annotated[Path, typer.Option(help="folder of bundles")] = Path("models"),
    measured: Annotated[Path | None, typer.Option(help="figures for the card, by offkey experiment")] = None,
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
    with for_people():
        from training.export import export_run
        from training.int8 import Int8
        from training.run import Run

        asked = None if int8 is None else Int8(int8, int8_cost)
        with progress_bars() as progress:
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


@app.command()
def retention(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders of one recipe, with several seeds")],
    machines: Annotated[Path, typer.Option(help="folder of machines in the DCASE Task 2 layout, not trained on")],
    noise: Annotated[Path, typer.Option(help="folder with stationary/ and nonstationary/ below it, not trained on")],
    snr: Annotated[str, typer.Option(metavar="DB,...", help="signal-to-noise ratios")] = "0,-5,5",
    seeds: Annotated[int, typer.Option(min=1, help="draws of the noise")] = 2,
    json: Annotated[Path, typer.Option(help="result")] = Path("retention.json"),
) -> None:
    """Measure how near students lie to the retain target, beside the frozen encoder they started from."""
    with for_people():
        from training.evaluation.config import parse_ratios
        from training.evaluation.retained import Question, markdown, measure, write
        from training.run import Run

        ratios = parse_ratios(snr)
        with progress_bars() as progress:
            task = progress.add_task("measuring", total=None)
            found = measure(
                [Run(run) for run in runs],
                Question(machines, noise, ratios, seeds),
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        folders = " ".join(map(str, runs))
        command = f"offkey retention {folders} --machines {machines} --noise {noise} --snr {snr} --seeds {seeds}"
        write(found, json, command)
    typer.echo(markdown(found, ratios))
    typer.echo(json)


@app.command("export-again")
def export_again(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle with its encoder's weights")],
    version: Annotated[str, typer.Option(help="of the new bundle, which is written beside the old one")],
    encoder: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="class of the bundle's encoder, if it is one of your own")
    ] = None,
) -> None:
    """Make a bundle's graph again with this exporter: same weights, same embedding space; prints its folder."""
    with for_people():
        from training.regraph import graph_again

        folder = graph_again(bundle, version, encoder)
    typer.echo(folder)
