"""The README's snippet of Django, made an app."""

import asyncio
import json

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from background import BackgroundTask, drain

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="change me", ALLOWED_HOSTS=["127.0.0.1"])
django_app = get_asgi_application()


async def send_email(to: str) -> None:
    print("e-mail to", to)


async def register(request: HttpRequest) -> JsonResponse:
    BackgroundTask(send_email, json.loads(request.body)["email"]).start()
    return JsonResponse({"status": "accepted"}, status=202)


async def app(scope, receive, send):
    if scope["type"] != "lifespan":
        return await django_app(scope, receive, send)
    await receive()  # the server starts
    await send({"type": "lifespan.startup.complete"})
    await receive()  # it shuts down
    await asyncio.wait_for(drain(), 30)
    await send({"type": "lifespan.shutdown.complete"})


urlpatterns = [path("register", register)]
