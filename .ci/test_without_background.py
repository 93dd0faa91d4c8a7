"""The module where nothing takes `background=`: `start()` in the handler, `drain()` at shutdown."""

import signal
import sys

import pytest
from apps.serving import PATIENCE, serving, snippet

HEADINGS = ["aiohttp", "Quart", "Django async views"]
POOL = 40  # threads of the module: as many sync tasks run at a time, the others are queued


@pytest.mark.parametrize("heading", HEADINGS)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_all_50_started_tasks_finish_before_a_terminated_server_exits(heading, kind, tmp_path):
    (tmp_path / "example.py").write_text(snippet(heading))
    with serving(tmp_path, sys.executable, "-m", "apps.interrupted", kind) as server:
        for _ in range(50):
            assert server.client.post("/register").status_code == 201
        server.prints("mail begun", times=POOL if kind == "sync" else 50)
        assert "drain begun" not in server.printed()

        server.process.send_signal(signal.SIGTERM)
        server.prints("drain begun")
        (tmp_path / "release").touch()
        status = server.process.wait(PATIENCE)
    events = [line for line in server.printed().splitlines() if line.endswith((" begun", " sent", " ended"))]
    of_drain = [event for event in events if event != "mail begun"]
    assert of_drain == ["drain begun", *["mail sent"] * 50, "drain ended"]
    assert events.count("mail begun") == 50
    assert status in (0, -signal.SIGTERM)
    assert "Traceback" not in server.printed()


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_example_of_the_readme_sends_its_mail(heading, tmp_path):
    (tmp_path / "example.py").write_text(snippet(heading))
    with serving(tmp_path, sys.executable, "-m", "apps.interrupted", "unchanged") as server:
        response = server.client.post("/register")
        assert response.status_code == 201
        assert not response.content or response.json() == {"message": "Created"}
        assert server.prints("mail: Account created", times=1)
