"""What the README notes on Quart and Django, each tried with the real thing."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

from apps.serving import ROOT
from quart import Quart

from background import BackgroundTask


def test_quart_runs_the_call_of_a_task_but_not_the_task_itself() -> None:
    ran: list[str] = []

    async def work(name: str) -> None:
        ran.append(name)

    async def main() -> None:
        app = Quart(__name__)

        @app.post("/")
        async def register() -> str:
            app.add_background_task(BackgroundTask(work, "its call").__call__)
            return "accepted"

        async with app.test_app():
            await app.test_client().post("/")
        assert ran == ["its call"]

    asyncio.run(main())


def test_django_with_a_sync_only_middleware_needs_a_sync_task(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from asgiref.sync import sync_to_async
        from django.conf import settings
        from django.core.asgi import get_asgi_application
        from django.http import HttpResponse
        from django.test import AsyncClient
        from django.urls import path
        from background import BackgroundTask, drain

        responded = None
        failures = []

        class SyncOnly:
            sync_capable, async_capable = True, False

            def __init__(self, get_response):
                self.get_response = get_response

            def __call__(self, request):
                return self.get_response(request)

        async def asks_for_a_thread():
            await responded.wait()
            await sync_to_async(print)("async task")

        def is_sync():
            print("sync task")

        async def view(request):
            BackgroundTask(asks_for_a_thread).start().add_done_callback(lambda task: failures.append(task.exception()))
            BackgroundTask(is_sync).start()
            return HttpResponse("accepted")

        urlpatterns = [path("", view)]
        settings.configure(
            ROOT_URLCONF=__name__, SECRET_KEY="change me", MIDDLEWARE=[__name__ + ".SyncOnly"], ALLOWED_HOSTS=["*"]
        )
        get_asgi_application()

        async def main():
            global responded
            responded = asyncio.Event()
            await AsyncClient().get("/")
            responded.set()
            await drain()
            print(failures)

        asyncio.run(main())
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "sync task" in done.stdout.splitlines()
    assert "CurrentThreadExecutor already quit or is broken" in done.stdout
