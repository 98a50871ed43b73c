"""`offkey experiment`. It imports its modules when it runs, so that `offkey --help` is fast."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from training.console import progress_bars, user_errors


def experiment(
    config: Annotated[Path | None, typer.Argument(help="TOML file of the values that differ from the defaults")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    machines: Annotated[Path | None, typer.Option(help="folder of machines in the DCASE Task 2 layout")] = None,
    noise: Annotated[Path | None, typer.Option(help="folder of stationary/ and nonstationary/ noise")] = None,
    bundle: Annotated[list[str] | None, typer.Option(metavar="NAME=DIR", help="method; can be repeated")] = None,
    snr: Annotated[str | None, typer.Option(metavar="DB,...", help="signal-to-noise ratios, -10 to 30 dB")] = None,
    seeds: Annotated[int | None, typer.Option(help="number of draws of the noise")] = None,
    backend: Annotated[str | None, typer.Option(help="backend of the scorer `served`")] = None,
    oracle: Annotated[
        str | None, typer.Option(metavar="NAME", help="bundle of the oracle  [default: frozen, or the first one]")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="folder of cached embeddings and trained methods")] = None,
    json: Annotated[Path, typer.Option(help="JSON file to write, with tables and plots in the same folder")] = Path(
        "experiment.json"
    ),
) -> None:
    """Compare encoders on machines in noise, by the protocol of arXiv 2510.25182; print the tables."""
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

        changes = list(overrides or ())
        if config is not None and "=" in str(config):  # the first argument is an override
            config, changes = None, [str(config), *changes]
        settings = load_experiment(config, changes, _table(given))
        with progress_bars() as progress:
            result = run(settings, progress)
        write(result, json, _command(config, changes, given, json))
        draw(result, json)
    typer.echo(markdown(result))
    typer.echo(json)


def _table(given: dict[str, Any]) -> dict[str, Any]:
    """Convert options to keys of a config."""
    from training.config import ConfigError
    from training.evaluation.config import parse_ratios

    table: dict[str, Any] = {}
    for name, value in given.items():
        if name == "bundle":
            pairs = [text.partition("=") for text in value]
            wrong = [text for text, (own, _, folder) in zip(value, pairs, strict=True) if not own or not folder]
            if wrong:
                raise ConfigError(f"{wrong[0]!r} is not a bundle. Write --bundle NAME=DIR.")
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
