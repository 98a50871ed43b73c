"""`offkey jobs`, `offkey reembed` and `offkey models`."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from offkey import Client, EntryStatus, Job, JobState
from service.cli.common import URL, Url, plain, progress

app = typer.Typer()

_NOTEWORTHY = {EntryStatus.REFUSED, EntryStatus.HELD_BACK}


@app.command()
def jobs(
    job_id: Annotated[int | None, typer.Argument(help="Show this job and the results of its entries.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job. Its results so far stay.")] = False,
    url: Url = URL,
) -> None:
    """List the jobs of a service, the newest first, or show or cancel one."""
    with Client(url) as client:
        if job_id is None:
            if cancel:
                raise typer.BadParameter("--cancel needs the id of a job")
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
        str | None, typer.Option("--machine", "-m", help="Machine to move; otherwise all machines of other bundles.")
    ] = None,
    url: Url = URL,
) -> None:
    """Move banks to the current bundle, from the stored audio. The exit status is 1 if a bank cannot be moved."""
    with Client(url) as client:
        followed(client, client.reembed(machine), "moving machines")


@app.command()
def models(url: Url = URL) -> None:
    """List the model bundles and embedding spaces, with the number of banks of each."""
    table = Table("bundle", "embedding space", "")
    for column in ("machines", "clips", "clips without audio"):
        table.add_column(column, justify="right")
    with Client(url) as client:
        for one in client.models():
            state = "current" if one.current else "old" if one.serves else "NOT SERVED"
            counts = (str(count) for count in (one.machines, one.clips, one.clips_without_audio))
            table.add_row(one.bundle or "", one.embedding_space_id, state, *counts)
    Console().print(table)


def job_table(found: Iterable[Job]) -> Table:
    """Return a table with a line for each job."""
    table = Table("job", "kind", "machine", "state", "done", "result")
    for job in found:
        total = "" if job.total is None else f" of {job.total}"
        result = job.detail or job.result or _counts(job)
        table.add_row(
            str(job.job_id), job.kind, plain(job.machine_id or ""), job.state, f"{job.done}{total}", plain(result)
        )
    return table


def followed(client: Client, job: Job, doing: str) -> Job:
    """Wait for a job with a progress bar, then print the entries that need a decision. Ctrl-C leaves the job running.

    Raises:
        typer.Exit: the job failed or was canceled, or an entry was refused.
    """
    try:
        with progress() as bar:
            task = bar.add_task(doing, total=job.total)
            job = client.wait(job, on_progress=lambda now: bar.update(task, total=now.total, completed=now.done))
    except KeyboardInterrupt:
        typer.echo(f"Job {job.job_id} continues. `offkey jobs {job.job_id}` shows it, --cancel cancels it.", err=True)
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
