"""Pools are bounded, and refuse what they cannot hold."""

import asyncio
import threading
import time

import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.usecases.admission import WorkPool


def test_jobs_beyond_the_limit_are_refused_at_once_and_the_rest_are_done() -> None:
    go = threading.Event()

    async def scenario() -> None:
        pool = WorkPool(threads=2, queue_limit=3)
        jobs = [asyncio.create_task(pool.run(go.wait, 10)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(OffkeyError) as refused:
            await asyncio.wait_for(pool.run(go.wait, 10), timeout=0.05)
        assert refused.value.kind is ErrorKind.OVERLOADED
        assert refused.value.values["retry_after"] == 1
        go.set()
        assert await asyncio.gather(*jobs) == [True] * 5
        assert await pool.run(lambda: "room again") == "room again"
        await pool.close(1)

    asyncio.run(scenario())


def test_a_slot_is_held_before_the_job_runs() -> None:
    async def scenario() -> None:
        pool = WorkPool(threads=1, queue_limit=0)
        async with pool.slot() as slot:
            with pytest.raises(OffkeyError) as refused:
                await pool.run(lambda: 1)
            assert refused.value.kind is ErrorKind.OVERLOADED
            assert await slot.run(lambda: 2) == 2
        assert await pool.run(lambda: 3) == 3
        await pool.close(1)

    asyncio.run(scenario())


def test_a_job_that_fails_frees_its_slot() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def scenario() -> None:
        pool = WorkPool(threads=1, queue_limit=0)
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await pool.run(fail)
        assert await pool.run(lambda: 1) == 1
        await pool.close(1)

    asyncio.run(scenario())


def test_stopping_answers_all_and_does_not_wait_for_a_running_job() -> None:
    go = threading.Event()

    async def scenario() -> None:
        pool = WorkPool(threads=1, queue_limit=5)
        running, waiting = (asyncio.create_task(pool.run(go.wait, 10)) for _ in range(2))
        reading = asyncio.create_task(read(pool))
        await asyncio.sleep(0.05)
        assert pool.slots == 3
        pool.stop()
        for task in (running, waiting, reading):
            with pytest.raises(OffkeyError) as refused:
                await asyncio.wait_for(task, timeout=0.5)
            assert refused.value.kind is ErrorKind.STOPPING
            assert refused.value.values["retry_after"] > 0
        with pytest.raises(OffkeyError):
            await pool.run(lambda: 1)
        start = time.monotonic()
        await pool.close(0.2)
        assert time.monotonic() - start < 1
        assert pool.busy
        go.set()
        await pool.close(10)
        assert not pool.busy

    async def read(pool: WorkPool) -> None:
        async with pool.slot():
            await asyncio.sleep(10)  # a body that trickles in

    asyncio.run(scenario())


def test_a_timeout_of_the_request_itself_stays_one() -> None:
    async def scenario() -> None:
        pool = WorkPool(threads=1, queue_limit=0)
        with pytest.raises(TimeoutError):
            async with pool.slot():
                raise TimeoutError
        await pool.close(1)

    asyncio.run(scenario())
