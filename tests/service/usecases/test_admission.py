"""The pool: bounded, and honest when it is full."""

import asyncio
import threading
import time

import pytest

from offkey.errors import ErrorKind, OffkeyError
from service.usecases.admission import WorkPool


def test_jobs_beyond_the_limit_are_refused_at_once_and_the_rest_are_done() -> None:
    go = threading.Event()

    async def scenario() -> None:
        workers = WorkPool(workers=2, queue_limit=3)
        jobs = [asyncio.create_task(workers.run(go.wait, 10)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(OffkeyError) as refused:
            await asyncio.wait_for(workers.run(go.wait, 10), timeout=0.05)
        assert refused.value.kind is ErrorKind.OVERLOADED
        assert refused.value.values["retry_after"] == 1
        go.set()
        assert await asyncio.gather(*jobs) == [True] * 5
        assert await workers.run(lambda: "room again") == "room again"
        await workers.close(1)

    asyncio.run(scenario())


def test_a_permit_is_a_place_even_before_the_job_runs() -> None:
    async def scenario() -> None:
        workers = WorkPool(workers=1, queue_limit=0)
        async with workers.slot() as slot:
            with pytest.raises(OffkeyError) as refused:
                await workers.run(lambda: 1)
            assert refused.value.kind is ErrorKind.OVERLOADED
            assert await slot.run(lambda: 2) == 2
        assert await workers.run(lambda: 3) == 3
        await workers.close(1)

    asyncio.run(scenario())


def test_a_job_that_fails_gives_its_place_back() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def scenario() -> None:
        workers = WorkPool(workers=1, queue_limit=0)
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await workers.run(fail)
        assert await workers.run(lambda: 1) == 1
        await workers.close(1)

    asyncio.run(scenario())


def test_stopping_answers_all_and_does_not_wait_for_a_job_that_goes_on() -> None:
    go = threading.Event()

    async def scenario() -> None:
        workers = WorkPool(workers=1, queue_limit=5)
        running, waiting = (asyncio.create_task(workers.run(go.wait, 10)) for _ in range(2))
        reading = asyncio.create_task(read(workers))
        await asyncio.sleep(0.05)
        assert workers.slots == 3
        workers.stop()
        for task in (running, waiting, reading):
            with pytest.raises(OffkeyError) as refused:
                await asyncio.wait_for(task, timeout=0.5)
            assert refused.value.kind is ErrorKind.STOPPING
            assert refused.value.values["retry_after"] > 0
        with pytest.raises(OffkeyError):
            await workers.run(lambda: 1)
        start = time.monotonic()
        await workers.close(0.2)
        assert time.monotonic() - start < 1
        assert workers.busy
        go.set()
        await workers.close(10)
        assert not workers.busy

    async def read(workers: WorkPool) -> None:
        async with workers.slot():
            await asyncio.sleep(10)  # a body that trickles in

    asyncio.run(scenario())


def test_a_timeout_of_the_request_itself_stays_one() -> None:
    async def scenario() -> None:
        workers = WorkPool(workers=1, queue_limit=0)
        with pytest.raises(TimeoutError):
            async with workers.slot():
                raise TimeoutError
        await workers.close(1)

    asyncio.run(scenario())
