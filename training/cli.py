"""The training commands. They import torch when they run, so that `offkey --help` is fast."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import TaskID

from training.console import is_first, progress_bars, user_errors
from training.evaluation.challenge.command import evaluate
from training.evaluation.command import experiment
from training.importer.command import app as bundle

app = typer.Typer(no_args_is_help=True, help="Train a student, export it as a model bundle, and measure it.")
app.command()(experiment)
app.command()(evaluate)
app.add_typer(bundle, name="bundle")


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="TOML file of the values that differ from the defaults")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    runs: Annotated[Path, typer.Option(help="folder for the new run folder")] = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="run folder to resume from its newest checkpoint, with its own config")
    ] = None,
) -> None:
    """Train a student to retain mixtures; print the run folder. Several processes: `torchrun -m training train`."""
    with user_errors():
        from training import loop
        from training.config import ConfigError, load_config, override
        from training.run import Run

        changes = list(overrides or ())
        if config is not None and "=" in str(config):  # the first argument is an override
            config, changes = None, [str(config), *changes]
        if resume is None and config is None:
            raise ConfigError("The config is missing: a TOML file of the values that differ from the defaults.")
        with progress_bars() as progress:
            if resume is not None:
                run = Run(resume)
                loop.resume(run, load_config(config, changes) if config else override(run.config, changes), progress)
            elif config is not None:
                run = loop.train(load_config(config, changes), config.stem, runs, progress)
    if is_first():
        typer.echo(run.folder)


@app.command()
def compose(
    manifest: Annotated[Path, typer.Argument(help="CSV file of recordings, in the format of `data.manifest`")],
    folder: Annotated[Path, typer.Argument(help="new folder")],
    sources: Annotated[int, typer.Option(min=1, help="number of machine-like clips")] = 6000,
    noises: Annotated[int, typer.Option(min=2, help="number of noise clips")] = 6000,
    held_out: Annotated[
        int, typer.Option(min=0, help="held-out clips of each kind, composed of recordings that no other clip uses")
    ] = 200,
    held_out_split: Annotated[
        list[str] | None,
        typer.Option(metavar="SPLIT", help="splits of the recordings for held-out clips  [default: a tenth of all]"),
    ] = None,
    role: Annotated[list[str] | None, typer.Option(help="role of the recordings to use  [default: source]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of all random choices")] = 0,
    permissive: Annotated[
        bool, typer.Option("--permissive/--any", help="only recordings whose license allows publishing the weights")
    ] = True,
) -> None:
    """Compose machine-like sounds and noises from recordings and synthetic sound; print their manifest."""
    with user_errors():
        from training.composition.dataset import Composition
        from training.composition.dataset import compose as write

        composition = Composition(
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

            def show(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=total)
                progress.update(tasks[what], completed=done)

            written = write(composition, folder, show)
    for name, reason in written.refused.items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    typer.echo(written.manifest)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="run folder")],
    name: Annotated[str, typer.Option(help="name of the bundle")],
    version: Annotated[str, typer.Option(help="version of the bundle")] = "1",
    models: Annotated[Path, typer.Option(help="folder of bundles")] = Path("models"),
    measured: Annotated[
        Path | None, typer.Option(help="JSON file of figures for the card, written by offkey experiment")
    ] = None,
    int8: Annotated[
        Path | None,
        typer.Option(
            metavar="TREE",
            help="8-bit linear layers; their cost in AUC is measured on these machines in DCASE layout",
        ),
    ] = None,
    int8_cost: Annotated[float, typer.Option(help="largest accepted decrease of mean AUC or pAUC by int8")] = 0.01,
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="include the weights, from which another student can start")
    ] = True,
    replace: Annotated[bool, typer.Option("--replace", help="replace an existing bundle of this version")] = False,
) -> None:
    """Write a run's student as a model bundle; print its folder."""
    with user_errors():
        from training.export import export_run
        from training.int8 import Int8
        from training.run import Run

        quantization = None if int8 is None else Int8(int8, int8_cost)
        with progress_bars() as progress:
            task = progress.add_task("int8 and float32", total=None, visible=quantization is not None)
            folder = export_run(
                Run(run),
                name,
                version,
                models,
                measured=measured,
                int8=quantization,
                weights=weights,
                replace=replace,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
    typer.echo(folder)


@app.command()
def retention(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders of one config with several seeds")],
    machines: Annotated[
        Path, typer.Option(help="folder of machines in the DCASE Task 2 layout that were not trained on")
    ],
    noise: Annotated[Path, typer.Option(help="folder of stationary/ and nonstationary/ noise that was not trained on")],
    snr: Annotated[str, typer.Option(metavar="DB,...", help="signal-to-noise ratios in dB")] = "0,-5,5",
    seeds: Annotated[int, typer.Option(min=1, help="number of draws of the noise")] = 2,
    json: Annotated[Path, typer.Option(help="JSON file to write")] = Path("retention.json"),
) -> None:
    """Compare the distance of students to the retain target with that of the frozen encoder; print the tables."""
    with user_errors():
        from training.evaluation.config import parse_ratios
        from training.evaluation.retained import RetentionConfig, markdown, measure, write
        from training.run import Run

        ratios = parse_ratios(snr)
        with progress_bars() as progress:
            task = progress.add_task("measuring", total=None)
            found = measure(
                [Run(run) for run in runs],
                RetentionConfig(machines, noise, ratios, seeds),
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        folders = " ".join(map(str, runs))
        command = f"offkey retention {folders} --machines {machines} --noise {noise} --snr {snr} --seeds {seeds}"
        write(found, json, command)
    typer.echo(markdown(found, ratios))
    typer.echo(json)


@app.command("reexport")
def reexport_bundle(
    bundle: Annotated[Path, typer.Argument(help="folder of a bundle with its encoder's weights")],
    version: Annotated[str, typer.Option(help="version of the new bundle, which is written next to the old one")],
    encoder: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="class of the bundle's encoder, if it is your own")
    ] = None,
) -> None:
    """Export a bundle's graph again with the present exporter, in the same embedding space; print the folder."""
    with user_errors():
        from training.reexport import reexport

        folder = reexport(bundle, version, encoder)
    typer.echo(folder)
