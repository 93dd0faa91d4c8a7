"""What survives what: the table of the README, measured under uvicorn, and what `asyncio.run` alone leaves undone."""

import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from apps.serving import README, ROOT, Server, serving, until

TASKS = 50
THREADS = 40  # of the module, and of anyio, which has Starlette's own tasks
SERVERS = 4  # at once
STYLES = {"`background=`": "background", "`start()` + `drain()`": "started"}
SECTION = README.read_text(encoding="utf-8").split("\n## Which style is mine?\n", 1)[1].split("\n## ", 1)[0]


def table() -> dict[str, dict[str, str]]:
    """What the README says: by what happens and by style."""
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", SECTION, re.MULTILINE)
    ]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


TABLE = table()


def post(server: Server) -> None:
    for _ in range(TASKS):
        assert server.client.post("/tasks").status_code == 202


def let_work(server: Server) -> None:
    """Begin the three seconds: as many are at work as there are threads, and the others wait for one."""
    until(lambda: server.printed().count("begun\n") == THREADS, "all threads are at work")
    (server.log.parent / "posted").touch()


def terminate(server: Server) -> None:
    post(server)
    let_work(server)
    server.process.send_signal(signal.SIGTERM)


def interrupt(server: Server) -> None:
    post(server)
    let_work(server)
    server.process.send_signal(signal.SIGINT)


def interrupt_twice(server: Server) -> None:
    post(server)
    server.process.send_signal(signal.SIGINT)
    until(
        lambda: "Waiting for background tasks" in server.printed() or "application shutdown" in server.printed(),
        "the end begins",
    )
    let_work(server)
    server.process.send_signal(signal.SIGINT)


def leave(server: Server) -> None:
    """Send a request and be gone before the answer."""
    address = urlsplit(server.url)
    for _ in range(TASKS):
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    let_work(server)
    until(lambda: server.printed().count("done\n") == TASKS, "all of them")
    server.process.send_signal(signal.SIGTERM)


TIMEOUT = "SIGTERM, `--timeout-graceful-shutdown 1`"
HAPPENINGS = {
    "SIGTERM": (terminate,),
    "SIGINT (Ctrl-C)": (interrupt,),
    "SIGINT twice": (interrupt_twice,),
    TIMEOUT: (terminate, "1"),
    "the client is gone before its answer": (leave,),
}


def measure(folder: Path, style: str, happen, *arguments: str) -> str:
    with serving(folder, sys.executable, "-m", "apps.surviving", style, *arguments) as server:
        happen(server)
        server.process.wait(60)
        return f"{server.printed().count('done' + chr(10))} of {TASKS}"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Several at once, since nearly all of the time is waiting, but for the imports."""
    with ThreadPoolExecutor(SERVERS) as pool:
        running = {
            (what, style): pool.submit(measure, tmp_path_factory.mktemp("server"), STYLES[style], *how)
            for what, how in HAPPENINGS.items()
            for style in STYLES
        }
        return {cell: future.result() for cell, future in running.items()}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("what", HAPPENINGS)
def test_a_cell_of_the_table_is_what_is_measured(measured, what, style):
    assert TABLE[what][style] == measured[what, style]


def test_the_table_has_no_other_cells():
    assert list(TABLE) == list(HAPPENINGS)
    assert all(list(cells) == list(STYLES) for cells in TABLE.values())


def test_with_its_own_task_starlette_loses_as_many_to_the_timeout(tmp_path):
    assert "Starlette's own task alike" in SECTION
    own = measure(tmp_path, "own", *HAPPENINGS[TIMEOUT])
    assert own == TABLE[TIMEOUT]["`background=`"]


WITHOUT_DRAIN = """
import asyncio, os, threading, time
from background import BackgroundTask, drain

begun, started = [], threading.Event()

def work():
    begun.append(1)
    started.wait()
    time.sleep(0.2)
    os.write(1, b"done\\n")

async def main():
    for _ in range(100):
        BackgroundTask(work).start()
    while len(begun) < 40:
        await asyncio.sleep(0.001)
    started.set()
    await asyncio.sleep(0)

asyncio.run(main())
"""


def finished(code: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        timeout=60,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout.count("done\n")


def test_what_the_readme_says_of_a_run_without_drain():
    said = re.search(r"\*\*[^*]*of 100 sync tasks[^*]* (\d+) finish(?:ed)?[^*]* (\d+) vanish[^*]*\*\*", SECTION)
    assert said
    assert (finished(WITHOUT_DRAIN), 100 - finished(WITHOUT_DRAIN)) == (int(said[1]), int(said[2]))
    assert finished(WITHOUT_DRAIN.replace("asyncio.sleep(0)", "drain()")) == 100
