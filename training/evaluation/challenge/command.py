"""`offkey evaluate`. It imports its modules when it runs, so that `offkey --help` is fast."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from training.console import progress_bars, user_errors


def evaluate(
    tree: Annotated[
        Path, typer.Argument(help="folder of machines as in DCASE Task 2, 2020 to 2026, or in a plain layout")
    ],
    bundle: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR", help="bundle; can be repeated  [default: the shipped bundle]"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="labels of clips without labels in their names: folder of an official evaluator, or CSV file"
        ),
    ] = None,
    channel: Annotated[str, typer.Option(help="near, far or a number from 0  [default: mean of all channels]")] = "",
    false_alarm_rate: Annotated[float, typer.Option(help="requested rate of the decision threshold")] = 0.05,
    backend: Annotated[
        str | None,
        typer.Option(help="scoring backend; docs/reference/scoring.md lists them  [default: that of the service]"),
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="replicates of an interval")] = 1000,
    work: Annotated[Path, typer.Option(help="folder of cached embeddings; may be deleted")] = Path("runs/evaluation"),
    workers: Annotated[int, typer.Option(help="number of threads; 0: one per core")] = 0,
    out: Annotated[Path, typer.Option(help="folder of the results")] = Path("evaluation"),
) -> None:
    """Evaluate bundles on a tree of machines as the official evaluators do; print the tables."""
    with user_errors():
        from service.domain.backends import DEFAULT_BACKEND
        from service.settings import shipped_bundle
        from training.evaluation.challenge.csvs import write_csvs
        from training.evaluation.challenge.evaluation import EvaluationConfig
        from training.evaluation.challenge.evaluation import evaluate as run
        from training.evaluation.challenge.pictures import draw_pictures
        from training.evaluation.challenge.report import NAME, markdown, write_report

        backend = backend or DEFAULT_BACKEND
        config = EvaluationConfig(
            tree=tree,
            bundles=tuple(map(_named, bundle or [str(shipped_bundle())])),
            false_alarm_rate=false_alarm_rate,
            labels=labels,
            channel=channel,
            backend=backend,
            bootstrap=bootstrap,
            work=work,
            workers=workers,
        )
        with progress_bars() as progress:
            found = run(config, progress)
            write_csvs(found, out / "csv")
            draw_pictures(found, out / "plots", progress)
        words = ["offkey", "evaluate", str(tree), *(f"--bundle={one}" for one in bundle or [])]
        words += [f"--labels={labels}"] * (labels is not None) + [f"--channel={channel}"] * bool(channel)
        words += [f"--false-alarm-rate={false_alarm_rate:g}", f"--backend={backend}", f"--bootstrap={bootstrap}"]
        write_report(found, out, shlex.join(words))
    typer.echo(markdown(found))
    typer.echo(out / f"{NAME}.md")


def _named(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    return (name, Path(folder)) if sign else ("", Path(text))
