"""`offkey machines` and `offkey info`."""

import typer
from rich.console import Console
from rich.table import Table

from offkey import Client
from service.cli.common import URL, Url, plain

app = typer.Typer()


@app.command()
def machines(url: Url = URL) -> None:
    """List the machines of a service."""
    table = Table("machine", "description")
    for column in ("source clips", "target clips", "generation"):
        table.add_column(column, justify="right")
    with Client(url) as client:
        for machine in client.machines():
            counts = machine.clips
            table.add_row(
                plain(machine.machine_id),
                plain(machine.description),
                str(counts.source),
                str(counts.target),
                str(machine.generation),
            )
    Console().print(table)


@app.command()
def info(url: Url = URL) -> None:
    """Show the version, the model bundle and the limits of a service as JSON."""
    with Client(url) as client:
        typer.echo(client.info().model_dump_json(indent=2))
