"""Programs without a server of their own, ended from outside. Needs pytest alone, so that it runs on Windows, too."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEADING = "Scripts and servers without a framework"
PATIENCE = 30.0  # seconds after which a wait fails
POSIX = os.name == "posix"
# Windows has no SIGTERM that could be caught; what a console or a parent sends there is Ctrl-Break.
SIGNALS = ["SIGINT", "SIGTERM" if POSIX else "SIGBREAK"]
WORKERS = 40  # threads of the module

HELD = """
import asyncio, os, pathlib, time

RELEASE = pathlib.Path("release").absolute()
GIVE_UP = time.monotonic() + 60

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, from any thread

def released():
    assert time.monotonic() < GIVE_UP
    return RELEASE.exists()

def held_in_thread(to=""):
    say("begun", to)
    while not released():
        time.sleep(0.01)
    say("sent", to)

async def held(to=""):
    say("begun", to)
    while not released():
        await asyncio.sleep(0.01)
    say("sent", to)
"""


def section(heading: str) -> str:
    """What stands under a heading of the README, down to the next one of its rank."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 [^\n]*\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"nothing under {heading!r}"
    return found[2]


def program_of_the_readme() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", section(HEADING), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    return str(blocks[0])


def until(observe: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not observe():
        assert time.monotonic() < give_up, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)


class Child:
    """A program in a process of its own, whose `main()` is called."""

    def __init__(self, folder: Path, code: str) -> None:
        self.folder = folder
        (folder / "program.py").write_text(code, encoding="utf-8")
        path = os.pathsep.join(map(str, (ROOT, ROOT / ".ci", folder)))
        self.log = (folder / "printed").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "apps.pressing", "main"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            creationflags=0 if POSIX else subprocess.CREATE_NEW_PROCESS_GROUP,  # else Ctrl-Break would reach the tests
        )

    def press(self, name: str = "SIGINT") -> None:
        if POSIX:
            self.process.send_signal(signal.Signals[name])
        elif name == "SIGBREAK":
            self.process.send_signal(signal.CTRL_BREAK_EVENT)
        else:  # a process in a group of its own gets no Ctrl-C: it is told to press it itself
            assert self.process.stdin
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()

    def printed(self) -> str:
        return (self.folder / "printed").read_text(encoding="utf-8", errors="replace")

    def count(self, word: str) -> int:
        return sum(line.startswith(word) for line in self.printed().splitlines())

    def prints(self, word: str, times: int = 1) -> None:
        until(lambda: self.count(word) >= times, f"{times} times {word!r}")
        assert self.count(word) == times

    def release(self) -> None:
        (self.folder / "release").touch()

    def ends(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    with ExitStack() as stack:

        def start(code: str) -> Child:
            child = Child(tmp_path, code)
            stack.callback(lambda: print(child.printed()))  # shown by pytest where a test fails
            stack.callback(child.log.close)
            stack.callback(child.process.wait)
            stack.callback(child.process.kill)
            return child

        yield start


# ---- the program of the README


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def readmes(kind: str, main: str) -> str:
    """The program of the README, whose mail is sent when the test says so."""
    return f"{program_of_the_readme()}\n{HELD}\nsend_email = {kind}\ndef main(): run({main})\n"


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionError:  # refused, or reset while it closes
        return False
    return True


def request(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))


def is_accepted(client: socket.socket) -> bool:
    with client.makefile("rb") as answer:
        return answer.readline() == b"accepted\n"


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("kind", ["held", "held_in_thread"])
def test_a_server_that_is_told_to_end_loses_no_mail(start, kind, name):
    port = free_port()
    child = start(readmes(kind, f"server({port})"))
    until(lambda: is_listening(port), "the server listens")
    with ExitStack() as stack:
        slow = [request(stack, port) for _ in range(5)]  # their requests are under way when the end comes
        for client in slow:
            client.sendall(b"ada")
        for number in range(20):  # connections are accepted in order: those five have been when these are answered
            client = request(stack, port)
            client.sendall(f"ada+{number}@example.org\n".encode())
            assert is_accepted(client)
        child.prints("begun ada", times=20)

        child.press(name)
        until(lambda: not is_listening(port), "the server accepts no more")
        assert child.count("sent") == 0
        child.release()
        child.prints("sent ada", times=20)
        for client in slow:
            client.sendall(b"@example.org\n")
            assert is_accepted(client)
        assert child.ends() == 0
    child.prints("sent ada", times=25)
    assert "Traceback" not in child.printed()


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("kind", ["held", "held_in_thread"])
def test_a_script_that_is_told_to_end_finishes_what_it_has_started(start, kind, name):
    child = start(readmes(kind, "script()"))
    child.prints("begun", times=20)
    child.press(name)
    child.release()
    assert child.ends() == 0
    child.prints("sent", times=20)
    assert "Traceback" not in child.printed()


