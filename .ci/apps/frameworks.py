"""The same app for each framework: every route answers alike and carries a background task of another kind.

One shared instance of a task serves all requests of its route. A task notes what it does in the journal of the request
whose context it sees, so whatever the tests read there has also passed the context.
"""

import asyncio
import json
import threading
from collections import defaultdict
from contextvars import ContextVar

from background import BackgroundTask, BackgroundTasks

request_name: ContextVar[str] = ContextVar("request_name")  # set by the ASGI middleware
signature: ContextVar[str] = ContextVar("signature")  # set by the endpoint
journals: defaultdict[str, list[str]] = defaultdict(list)


def note(event: str) -> None:
    journals[request_name.get()].append(event)


class Gate:
    """Where the tasks of a request are held until the client releases them."""

    def __init__(self) -> None:
        self.for_loop = asyncio.Event()
        self.for_threads = threading.Event()

    def open(self) -> None:
        self.for_loop.set()
        self.for_threads.set()


gates: defaultdict[str, Gate] = defaultdict(Gate)


def answer() -> dict[str, str]:
    """What every endpoint does."""
    signature.set(f"signed {request_name.get()}")
    return {"message": "Created"}


# ---- the tasks


async def held(name: str) -> None:
    note(f"{name} began")
    async with asyncio.timeout(60):
        await gates[request_name.get()].for_loop.wait()
    note(f"{name} ended")


def held_in_thread(name: str) -> None:
    note(f"{name} began")
    assert gates[request_name.get()].for_threads.wait(60)
    note(f"{name} ended")


async def read_context(name: str) -> None:
    note(f"{name} {signature.get()}")


def read_context_in_thread(name: str) -> None:
    note(f"{name} {signature.get()}")


async def fail(name: str) -> None:
    raise ConnectionError(f"{name}: no mail server")


def fail_in_thread(name: str) -> None:
    raise ConnectionError(f"{name}: no mail server")


def kinds(on_loop, in_thread) -> dict[str, BackgroundTask]:
    def three() -> list[BackgroundTask]:
        return [BackgroundTask(on_loop, "a"), BackgroundTask(in_thread, "b"), BackgroundTask(on_loop, "c")]

    return {
        "async": BackgroundTask(on_loop, "a"),
        "sync": BackgroundTask(in_thread, "b"),
        "in-order": BackgroundTasks(three()),
        "as-group": BackgroundTasks(three(), as_group=True),
    }


BACKGROUNDS: dict[str, BackgroundTask] = {
    f"/{work}/{kind}": background
    for work, functions in {
        "held": (held, held_in_thread),
        "context": (read_context, read_context_in_thread),
        "fail": (fail, fail_in_thread),
    }.items()
    for kind, background in kinds(*functions).items()
}
OURS = [BACKGROUNDS["/held/in-order"], BACKGROUNDS["/held/as-group"]]


# ---- the frameworks


def starlette():
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask as TheirTask
    from starlette.background import BackgroundTasks as TheirTasks
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def route(path, background):
        async def endpoint(request):
            return JSONResponse(answer(), background=background)

        return Route(path, endpoint, methods=["POST"])

    theirs = added_to(TheirTasks()) | {
        "/theirs/listed": TheirTasks(OURS),
        "/theirs/wrapped": TheirTask(OURS[0]),
    }
    return Observed(Starlette(routes=[route(*item) for item in (BACKGROUNDS | theirs).items()]))


def fastapi():
    from fastapi import BackgroundTasks as TheirTasks
    from fastapi import FastAPI, Response
    from fastapi.responses import JSONResponse
    from starlette.background import BackgroundTask as TheirTask

    app = FastAPI()

    def route(path, background):
        @app.post(path)
        async def endpoint() -> JSONResponse:
            return JSONResponse(answer(), background=background)

    theirs = added_to(TheirTasks()) | {"/theirs/listed": TheirTasks(OURS), "/theirs/wrapped": TheirTask(OURS[0])}
    for item in (BACKGROUNDS | theirs).items():
        route(*item)

    @app.post("/injected/with-ours-added")
    async def with_ours_added(injected: TheirTasks) -> dict[str, str]:
        injected.add_task(note, "theirs")
        injected.add_task(BACKGROUNDS["/context/in-order"])
        return answer()

    @app.post("/injected/with-ours-in-the-response")
    async def with_ours_in_the_response(injected: TheirTasks) -> JSONResponse:
        injected.add_task(note, "theirs")
        return JSONResponse(answer(), background=BACKGROUNDS["/context/in-order"])

    @app.post("/injected/into-ours")
    async def into_ours(injected: TheirTasks) -> JSONResponse:
        injected.add_task(note, "theirs")
        both = BackgroundTasks([BACKGROUNDS["/context/in-order"], BackgroundTask(injected)])
        return JSONResponse(answer(), background=both)

    @app.post("/nothing/attached-to-no-response")
    async def attached_to_no_response() -> dict[str, str]:
        tasks = BackgroundTasks()
        tasks.add_task(note, "ran")
        return answer()

    @app.post("/nothing/set-on-the-injected-response")
    async def set_on_the_injected_response(response: Response) -> dict[str, str]:
        response.background = BackgroundTask(note, "ran")
        return answer()

    @app.post("/plain/response")
    def plain_response() -> JSONResponse:
        return JSONResponse(answer(), background=BACKGROUNDS["/held/async"])

    @app.post("/plain/start")
    def plain_start() -> dict[str, str]:
        BACKGROUNDS["/held/async"].start()
        return answer()

    return Observed(app)


