"""An app in either style under uvicorn: python -m apps.surviving STYLE [TIMEOUT]

STYLE is `background` (the task is given to the response), `own` (Starlette's task is) or `started` (`start()` in the
handler, `drain()` in the lifespan). POST /tasks has one sync task. It prints `begun`, waits until there is a file
`posted` in the working directory, works for three seconds and prints `done`: none is over while others are posted.
TIMEOUT is uvicorn's `--timeout-graceful-shutdown`.
"""

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import starlette.background
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from background import BackgroundTask, drain

STYLE = sys.argv[1]
POSTED = Path("posted").absolute()
GIVE_UP = time.monotonic() + 60


def write_slowly() -> None:
    os.write(1, b"begun\n")
    while not POSTED.exists():
        assert time.monotonic() < GIVE_UP
        time.sleep(0.05)
    time.sleep(3)
    os.write(1, b"done\n")  # in one piece, from any thread


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await drain()


app = FastAPI(lifespan=lifespan)


@app.post("/tasks")
async def tasks() -> JSONResponse:
    if STYLE == "own":
        return JSONResponse({}, status_code=202, background=starlette.background.BackgroundTask(write_slowly))
    task = BackgroundTask(write_slowly)
    if STYLE == "background":
        return JSONResponse({}, status_code=202, background=task)
    task.start()
    return JSONResponse({}, status_code=202)


if __name__ == "__main__":
    timeout = int(sys.argv[2]) if len(sys.argv) > 2 else None
    uvicorn.run(app, host="127.0.0.1", port=0, timeout_graceful_shutdown=timeout)
