"""`offkey jobs`, `offkey reembed` and `offkey models`."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from offkey.client import Client
from offkey.schemas import Job
from offkey.vocabulary import UNFINISHED, EntryStatus, JobState
from service.cli.common import URL, Url, plain, progress

app = typer.Typer()

_LOOK_SECONDS = 0.3
_NOTEWORTHY = {EntryStatus.REFUSED, EntryStatus.HELD_BACK}


@app.command()
def jobs(
    job_id: Annotated[int | None, typer.Argument(help="Show what became of this job's entries.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the job; what it did already stays.")] = False,
    url: Url = URL,
) -> None:
    """List the jobs of a service, the newest first, or show or cancel one."""
    with Client(url) as client:
        if job_id is None:
            if cancel:
                raise typer.BadParameter("say which job is to be canceled")
            Console().print(job_table(client.jobs()))
            return
        found = client.cancel_job(job_id) if cancel else client.job(job_id)
        Console().print(job_table([found]))
        table = Table("entry", "status", "clip id", "detail")
        for entry in client.job_entries(job_id):
            clip_id = "" if entry.clip_id is None else str(entry.clip_id)
            table.add_row(plain(entry.name), entry.status, clip_id, plain(entry.detail or ""))
        Console().print(table)


@app.command()
def reembed(
    machine: Annotated[
        str | None, typer.Option("--machine", "-m", help="One machine; otherwise all that need it.")
    ] = None,
    url: Url = URL,
) -> None:
    """Move banks to the bundle that serves, from the audio that was kept. Exit status 1 if one could not be moved."""
    with Client(url) as client:
        followed(client, client.reembed(machine), "moving machines")


@app.command()
def models(url: Url = URL) -> None:
    """Show which bundles serve, and how many banks are of which."""
    table = Table("bundle", "embedding space", "")
    for column in ("machines", "clips", "clips without audio"):
        table.add_column(column, justify="right")
    with Client(url) as client:
        for one in client.models():
            state = "current" if one.current else "old" if one.serves else "NOT SERVED"
            counts = (str(count) for count in (one.machines, one.clips, one.clips_without_audio))
            table.add_row(one.bundle or "", one.embedding_space_id, state, *counts)
    Console().print(table)


def job_table(found: Iterator[Job] | list[Job]) -> Table:
    """A line for each job."""
    table = Table("job", "kind", "machine", "state", "done", "what became of it")
    for job in found:
        total = "" if job.total is None else f" of {job.total}"
        told = job.detail or job.result or _counts(job)
        table.add_row(
            str(job.job_id), job.kind, plain(job.machine_id or ""), job.state, f"{job.done}{total}", plain(told)
        )
    return table


def followed(client: Client, job: Job, doing: str) -> Job:
    """Wait for a job with a bar, then tell what needs a person. Ctrl-C leaves it running.

    Raises:
        typer.Exit: it did not end well, or an entry was refused.
    """
    try:
        with progress() as bar:
            task = bar.add_task(doing, total=job.total)
            while job.state in UNFINISHED:
                time.sleep(_LOOK_SECONDS)
                job = client.job(job.job_id)
                bar.update(task, total=job.total, completed=job.done)
    except KeyboardInterrupt:
        typer.echo(f"Job {job.job_id} goes on. `offkey jobs {job.job_id}` shows it, --cancel ends it.", err=True)
        raise
    for entry in client.job_entries(job.job_id):
        if entry.status in _NOTEWORTHY:
            typer.echo(str(plain(f"{entry.name}: {entry.status}. {entry.detail}")))
    typer.echo(f"Job {job.job_id} is {job.state}: {job.detail or _counts(job) or 'there was nothing to do'}.")
    if job.state is not JobState.DONE or job.entries.get(EntryStatus.REFUSED):
        raise typer.Exit(1)
    return job


def _counts(job: Job) -> str:
    return ", ".join(f"{count} {status}" for status, count in job.entries.items())
