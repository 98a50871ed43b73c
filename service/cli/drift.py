"""`offkey drift` and `offkey noise`."""

import typer
from rich.console import Console
from rich.table import Table

from offkey import Client
from service.cli.clips import Files, audio_files, batches
from service.cli.common import URL, MachineId, Url, progress

app = typer.Typer()


@app.command()
def drift(machine: MachineId, url: Url = URL) -> None:
    """Compare the recent scores of a machine with those of its enrolled clips."""
    with Client(url) as client:
        found = client.drift(machine)
    table = Table("domain", "scored in the")
    for column in ("clips", "median shift, sigma", "p-value"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for own in found.domains:
        for window in own.windows:
            shift = "" if window.median_shift is None else f"{window.median_shift:+.2f}"
            p_value = "" if window.p_value is None else f"{window.p_value:.2g}"
            table.add_row(own.domain, window.window, str(window.n), shift, p_value, window.verdict)
    Console().print(table)
    typer.echo(f"{machine}: {found.verdict}. {found.advice}")


@app.command()
def noise(files: Files, machine: MachineId, url: Url = URL) -> None:
    """Add clips of the background while a machine stands still. Clips that resemble them get a warning."""
    paths = audio_files(files)
    added = 0
    with Client(url) as client, progress() as bar:
        task = bar.add_task(f"adding noise of {machine}", total=len(paths))
        for batch in batches(client, paths):
            added += client.add_noise(machine, batch).added
            bar.advance(task, len(batch))
    typer.echo(f"{machine}: {added} noise clips added, {len(paths) - added} were there already.")