@pytest.mark.parametrize("main", ["script()", "server({port})"], ids=["script", "server"])
def test_a_second_signal_ends_the_program_of_the_readme(start, main):
    port = free_port()
    code = readmes("held", main.format(port=port))
    child = start(code.replace("finally:\n", "finally:\n            say('cancelled')\n", 1))
    if "server" in main:
        until(lambda: is_listening(port), "the server listens")
    until(lambda: child.count("begun"), "a mail has begun")
    child.press()
    child.prints("cancelled")
    child.press()
    assert child.ends() == 0
    assert child.count("sent") == 0


def test_the_program_of_the_readme_ends_by_itself_and_raises_what_its_main_raises(start):
    code = readmes("held", "failing()")
    child = start(f"{code}\nasync def failing():\n    BackgroundTask(held, 1).start()\n    raise LookupError\n")
    child.prints("begun")
    child.release()
    assert child.ends() == 1
    child.prints("sent")
    assert "LookupError" in child.printed()


def test_the_program_of_the_readme_runs_as_it_stands(start):
    child = start(f"{program_of_the_readme()}\ndef main(): run(script())\n")
    assert child.ends() == 0
    assert child.printed().count("@example.org") == 20


# ---- asyncio.run alone

WAYS = {  # how a hundred tasks are run, and how many threads are then at work
    "alone": ("await asyncio.gather(*(BackgroundTask(held_in_thread)() for _ in range(100)))", WORKERS),
    "in order": ("await BackgroundTasks(tasks)()", 1),
    "group": ("await BackgroundTasks(tasks, as_group=True)()", WORKERS),
    "limit": ("await BackgroundTasks(tasks, as_group=True, limit=1)()", 1),
    "started": ("await asyncio.wait([task.start() for task in tasks])", WORKERS),
    "started group": ("await BackgroundTasks(tasks, as_group=True).start()", WORKERS),
}


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_outlive_their_loop_say_nothing_and_begin_nothing(start, way):
    run, threads = WAYS[way]
    child = start(f"""{HELD}
from background import BackgroundTask, BackgroundTasks

async def run():
    tasks = [BackgroundTask(held_in_thread) for _ in range(100)]
    try:
        {run}
    finally:
        say("cancelled")

def main():
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        say("closed")
""")
    child.prints("begun", times=threads)
    give_up = time.monotonic() + PATIENCE
    while not child.count("closed"):
        assert time.monotonic() < give_up
        child.press()
        time.sleep(0.3)  # nothing says that a press has been dealt with, and two at once may count as one
    child.release()
    assert child.ends() == 0
    child.prints("begun", times=threads)
    child.prints("sent", times=threads)
    assert "Traceback" not in child.printed()
    assert "Event loop is closed" not in child.printed()


if POSIX:  # on Windows nothing interrupts the main thread while it waits for another to end

    @pytest.mark.parametrize(
        ("call", "at_most"), [("BackgroundTask(held_in_thread)()", 4), ("asyncio.to_thread(held_in_thread)", 3)]
    )
    def test_a_program_whose_thread_is_stuck_ends_after_a_few_presses(start, call, at_most):
        child = start(f"""{HELD}
from background import BackgroundTask

async def run():
    await {call}

def main():
    asyncio.run(run())
""")
        child.prints("begun")
        presses = 0
        while child.process.poll() is None and presses < 10:
            child.press()
            presses += 1
            with suppress(subprocess.TimeoutExpired):  # nothing says that a press has been dealt with
                child.process.wait(0.7)
        assert presses <= at_most
        assert child.count("sent") == 0
