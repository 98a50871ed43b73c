"""A plain FastAPI application: the work in Starlette's pool of threads."""

import sys

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from work import Work

app = FastAPI()
work = Work()


@app.post("/score")
async def score(request: Request) -> dict[str, float]:
    """Score the body, a WAV clip."""
    return await run_in_threadpool(work, await request.body())


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
