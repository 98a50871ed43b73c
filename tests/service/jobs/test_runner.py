"""The runner takes jobs from the store: interrupted ones first, then in order, one at a time."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from offkey.errors import ErrorKind, OffkeyError
from offkey.vocabulary import JobKind, JobState
from service.domain.access import COMMAND_LINE
from service.jobs.handler import JobRun
from service.jobs.runner import JobRunner
from service.settings import Settings
from service.store.database.sqlite import DATABASE_FILE
from service.usecases.jobs import cancel_job
from service.usecases.service import Service


@dataclass
class Work:
    """Work of a job in these tests. It ends at once unless `block` is set.

    Attributes:
        log: runs and clean-ups with their job id, in order.
        block: whether runs wait until the job is halted.
        errors: errors that the next runs raise, in order.
    """

    log: list[tuple[str, int]] = field(default_factory=list)
    block: bool = False
    errors: list[OffkeyError] = field(default_factory=list)

    def run(self, run: JobRun) -> str | None:
        self.log.append(("run", run.job.job_id))
        while self.block:
            run.halt.wait(60)
            run.check()
        if self.errors:
            raise self.errors.pop(0)
        return None

    def clean(self, run: JobRun, *, done: bool) -> None:
        self.log.append(("done" if done else "not done", run.job.job_id))


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    opened = Service.open(settings)
    yield opened
    opened.close()


@pytest.fixture
def start(service: Service) -> Iterator[Callable[[Work], JobRunner]]:
    """`start(work)` -> a runner of the service whose jobs of the kind `snapshot` do this work."""
    runners: list[JobRunner] = []

    def make(work: Work) -> JobRunner:
        runners.append(JobRunner(service, {JobKind.SNAPSHOT: work}))
        runners[-1].start()
        return runners[-1]

    yield make
    for runner in runners:
        end(runner)


def end(runner: JobRunner) -> None:
    runner.stop()
    runner.join(30)
    assert not runner.busy


def queue(service: Service, jobs: int) -> list[int]:
    """Queue jobs and return their ids."""
    with service.store.begin() as tx:
        queued = [tx.add_job(JobKind.SNAPSHOT, {}).job_id for _ in range(jobs)]
    service.job_signals.wake()
    return queued


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_interrupted_jobs_run_first_and_then_the_others_in_order(
    service: Service, settings: Settings, start: Callable[[Work], JobRunner]
) -> None:
    first, second, third, fourth = queue(service, 4)
    with closing(sqlite3.connect(settings.data_dir / DATABASE_FILE)) as raw, raw:  # as a killed service leaves it
        raw.execute("UPDATE job SET state = 'running' WHERE job_id = ?", (third,))
    work = Work()
    start(work)
    wait_for(lambda: len(work.log) == 8)
    expected = [third, first, second, fourth]
    assert work.log == [step for job_id in expected for step in (("run", job_id), ("done", job_id))]
    ended = {job.job_id: job.ended_at for job in service.store.jobs.page(before=2**62, limit=10)}
    assert sorted(ended, key=lambda job_id: str(ended[job_id])) == expected


def test_a_job_interrupted_by_the_end_of_the_service_is_the_first_of_the_next(
    service: Service, start: Callable[[Work], JobRunner]
) -> None:
    first, second = queue(service, 2)
    before = Work(block=True)
    runner = start(before)
    wait_for(lambda: before.log == [("run", first)])
    end(runner)
    assert before.log == [("run", first)]  # its files are kept
    assert [service.store.jobs.get(job).state for job in (first, second)] == [JobState.RUNNING, JobState.QUEUED]
    after = Work()
    start(after)
    wait_for(lambda: len(after.log) == 4)
    assert after.log == [("run", first), ("done", first), ("run", second), ("done", second)]


def test_canceled_jobs_are_stopped_or_never_run_and_cleaned_up(
    service: Service, start: Callable[[Work], JobRunner]
) -> None:
    first, second, third = queue(service, 3)
    work, call = Work(block=True), service.call(COMMAND_LINE)
    start(work)
    wait_for(lambda: work.log == [("run", first)])
    cancel_job(call, second)
    cancel_job(call, first)
    wait_for(lambda: ("run", third) in work.log)
    assert work.log[:1] + work.log[-1:] == [("run", first), ("run", third)]
    assert sorted(work.log[1:-1]) == [("not done", first), ("not done", second)]
    work.block = False
    cancel_job(call, third)
    wait_for(lambda: ("not done", third) in work.log)
    states = [service.store.jobs.get(job_id).state for job_id in (first, second, third)]
    assert states == [JobState.CANCELED] * 3


def test_a_transient_failure_is_tried_again_before_other_jobs_and_another_failure_is_final(
    service: Service, start: Callable[[Work], JobRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.jobs.runner._RETRY_SECONDS", 0.01)
    first, second = queue(service, 2)
    work = Work(
        errors=[
            OffkeyError(ErrorKind.STORE_BUSY, "locked for a moment"),
            OffkeyError(ErrorKind.STORE_UNUSABLE, "damaged for good"),
        ]
    )
    start(work)
    wait_for(lambda: ("done", second) in work.log)
    assert work.log == [("run", first), ("run", first), ("not done", first), ("run", second), ("done", second)]
    failed = service.store.jobs.get(first)
    assert (failed.state, failed.problem, failed.detail) == (JobState.FAILED, "store-unusable", "damaged for good")


def test_one_job_runs_at_a_time_on_a_thread_of_its_own(service: Service, start: Callable[[Work], JobRunner]) -> None:
    threads: list[threading.Thread] = []

    class Recorder(Work):
        def run(self, run: JobRun) -> str | None:
            threads.append(threading.current_thread())
            return super().run(run)

    work = Recorder()
    start(work)
    queue(service, 3)
    wait_for(lambda: len(work.log) == 6)
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
