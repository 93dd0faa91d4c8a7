"""The README's snippets of Ravyn, made an app."""

from pydantic import BaseModel
from ravyn import Gateway, JSONResponse, Ravyn, post

from background import BackgroundTask


class User(BaseModel):
    email: str


async def send_email(to: str) -> None:
    print("e-mail to", to)


def count_visit() -> None:
    print("one more visit")


@post("/register")
async def register(data: User) -> JSONResponse:
    task = BackgroundTask(send_email, data.email)
    return JSONResponse({"status": "accepted"}, status_code=202, background=task)


@post("/visit", background=BackgroundTask(count_visit))
async def visit() -> dict[str, str]:
    return {"status": "counted"}


app = Ravyn(routes=[Gateway(handler=register), Gateway(handler=visit)])
