"""`offkey experiment`. What it needs is imported when it runs, so that `offkey --help` is quick."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from training.console import progress_bars, user_errors


def experiment(
    config: Annotated[Path | None, typer.Argument(help="TOML file: what differs from the defaults")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    machines: Annotated[Path | None, typer.Option(help="folder of machines in the DCASE Task 2 layout")] = None,
    noise: Annotated[Path | None, typer.Option(help="folder with stationary/ and nonstationary/ below it")] = None,
    bundle: Annotated[list[str] | None, typer.Option(metavar="NAME=DIR", help="a method: any number of them")] = None,
    snr: Annotated[str | None, typer.Option(metavar="DB,...", help="signal-to-noise ratios, -10 to 30 dB")] = None,
    seeds: Annotated[int | None, typer.Option(help="draws of the noise")] = None,
    backend: Annotated[str | None, typer.Option(help="that the served scorer scores with")] = None,
    oracle: Annotated[
        str | None, typer.Option(metavar="NAME", help="the bundle whose oracle is shown; default: frozen, or the first")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="folder of what was heard and trained before")] = None,
    json: Annotated[Path, typer.Option(help="result; tables and plots are written beside it")] = Path(
        "experiment.json"
    ),
) -> None:
    """Compare encoders on machines in noise, by the protocol of arXiv 2510.25182; prints the tables."""
    options = {
        "machines": machines,
        "noise": noise,
        "bundle": bundle,
        "snr": snr,
        "seeds": seeds,
        "backend": backend,
        "oracle": oracle,
        "work": work,
    }
    given = {name: value for name, value in options.items() if value not in (None, [])}
    with user_errors():
        from training.evaluation.config import load_experiment
        from training.evaluation.experiment import run
        from training.evaluation.plots import draw
        from training.evaluation.report import markdown, write

        asked = list(overrides or ())
        if config is not None and "=" in str(config):  # there is no config, only KEY=VALUE
            config, asked = None, [str(config), *asked]
        settings = load_experiment(config, asked, _table(given))
        with progress_bars() as progress:
            result = run(settings, progress)
        write(result, json, _command(config, asked, given, json))
        draw(result, json)
    typer.echo(markdown(result))
    typer.echo(json)


def _table(given: dict[str, Any]) -> dict[str, Any]:
    """Options as keys of a config."""
    from training.config import ConfigError
    from training.evaluation.config import parse_ratios

    table: dict[str, Any] = {}
    for name, value in given.items():
        if name == "bundle":
            pairs = [text.partition("=") for text in value]
            wrong = [text for text, (own, _, folder) in zip(value, pairs, strict=True) if not own or not folder]
            if wrong:
                raise ConfigError(f"{wrong[0]!r} names no bundle. Write --bundle NAME=DIR.")
            table["methods"] = [{"name": own, "bundle": folder} for own, _, folder in pairs]
        elif name == "snr":
            table["snr_db"] = list(parse_ratios(value))
        else:
            table[name] = value if isinstance(value, int) else str(value)
    return table


def _command(config: Path | None, overrides: list[str], given: dict[str, Any], out: Path) -> str:
    words = ["offkey", "experiment", *([str(config)] if config else []), *overrides]
    for name, value in given.items():
        for part in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(part)]
    return shlex.join([*words, "--json", str(out)])