def lilya():
    from lilya.apps import Lilya
    from lilya.background import Task as TheirTask
    from lilya.background import Tasks as TheirTasks
    from lilya.responses import JSONResponse
    from lilya.routing import Path

    def route(path, background):
        async def endpoint():
            return JSONResponse(answer(), background=background)

        return Path(path, endpoint, methods=["POST"])

    theirs = added_to(TheirTasks()) | {
        "/theirs/listed": TheirTasks(OURS, as_group=True),
        "/theirs/wrapped": TheirTask(OURS[0]),
    }
    return Observed(Lilya(routes=[route(*item) for item in (BACKGROUNDS | theirs).items()]))


def ravyn():
    from ravyn import BackgroundTask as TheirTask
    from ravyn import BackgroundTasks as TheirTasks
    from ravyn import Gateway, JSONResponse, Ravyn, post
    from ravyn.core.datastructures import JSON

    def route(path, background):
        @post(path, background=background)
        async def endpoint() -> dict[str, str]:
            return answer()

        return Gateway(handler=endpoint)

    theirs = added_to(TheirTasks()) | {
        "/theirs/listed": TheirTasks(OURS, as_group=True),
        "/theirs/wrapped": TheirTask(OURS[0]),
    }
    routes = [route(*item) for item in (BACKGROUNDS | theirs).items()]

    def returning(path, background):
        @post(f"{path}/data", background=background)
        async def data() -> dict[str, str]:
            return answer()

        @post(f"{path}/response", background=background)
        async def response() -> JSONResponse:
            return JSONResponse(answer())

        @post(f"{path}/response-with-it")
        async def response_with_it() -> JSONResponse:
            return JSONResponse(answer(), background=background)

        @post(f"{path}/container", background=background)
        async def container() -> JSON:
            return JSON(answer())

        @post(f"{path}/container-with-it")
        async def container_with_it() -> JSON:
            return JSON(answer(), background=background)

        return [
            Gateway(handler=handler) for handler in (data, response, response_with_it, container, container_with_it)
        ]

    ours = BACKGROUNDS["/context/async"]
    routes += returning("/returns/ours", ours)
    routes += returning("/returns/theirs", TheirTask(read_context, "a"))
    routes += returning("/returns/ours-wrapped", TheirTask(ours))
    return Observed(Ravyn(routes=routes))


def litestar():
    from litestar import Litestar, post
    from litestar.background_tasks import BackgroundTask as TheirTask
    from litestar.background_tasks import BackgroundTasks as TheirTasks

    def route(path, background):
        @post(path, background=background)
        async def endpoint() -> dict[str, str]:
            return answer()

        return endpoint

    theirs = {
        "/theirs/listed": TheirTasks(OURS, run_in_task_group=True),
        "/theirs/wrapped": TheirTask(OURS[0]),
    }
    return Observed(Litestar([route(*item) for item in (BACKGROUNDS | theirs).items()]))


def added_to(theirs):
    for ours in OURS:
        theirs.add_task(ours)
    return {"/theirs/added": theirs}


# ---- what the tests see of it


class Observed:
    """ASGI middleware that keeps a journal of each request and, if asked to, waits for the client to leave."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request_name.set(headers["x-request-name"])
        if scope["path"] == "/journal":
            return await send_json(send, journals[request_name.get()])
        if scope["path"] == "/release":
            gates[request_name.get()].open()
            return await send_json(send, None)

        async def send_and_note(message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body"):
                if headers.get("x-leaves") == "during the response":
                    half = len(message["body"]) // 2
                    await send(message | {"body": message["body"][:half], "more_body": True})
                    await client_has_left(receive)
                    message |= {"body": message["body"][half:]}
                await send(message)
                note("response sent")
            else:
                await send(message)

        if headers.get("x-leaves") == "before the response":
            await client_has_left(receive)
            receive = after_the_client_left().__anext__
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            note("request ended")


async def client_has_left(receive) -> None:
    async with asyncio.timeout(60):
        while (await receive())["type"] != "http.disconnect":
            pass
    note("client left")


async def after_the_client_left():
    """The messages of a request whose body is empty, once more for the framework."""
    yield {"type": "http.request", "body": b"", "more_body": False}
    while True:
        yield {"type": "http.disconnect"}


async def send_json(send, content) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
