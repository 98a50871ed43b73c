"""Describe the calls about jobs, snapshots and model bundles."""

import re

from offkey.errors import ErrorKind, OffkeyError
from offkey.requests.request import Listing, Request, read_nothing
from offkey.schemas import Job, JobEntry, JobEntryList, JobList, Model, ModelList, Snapshot, SnapshotList
from offkey.vocabulary import check_machine_id

_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def jobs() -> Listing[JobList, Job]:
    """List the jobs that the key may see, the newest first."""
    return Listing(Request("GET", "/jobs", JobList.model_validate_json), lambda page: page.jobs, cursor="before")


def job(job_id: int) -> Request[Job]:
    """Return the progress of a job."""
    return Request("GET", f"/jobs/{job_id:d}", Job.model_validate_json)


def job_entries(job_id: int) -> Listing[JobEntryList, JobEntry]:
    """List the results of a job, one for each archive entry or machine that is done."""
    first = Request("GET", f"/jobs/{job_id:d}/entries", JobEntryList.model_validate_json)
    return Listing(first, lambda page: page.entries)


def cancel_job(job_id: int) -> Request[Job]:
    """Cancel a job. Its results so far stay."""
    return Request("DELETE", f"/jobs/{job_id:d}", Job.model_validate_json)


def start_snapshot() -> Request[Job]:
    """Start a job that makes a snapshot of all data. Its `result` is the name of the snapshot."""
    return Request("POST", "/snapshots", Job.model_validate_json, is_idempotent=False)


def snapshots() -> Request[list[Snapshot]]:
    """List the snapshots of the service, the oldest first."""
    return Request("GET", "/snapshots", lambda content: SnapshotList.model_validate_json(content).snapshots)


def download_snapshot(name: str) -> Request[None]:
    """Return the content of a snapshot. The clients write it to a file."""
    return Request("GET", _snapshot(name), read_nothing)


def delete_snapshot(name: str) -> Request[None]:
    """Delete a snapshot from the service."""
    return Request("DELETE", _snapshot(name), read_nothing)


def models() -> Request[list[Model]]:
    """List the model bundles and embedding spaces, with the number of banks of each."""
    return Request("GET", "/models", lambda content: ModelList.model_validate_json(content).models)


def reembed(machine_id: str | None = None) -> Request[Job]:
    """Start a job that moves banks to the current model bundle.

    Args:
        machine_id: machine to move; None for all machines of other bundles.
    """
    params = {} if machine_id is None else {"machine_id": check_machine_id(machine_id)}
    return Request("POST", "/reembed", Job.model_validate_json, params=params, is_idempotent=False)


def _snapshot(name: str) -> str:
    if _SNAPSHOT_NAME.fullmatch(name) is None:  # as part of a path it could mean another route
        raise OffkeyError(
            ErrorKind.UNKNOWN_SNAPSHOT, f"{name!r} is not the name of a snapshot. `snapshots` lists the names."
        )
    return f"/snapshots/{name}"
