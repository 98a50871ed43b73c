"""A slot runs a job until its caller leaves, whatever protocol the caller uses."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.audio.budget import Budget
from service.usecases.admission import CallerLeftError, WorkPool

SECONDS = 10


def scenario(threads: int, steps: Callable[[WorkPool], Coroutine[Any, Any, None]]) -> None:
    """Run the steps of a test with a pool that lets two more requests wait."""

    async def run() -> None:
        pool = WorkPool(threads, queue_limit=2)
        try:
            await asyncio.wait_for(steps(pool), SECONDS)
        finally:
            await pool.close(SECONDS)
        assert pool.slots == 0
        assert not pool.busy

    asyncio.run(run())


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, SECONDS)


async def run_until(pool: WorkPool, left: Awaitable[object], budget: Budget, job: Callable[[], object]) -> object:
    async with pool.slot() as slot:
        return await slot.run_until(left, budget, job)


def test_the_result_is_returned_and_the_caller_no_longer_watched() -> None:
    async def steps(pool: WorkPool) -> None:
        left, budget = asyncio.Event(), Budget()
        watch = asyncio.ensure_future(left.wait())
        assert await run_until(pool, watch, budget, lambda: "answer") == "answer"
        await asyncio.wait([watch])
        assert watch.cancelled()
        assert not budget.unwanted.is_set()

    scenario(1, steps)


def test_an_error_of_the_job_is_raised() -> None:
    def fail() -> None:
        raise OffkeyError(ErrorKind.EMPTY_AUDIO, "It is empty.")

    async def steps(pool: WorkPool) -> None:
        with pytest.raises(OffkeyError) as error:
            await run_until(pool, asyncio.Event().wait(), Budget(), fail)
        assert error.value.kind is ErrorKind.EMPTY_AUDIO

    scenario(1, steps)


def test_a_running_job_is_stopped_at_its_next_check_when_the_caller_leaves() -> None:
    async def steps(pool: WorkPool) -> None:
        left, budget = asyncio.Event(), Budget()
        running, stopped = threading.Event(), threading.Event()

        def work() -> None:
            running.set()
            try:
                while True:
                    budget.check()
            finally:
                stopped.set()

        request = asyncio.create_task(run_until(pool, left.wait(), budget, work))
        await wait_for(running)
        assert not stopped.is_set()
        left.set()
        with pytest.raises(CallerLeftError):
            await request
        assert pool.slots == 0  # another request may take it at once
        await wait_for(stopped)

    scenario(1, steps)


def test_a_job_whose_caller_leaves_while_it_waits_never_runs() -> None:
    async def steps(pool: WorkPool) -> None:
        go, running, runs = threading.Event(), threading.Event(), []

        def occupy() -> None:
            running.set()
            assert go.wait(SECONDS)

        first = asyncio.create_task(pool.run(occupy))
        await wait_for(running)
        left, budget = asyncio.Event(), Budget()
        waiting = asyncio.create_task(run_until(pool, left.wait(), budget, lambda: runs.append("ran")))
        while pool.slots < 2:
            await asyncio.sleep(0)
        left.set()
        with pytest.raises(CallerLeftError):
            await waiting
        assert budget.unwanted.is_set()
        go.set()
        await first
        assert await pool.run(lambda: "free") == "free"
        assert runs == []

    scenario(1, steps)


def test_a_job_that_has_finished_is_answered_though_the_caller_seems_to_have_left() -> None:
    """Both happen between two steps of the event loop, which this test holds up."""

    async def steps(pool: WorkPool) -> None:
        done, budget = threading.Event(), Budget()

        async def left() -> None:
            assert done.wait(SECONDS)
            time.sleep(0.1)  # until the result is on its way to the loop

        assert await run_until(pool, left(), budget, lambda: done.set() or "answer") == "answer"
        assert not budget.unwanted.is_set()

    scenario(1, steps)


def test_stopping_the_service_ends_the_request_and_stops_its_job() -> None:
    async def steps(pool: WorkPool) -> None:
        running = threading.Event()
        budget = Budget()

        def work() -> None:
            running.set()
            while True:
                budget.check()

        request = asyncio.create_task(run_until(pool, asyncio.Event().wait(), budget, work))
        await wait_for(running)
        pool.stop()
        with pytest.raises(OffkeyError) as stopped:
            await request
        assert stopped.value.kind is ErrorKind.STOPPING
        assert budget.unwanted.is_set()

    scenario(1, steps)


def test_a_caller_that_leaves_gives_its_place_to_the_next() -> None:
    async def steps(pool: WorkPool) -> None:
        go, left = threading.Event(), asyncio.Event()
        budgets = [Budget() for _ in range(3)]
        requests = [
            asyncio.create_task(run_until(pool, left.wait(), budget, lambda: go.wait(SECONDS))) for budget in budgets
        ]
        while pool.slots < 3:
            await asyncio.sleep(0)
        with pytest.raises(OffkeyError) as refused:
            await pool.run(lambda: None)
        assert refused.value.kind is ErrorKind.OVERLOADED
        left.set()
        assert {type(one) for one in await asyncio.gather(*requests, return_exceptions=True)} == {CallerLeftError}
        go.set()
        assert await pool.run(lambda: "admitted") == "admitted"

    scenario(1, steps)
