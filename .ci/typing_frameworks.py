"""What a user of a framework writes, marked as in typing_consumer.py.

Every framework runs our objects, and every one annotates `background` with a class of its own, so both type checkers
refuse ours. Handed to the framework's own task, as the function that it runs, ours passes.
"""

from typing import Any

import fastapi
import fastapi.responses
import lilya.background
import lilya.responses
import litestar
import litestar.background_tasks
import ravyn
import ravyn.background
import starlette.background
import starlette.responses

from background import BackgroundTask, BackgroundTasks


async def send(to: str) -> None: ...


one = BackgroundTask(send, "ada@example.org")
many = BackgroundTasks([one], as_group=True)

starlette.responses.Response(background=one)  # error
starlette.responses.JSONResponse({}, background=many)  # error
starlette.responses.Response(background=one)  # type: ignore[arg-type]
starlette.responses.Response(background=starlette.background.BackgroundTask(one))
starlette.responses.JSONResponse({}, background=starlette.background.BackgroundTask(many))

fastapi.Response(background=one)  # error
fastapi.responses.JSONResponse({}, background=many)  # error
fastapi.Response(background=one)  # type: ignore[arg-type]
fastapi.Response(background=starlette.background.BackgroundTask(one))
fastapi.responses.JSONResponse({}, background=starlette.background.BackgroundTask(many))


async def injected(theirs: fastapi.BackgroundTasks) -> None:
    theirs.add_task(one)
    theirs.add_task(many)


lilya.responses.Response(background=one)  # error
lilya.responses.JSONResponse({}, background=many)  # error
lilya.responses.Response(background=one)  # type: ignore[arg-type]
lilya.responses.Response(background=lilya.background.Task(one))
lilya.responses.JSONResponse({}, background=lilya.background.Task(many))

ravyn.Response("", background=one)  # error
ravyn.Response("", background=many)  # error
ravyn.Response("", background=one)  # type: ignore[arg-type]
ravyn.Response("", background=ravyn.background.BackgroundTask(one))
ravyn.Response("", background=ravyn.background.BackgroundTask(many))

litestar.Response("", background=one)  # error
litestar.Response("", background=many)  # error
litestar.Response("", background=one)  # type: ignore[arg-type]
litestar.Response("", background=litestar.background_tasks.BackgroundTask(one))
litestar.Response("", background=litestar.background_tasks.BackgroundTask(many))


@litestar.post("/register", background=one)  # error
async def refused() -> dict[str, Any]:
    return {}


@litestar.post("/register", background=litestar.background_tasks.BackgroundTask(many))
async def accepted() -> dict[str, Any]:
    return {}
