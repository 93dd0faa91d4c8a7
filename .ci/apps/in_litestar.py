"""The README's snippets of Litestar, made an app."""

from dataclasses import dataclass

from litestar import Litestar, Response, post

from background import BackgroundTask


@dataclass
class User:
    email: str


async def send_email(to: str) -> None:
    print("e-mail to", to)


def count_visit() -> None:
    print("one more visit")


@post("/register", status_code=202)
async def register(data: User) -> Response[dict[str, str]]:
    return Response({"status": "accepted"}, background=BackgroundTask(send_email, data.email))


@post("/visit", background=BackgroundTask(count_visit))
async def visit() -> dict[str, str]:
    return {"status": "counted"}


app = Litestar([register, visit])
