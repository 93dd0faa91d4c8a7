"""The README's snippet of FastAPI, which is an app already."""

import asyncio
from contextlib import asynccontextmanager

import fastapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from background import BackgroundTask, BackgroundTasks, drain


class User(BaseModel):
    email: str


async def send_email(to: str) -> None:
    print("e-mail to", to)


@asynccontextmanager
async def lifespan(app: fastapi.FastAPI):
    yield
    await asyncio.wait_for(drain(), 30)  # at shutdown: wait for what was started


app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/register")
async def register(data: User):
    tasks = BackgroundTasks()
    tasks.add_task(send_email, data.email)
    return JSONResponse({"status": "accepted"}, status_code=202, background=tasks)


@app.post("/injected", status_code=202)
async def with_theirs(data: User, injected: fastapi.BackgroundTasks):
    tasks = BackgroundTasks(as_group=True)
    tasks.add_task(send_email, data.email)
    injected.add_task(tasks)  # ours runs as one of FastAPI's own


@app.post("/started", status_code=202)
async def started(data: User):
    BackgroundTask(send_email, data.email).start()  # returns at once
