"""Serves an example of the README, `example.py` of the working directory: python -m apps.interrupted MAIL

MAIL says whose mail it sends: `unchanged` its own; `async` or `sync` one that lasts until there is a file `release`.
It prints when a mail or `drain()` begins and ends, so that a test sees their order.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import example

import background

RELEASE = Path("release").absolute()
GIVE_UP = time.monotonic() + 60


def say(what: str) -> None:
    os.write(1, f"{what}\n".encode())  # in one piece, from any thread


def released() -> bool:
    assert time.monotonic() < GIVE_UP
    return RELEASE.exists()


async def send_slowly(message: str) -> None:
    say("mail begun")
    while not released():  # noqa: ASYNC110 - a file has no event to wait for
        await asyncio.sleep(0.01)
    say("mail sent")


def send_slowly_in_thread(message: str) -> None:
    say("mail begun")
    while not released():
        time.sleep(0.01)
    say("mail sent")


async def drain() -> None:
    say("drain begun")
    await background.drain()
    say("drain ended")


def serve() -> None:
    if hasattr(example, "main"):
        return asyncio.run(example.main(port=0))
    from aiohttp import web

    if isinstance(example.app, web.Application):
        return web.run_app(example.app, host="127.0.0.1", port=0)
    import uvicorn

    return uvicorn.run(example.app, host="127.0.0.1", port=0)


if __name__ == "__main__":
    example.send_email_notification = {
        "async": send_slowly,
        "sync": send_slowly_in_thread,
        "unchanged": example.send_email_notification,
    }[sys.argv[1]]
    example.drain = drain
    serve()
