"""The module where nothing takes `background=`: `start()` in the handler, `drain()` at shutdown."""

import signal
import sys

import pytest
from apps.serving import APPS, PATIENCE, serving

SNIPPETS = [  # of the README: the heading, where it listens, and how it is sent an address
    ("FastAPI", "/started", "json"),
    ("aiohttp", "/register", "json"),
    ("Quart", "/register", "data"),
    ("Django", "/register", "json"),
]
POOL = 40  # threads of the module: as many sync tasks run at a time, the others are queued


def serve(heading, mail, folder):
    return serving(folder, sys.executable, "-m", "apps.serve", APPS[heading], mail)


@pytest.mark.parametrize(("heading", "path", "how"), SNIPPETS)
@pytest.mark.parametrize("mail", ["async", "sync"])
def test_50_mails_still_to_be_sent_after_50_answers_are_sent_before_a_terminated_server_exits(
    heading, path, how, mail, tmp_path
):
    with serve(heading, mail, tmp_path) as server:
        addresses = [f"ada+{number}@example.org" for number in range(50)]
        for address in addresses:
            assert server.client.post(path, **{how: {"email": address}}).status_code == 202
        server.prints("mail begun", times=POOL if mail == "sync" else 50)
        assert "drain begun" not in server.printed()

        server.process.send_signal(signal.SIGTERM)
        server.prints("drain begun")
        assert "mail sent" not in server.printed()
        (tmp_path / "release").touch()
        status = server.process.wait(PATIENCE)
    events = [line for line in server.printed().splitlines() if line.startswith(("mail", "drain"))]
    assert sorted(event for event in events if "mail begun" in event) == sorted(f"mail begun: {to}" for to in addresses)
    of_drain = [event for event in events if "mail begun" not in event]
    assert of_drain[0] == "drain begun"
    assert sorted(of_drain[1:-1]) == sorted(f"mail sent: {to}" for to in addresses)
    assert of_drain[-1] == "drain ended"
    assert status in (0, -signal.SIGTERM)
    assert "Traceback" not in server.printed()


@pytest.mark.parametrize(("heading", "path", "how"), SNIPPETS)
def test_the_app_of_the_snippets_runs_as_it_stands(heading, path, how, tmp_path):
    of_its_own = [sys.executable, "-m", f"apps.{APPS[heading]}"]
    under_uvicorn = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", "0", f"apps.{APPS[heading]}:app"]
    with serving(tmp_path, *(of_its_own if heading == "aiohttp" else under_uvicorn)) as server:
        assert server.client.post(path, **{how: {"email": "ada@example.org"}}).status_code == 202
        assert server.prints("e-mail to ada@example.org\n")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) in (0, -signal.SIGTERM)
    assert "Traceback" not in server.printed()
