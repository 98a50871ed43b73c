"""The queue of jobs: interrupted jobs first, then in the order in which they were queued."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import EntryStatus, JobKind, JobState
from service.store import Store, Transaction
from service.store.database.sqlite import DATABASE_FILE
from service.store.jobs import MAX_UNFINISHED_JOBS, JobEntry, JobOverError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def queue(store: Store, jobs: int) -> list[int]:
    """Queue jobs and return their ids."""
    with store.begin() as tx:
        return [tx.add_job(JobKind.SNAPSHOT, {}).job_id for _ in range(jobs)]


def start(store: Store) -> int | None:
    """Start the next job and return its id. None if there is none."""
    with store.begin() as tx:
        job = tx.next_job()
    assert job is None or job.state is JobState.RUNNING
    return None if job is None else job.job_id


def finish(store: Store, job_id: int) -> None:
    with store.begin() as tx:
        tx.finish_job(job_id, JobState.DONE)


def interrupt(folder: Path, job_id: int) -> None:
    """Mark a job as running, as a service leaves it that was killed."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as raw, raw:
        raw.execute("UPDATE job SET state = 'running', started_at = created_at WHERE job_id = ?", (job_id,))


def test_jobs_run_in_the_order_in_which_they_were_queued(store: Store) -> None:
    first, second, third = queue(store, 3)
    for expected in (first, second, third):
        assert start(store) == expected
        finish(store, expected)
    assert start(store) is None


def test_an_interrupted_job_runs_again_before_those_that_wait(store: Store, tmp_path: Path) -> None:
    first, second, third, fourth = queue(store, 4)
    assert start(store) == first
    assert start(store) == first  # interrupted: it was not finished
    interrupt(tmp_path, third)
    for expected in (first, third, second, fourth):
        assert start(store) == expected
        finish(store, expected)
    assert start(store) is None


def test_a_job_that_runs_again_keeps_its_start_and_its_progress(store: Store) -> None:
    (job_id,) = queue(store, 1)
    start(store)
    entry = JobEntry(0, "a.wav", EntryStatus.ENROLLED, clip_id=7)
    with store.begin() as tx:
        tx.set_total(job_id, 2)
        tx.report(job_id, 1, [entry])
    before = store.jobs.get(job_id)
    assert start(store) == job_id
    assert store.jobs.get(job_id) == before
    assert (before.total, before.done, store.jobs.reported(job_id)) == (2, 1, {0})
    assert store.jobs.entries(job_id, after=-1, limit=10) == [entry]


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELED])
def test_nothing_is_written_about_a_job_that_is_over(store: Store, state: JobState) -> None:
    first, second = queue(store, 2)
    start(store)
    with store.begin() as tx:
        if state is JobState.CANCELED:
            tx.cancel_job(first)
        else:
            tx.finish_job(first, state)
    over = store.jobs.get(first)
    assert over.state is state
    writes: list[Callable[[Transaction], None]] = [
        lambda tx: tx.set_total(first, 1),
        lambda tx: tx.report(first, 1),
        lambda tx: tx.finish_job(first, JobState.DONE),
    ]
    for write in writes:
        with pytest.raises(JobOverError), store.begin() as tx:
            write(tx)
    assert store.jobs.get(first) == over
    assert start(store) == second


def test_a_canceled_report_rolls_back_the_clips_of_its_transaction(store: Store) -> None:
    (job_id,) = queue(store, 1)
    start(store)
    with store.begin() as tx:
        tx.put_machine("fan-1", "before")
        tx.cancel_job(job_id)

    def change_and_report(tx: Transaction) -> None:
        tx.put_machine("fan-1", "after")
        tx.report(job_id, 1)

    with pytest.raises(JobOverError), store.begin() as tx:
        change_and_report(tx)
    assert store.machine("fan-1").description == "before"


def test_so_many_jobs_wait_and_no_more(store: Store) -> None:
    jobs = queue(store, MAX_UNFINISHED_JOBS)
    with pytest.raises(OffkeyError) as error:
        queue(store, 1)
    assert error.value.kind is ErrorKind.OVERLOADED
    finish(store, start(store) or 0)
    (job_id,) = queue(store, 1)
    assert job_id > jobs[-1]
