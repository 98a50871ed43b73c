"""`offkey bundle`. It imports torch when it runs, so that `offkey --help` is fast."""

from pathlib import Path
from typing import Annotated

import typer

from training.console import user_errors

app = typer.Typer(no_args_is_help=True, help="Make model bundles of existing encoders.")


@app.callback()
def _group() -> None:
    """Define a group; otherwise typer would run the only command without its name."""


@app.command("import")
def import_(
    model: Annotated[
        Path, typer.Argument(help="ONNX file with input waveform (batch, samples) and output embedding (batch, dim)")
    ],
    name: Annotated[str, typer.Option(help="name of the bundle")],
    sample_rate: Annotated[int, typer.Option(help="sample rate of the waveform, in Hz")],
    license_: Annotated[str, typer.Option("--license", help="license of the weights")],
    attribution: Annotated[str, typer.Option(help="authors and source of the weights")],
    version: Annotated[str, typer.Option(help="version of the bundle")] = "1",
    seconds: Annotated[float, typer.Option(help="length of a window")] = 10.0,
    hop_seconds: Annotated[float, typer.Option(help="distance between the starts of windows")] = 5.0,
    min_seconds: Annotated[float, typer.Option(help="length of the shortest accepted clip")] = 1.0,
    embedding: Annotated[
        str | None, typer.Option(metavar="OUTPUT", help="output with the embedding, if several outputs fit")
    ] = None,
    remove_level: Annotated[
        bool, typer.Option("--remove-level", help="scale each window to the same level before the model")
    ] = False,
    license_file: Annotated[Path | None, typer.Option(help="text of the license to copy into the bundle")] = None,
    models: Annotated[Path, typer.Option(help="folder of bundles")] = Path("models"),
) -> None:
    """Wrap an ONNX encoder as a model bundle; print its folder."""
    with user_errors():
        from pydantic import ValidationError

        from service.encoder.bundle import WindowSpec
        from training.graph import ExportError
        from training.importer.bundle import ImportRequest, import_bundle

        try:
            window = WindowSpec(seconds=seconds, hop_seconds=hop_seconds, min_seconds=min_seconds)
        except ValidationError:
            raise ExportError("--seconds, --hop-seconds and --min-seconds must be above 0.") from None
        request = ImportRequest(
            model, name, version, sample_rate, license_, attribution, window, embedding, remove_level, license_file
        )
        folder, findings = import_bundle(request, models)
        if findings.level_leaks:
            where = folder / "CARD.md"
            typer.echo(f"note: the level of a clip leaks into the embedding ({where}); try --remove-level", err=True)
    typer.echo(folder)
