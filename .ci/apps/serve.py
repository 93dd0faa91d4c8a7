"""Serves an app with the README's snippets, on a port of its own: python -m apps.serve APP MAIL

APP is a module of this folder. MAIL says what its `send_email` does: `unchanged` what it does there; `async` or `sync`
lasts until there is a file `release` in the working directory. So that a test sees their order, it prints when a mail
begins and is sent, when an ASGI app has answered, and when `drain()` begins and ends.
"""

import asyncio
import importlib
import os
import sys
import time
from pathlib import Path

import background

RELEASE = Path("release").absolute()
GIVE_UP = time.monotonic() + 60


def say(what: str) -> None:
    os.write(1, f"{what}\n".encode())  # in one piece, from any thread


def released() -> bool:
    assert time.monotonic() < GIVE_UP
    return RELEASE.exists()


async def send_slowly(to: str) -> None:
    say(f"mail begun: {to}")
    while not released():  # noqa: ASYNC110 - a file has no event to wait for
        await asyncio.sleep(0.01)
    say(f"mail sent: {to}")


def send_slowly_in_thread(to: str) -> None:
    say(f"mail begun: {to}")
    while not released():
        time.sleep(0.01)
    say(f"mail sent: {to}")


async def drain() -> None:
    say("drain begun")
    await background.drain()
    say("drain ended")


def serve(app) -> None:
    from aiohttp import web

    if isinstance(app, web.Application):
        return web.run_app(app, host="127.0.0.1", port=0)
    import uvicorn

    async def observed(scope, receive, send) -> None:
        async def send_and_say(message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                say("answered")

        await app(scope, receive, send_and_say)

    return uvicorn.run(observed, host="127.0.0.1", port=0)


if __name__ == "__main__":
    module = importlib.import_module(f"apps.{sys.argv[1]}")
    if sys.argv[2] != "unchanged":
        module.send_email = {"async": send_slowly, "sync": send_slowly_in_thread}[sys.argv[2]]
    module.drain = drain
    serve(module.app)
