"""The README's snippet of aiohttp, made an app."""

import asyncio

from aiohttp import web

from background import BackgroundTask, drain

app = web.Application()


async def send_email(to: str) -> None:
    print("e-mail to", to)


async def register(request: web.Request) -> web.Response:
    data = await request.json()
    BackgroundTask(send_email, data["email"]).start()
    return web.json_response({"status": "accepted"}, status=202)


async def finish(app: web.Application) -> None:
    await asyncio.wait_for(drain(), 30)


app.on_cleanup.append(finish)
app.router.add_post("/register", register)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=0)
