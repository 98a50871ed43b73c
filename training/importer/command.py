"""`offkey bundle`. What it needs is imported when it runs, so that `offkey --help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from training.terminal import for_people

app = typer.Typer(no_args_is_help=True, help="Make model bundles of encoders that exist already.")


@app.callback()
def _group() -> None:
    """A group although it has one command: without this, `import` would not be named."""


@app.command("import")
def import_(
    model: Annotated[Path, typer.Argument(help="ONNX file: waveform (batch, samples) in, embedding (batch, dim) out")],
    name: Annotated[str, typer.Option(help="of the bundle")],
    sample_rate: Annotated[int, typer.Option(help="of the waveform the model takes, Hz")],
    license_: Annotated[str, typer.Option("--license", help="of the weights")],
    attribution: Annotated[str, typer.Option(help="who made the weights, and where they are published")],
    version: Annotated[str, typer.Option(help="of the bundle")] = "1",
    seconds: Annotated[float, typer.Option(help="window of the service")] = 10.0,
    hop_seconds: Annotated[float, typer.Option(help="distance of window starts")] = 5.0,
    min_seconds: Annotated[float, typer.Option(help="a shorter clip is refused")] = 1.0,
    embedding: Annotated[str | None, typer.Option(metavar="OUTPUT", help="the embedding, if it is not clear")] = None,
    remove_level: Annotated[
        bool, typer.Option("--remove-level", help="bring each window to the same level before the model")
    ] = False,
    license_file: Annotated[Path | None, typer.Option(help="text of the license, to be copied")] = None,
    models: Annotated[Path, typer.Option(help="folder of bundles")] = Path("models"),
) -> None:
    """Wrap an ONNX encoder into a model bundle that the service serves; prints its folder."""
    with for_people():
        from pydantic import ValidationError

        from service.encoder.bundle import WindowSpec
        from training.graph import ExportError
        from training.importer.bundle import ImportRequest, import_bundle

        try:
            window = WindowSpec(seconds=seconds, hop_seconds=hop_seconds, min_seconds=min_seconds)
        except ValidationError:
            raise ExportError("--seconds, --hop-seconds and --min-seconds are above 0.") from None
        request = ImportRequest(
            model, name, version, sample_rate, license_, attribution, window, embedding, remove_level, license_file
        )
        folder, findings = import_bundle(request, models)
        if findings.level_leaks:
            where = folder / "CARD.md"
            typer.echo(f"note: the level of a clip leaks into the embedding ({where}); try --remove-level", err=True)
    typer.echo(folder)
