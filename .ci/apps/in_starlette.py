"""The README's snippet of Starlette, made an app."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from background import BackgroundTask


async def send_email(to: str) -> None:
    print("e-mail to", to)


async def register(request: Request) -> JSONResponse:
    data = await request.json()
    task = BackgroundTask(send_email, data["email"])
    return JSONResponse({"status": "accepted"}, status_code=202, background=task)


app = Starlette(routes=[Route("/register", register, methods=["POST"])])
