"""The README's snippet of Lilya, made an app."""

from lilya.apps import Lilya
from lilya.requests import Request
from lilya.responses import JSONResponse
from lilya.routing import Path

from background import BackgroundTasks


async def send_email(to: str) -> None:
    print("e-mail to", to)


async def invite(request: Request) -> JSONResponse:
    tasks = BackgroundTasks(as_group=True, limit=10)
    for email in await request.json():
        tasks.add_task(send_email, email)
    return JSONResponse({"status": "accepted"}, status_code=202, background=tasks)


app = Lilya(routes=[Path("/invite", invite, methods=["POST"])])
