"""The README's snippet of Quart, made an app."""

import asyncio

from quart import Quart, request

from background import BackgroundTask, drain

app = Quart(__name__)


async def send_email(to: str) -> None:
    print("e-mail to", to)


@app.post("/register")
async def register() -> tuple[dict[str, str], int]:
    form = await request.form
    BackgroundTask(send_email, form["email"]).start()
    return {"status": "accepted"}, 202


@app.after_serving
async def finish() -> None:
    await asyncio.wait_for(drain(), 30)
