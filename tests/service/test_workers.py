"""The pool: bounded, and honest when it is full."""

import asyncio
import threading

import pytest

from service.domain.errors import ErrorKind, OffkeyError
from service.workers import Workers


def test_jobs_beyond_the_limit_are_refused_at_once_and_the_rest_are_done() -> None:
    go = threading.Event()

    async def scenario() -> None:
        workers = Workers(workers=2, queue_limit=3)
        jobs = [asyncio.create_task(workers.run(go.wait, 10)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(OffkeyError) as refused:
            await asyncio.wait_for(workers.run(go.wait, 10), timeout=0.05)
        assert refused.value.kind is ErrorKind.OVERLOADED
        assert refused.value.values["retry_after"] == 1
        go.set()
        assert await asyncio.gather(*jobs) == [True] * 5
        assert await workers.run(lambda: "room again") == "room again"
        workers.close()

    asyncio.run(scenario())


def test_a_permit_is_a_place_even_before_the_job_runs() -> None:
    async def scenario() -> None:
        workers = Workers(workers=1, queue_limit=0)
        async with workers.permit() as permit:
            with pytest.raises(OffkeyError) as refused:
                await workers.run(lambda: 1)
            assert refused.value.kind is ErrorKind.OVERLOADED
            assert await permit.run(lambda: 2) == 2
        assert await workers.run(lambda: 3) == 3
        workers.close()

    asyncio.run(scenario())


def test_a_job_that_fails_gives_its_place_back() -> None:
    def fail() -> None:
        raise ValueError("no")

    async def scenario() -> None:
        workers = Workers(workers=1, queue_limit=0)
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await workers.run(fail)
        assert await workers.run(lambda: 1) == 1
        workers.close()

    asyncio.run(scenario())
