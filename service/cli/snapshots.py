"""`offkey snapshot`, `offkey restore` and `offkey verify`."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

DataDir = Annotated[Path, typer.Option(help="Folder of the store.", envvar="OFFKEY_DATA_DIR")]
Snapshot = Annotated[Path, typer.Argument(help="The snapshot's file.")]

_DATA = Path("data")


@app.command()
def snapshot(file: Snapshot, data_dir: DataDir = _DATA) -> None:
    """Write the content of a data folder to one file. The service may be running. The file is written atomically."""
    from service.store.snapshot.write import write_snapshot  # here: needs `offkey[service]`

    with _refusals():
        made = write_snapshot(data_dir, file)
    typer.echo(f"{file} holds {made.contents}.")


@app.command()
def restore(
    file: Snapshot,
    data_dir: DataDir = _DATA,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite the database of the folder, if it has one.")
    ] = False,
) -> None:
    """Restore a data folder from a snapshot. The service must not be running."""
    from service.store.snapshot.restore import restore as run

    with _refusals():
        found = run(file, data_dir, replace=replace)
    typer.echo(f"{data_dir} holds {found.contents}, as of {found.created_at:%Y-%m-%d %H:%M:%S} UTC.")


@app.command()
def verify(
    path: Annotated[
        Path,
        typer.Argument(help="A snapshot, or a data folder. Its service may be running.", envvar="OFFKEY_DATA_DIR"),
    ] = _DATA,
) -> None:
    """Check every page, relation and embedding, and name damaged machines. The exit status is 1 if there are any."""
    from service.store.snapshot.check import check_database
    from service.store.snapshot.write import SnapshotError, damage_message, data_database, unpack

    with _refusals():
        if path.is_dir():
            report = check_database(data_database(path))
            if report.damage:
                raise SnapshotError(damage_message(str(path), report))
            contents = report.contents
        else:
            with tempfile.TemporaryDirectory() as folder:
                contents = unpack(path, Path(folder) / "database").contents
    typer.echo(f"{path} is sound: {contents}.")


@contextmanager
def _refusals() -> Iterator[None]:
    from service.store.snapshot.write import SnapshotError

    try:
        yield
    except (SnapshotError, sqlite3.Error) as error:
        typer.secho(f"offkey: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
