"""The recipes of the README, each run in a process of its own, and what its notes say of other packages."""

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from apps.serving import PATIENCE, README, ROOT, until
from apscheduler.events import EVENT_JOB_EXECUTED
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from background import BackgroundTask, BackgroundTasks

TEXT = README.read_text(encoding="utf-8")
SECTION = TEXT.split("\n## Recipes\n", 1)[1].split("\n## ", 1)[0]
BLOCKS = dict(
    re.findall(r"^### ([^\n]+)\n(?:(?!#|```)[^\n]*\n)*```python\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
)

# Functions that are called write a line to the file `calls`, from whatever process they are called in.
APP = """
import asyncio, contextvars, os, threading, time
from starlette.responses import JSONResponse
from background import BackgroundTask

user = contextvars.ContextVar("user", default="nobody")

def record(*words):
    with open(os.environ["CALLS"], "ab", buffering=0) as file:
        file.write((" ".join(map(str, words)) + "\\n").encode())

async def send_email(to):
    record("send_email", to, user.get())

def make_report(number):
    record("make_report", number, user.get(), threading.current_thread().name, os.getpid())

async def register(to):
    return JSONResponse({}, status_code=202, background=BackgroundTask(send_email, to))
"""
IMPORTS = """
import asyncio, itertools, logging, os, threading, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import Context, copy_context

import distributed
import stamina
from huey import SqliteHuey
from tqdm import tqdm

import app
from app import make_report, send_email, user
from background import BackgroundTask, BackgroundTasks, drain
"""


class Folder:
    """Where a recipe is run, beside the module `app`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "app.py").write_text(APP, encoding="utf-8")
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, path))),
            "CALLS": str(path / "calls"),
        }

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.environment,
            timeout=120,
            capture_output=True,
            text=True,
        )
        print(done.stdout, done.stderr)  # shown by pytest where a test fails
        assert done.returncode == 0
        return done.stdout + done.stderr

    def calls(self) -> list[list[str]]:
        """The calls in order of their functions and arguments: name, argument, user, thread, process."""
        lines = (self.path / "calls").read_text().splitlines() if (self.path / "calls").exists() else []
        return sorted(line.split(" ") for line in lines)

    def called(self, name: str) -> list[str]:
        return [call[1] for call in self.calls() if call[0] == name]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def run(folder: Folder, heading: str, before: str = "", after: str = "", change: tuple[str, str] | None = None) -> str:
    """Run a recipe as the body of an async function, with lines before and after it; returns what is printed."""
    block = BLOCKS[heading]
    if change:
        assert change[0] in block
        block = block.replace(*change)
    lines = [textwrap.dedent(part).strip("\n") for part in (before, block, after)]
    main = "\n".join(("async def main():", *(textwrap.indent(part, "    ") for part in lines if part)))
    code = f"{IMPORTS}\n{main}\n\nif __name__ == '__main__':\n    asyncio.run(main())\n"
    (folder.path / "recipe.py").write_text(code, encoding="utf-8")
    return folder.run("-W", "error::RuntimeWarning", "recipe.py")


NINE = [str(number) for number in range(9)]


def test_the_handler_of_the_options_logs_each_failure_with_its_traceback(folder):
    options = TEXT.split("\n## Options\n", 1)[1].split("\n## ", 1)[0]
    (folder.path / "options.py").write_text(re.findall(r"^```python\n(.*?)^```$", options, re.DOTALL | re.MULTILINE)[0])
    printed = folder.run("-W", "error::RuntimeWarning", "options.py")
    said = re.findall(r"# (BackgroundTask\S+ failed), and the traceback", options)
    assert printed.count(f"ERROR:root:{said[0]}\nTraceback ") == 4  # the same container runs four times
    assert printed.count('raise ValueError("not an address")') == 4
    assert printed.count("e-mail: ada@example.org Welcome\n") == 5
    assert printed.count("ada has registered\n") == 4


def test_progress_is_counted(folder):
    printed = run(folder, "Progress of a long group")
    assert re.findall(r"(\d+) of 100", printed) == [str(number) for number in range(1, 101)]
    assert len(folder.called("make_report")) == 100


def test_progress_is_shown_by_tqdm_in_the_line_of_the_comment(folder):
    heading = "Progress of a long group"
    line, instead = re.findall(r"^ +(print\(.*)  # with tqdm this line is: (.*)$", BLOCKS[heading], re.MULTILINE)[0]
    printed = run(folder, heading, change=(line, instead), after="bar.close()")
    assert "100%" in printed
    assert "100/100" in printed
    assert len(folder.called("make_report")) == 100


def test_one_limit_holds_across_requests(folder):
    before = """
        running, most = [], []
        gate = asyncio.Event()
        async def held():
            running.append(1)
            most.append(len(running))
            await gate.wait()
            running.pop()
    """
    after = """
        await drain()
        for _ in range(20):
            BackgroundTask(limited, BackgroundTask(held)).start()
        while len(running) < 5:
            await asyncio.sleep(0)
        gate.set()
        await drain()
        assert len(most) == 20 and max(most) == 5, most
    """
    run(folder, "One limit across requests", before, after)
    assert folder.called("make_report") == ["7"]


def test_the_waiting_stops_and_the_work_does_not(folder):
    before = """
        printer_is_free = threading.Event()
        def make_report(number):
            printer_is_free.wait()
            app.make_report(number)
    """
    after = """
        assert not os.path.exists(os.environ["CALLS"])
        printer_is_free.set()
        await started
    """
    assert run(folder, "Stop waiting, not the work", before, after) == "still at work\n"
    assert folder.called("make_report") == ["7"]


def test_the_waiting_ends_with_the_work(folder):
    assert run(folder, "Stop waiting, not the work", change=("timeout=0.1", "timeout=20")) == "ready\n"


def test_a_task_is_tried_again(folder):
    before = """
        attempts = itertools.count(1)
        stamina.set_testing(True, attempts=3, cap=True)  # without waits
        async def send_email(to):
            if next(attempts) < 3:
                raise ConnectionError
            await app.send_email(to)
    """
    run(folder, "Retry", before, "assert next(attempts) == 4")
    assert folder.called("send_email") == ["ada@example.org"]


def test_sync_functions_run_in_the_threads_that_they_are_given(folder):
    run(folder, "Own threads, every core, other machines", "user.set('grace')")
    calls = folder.calls()
    assert [call[1] for call in calls] == NINE
    assert {call[2] for call in calls} == {"grace"}
    assert all(call[3].startswith("ThreadPoolExecutor") for call in calls)


@pytest.mark.parametrize("where", ["every core", "Dask"])
def test_sync_functions_run_in_other_processes_by_the_lines_of_the_comments(folder, where):
    heading = "Own threads, every core, other machines"
    line = re.findall(r"^with .*$", BLOCKS[heading], re.MULTILINE)[0]
    instead = re.findall(rf"^# (with .* as pool:)  # {where}", BLOCKS[heading], re.MULTILINE)[0]
    instead = instead.replace('"scheduler.example.org:8786"', "n_workers=2, dashboard_address=None")
    run(folder, heading, "app.record('main', os.getpid())", change=(f"\n{line}", f"\n{instead}"))
    *reports, main = sorted(folder.calls(), key=lambda call: call[0] == "main")
    assert [call[1] for call in reports] == NINE
    assert main[1] not in {call[4] for call in reports}


def test_a_call_that_was_sent_to_a_queue_outlives_the_process_that_sent_it(folder):
    *jobs, start = BLOCKS["Work that survives a crash"].splitlines()
    jobs = ["from app import make_report", "from huey import SqliteHuey", *jobs]
    (folder.path / "jobs.py").write_text("\n".join(jobs))
    (folder.path / "web.py").write_text(
        "import asyncio, os\nfrom background import BackgroundTask, drain\nfrom jobs import send_invoice\n"
        f"async def main():\n    {start}\n    await drain()\n    os._exit(0)  # as by a crash, nothing is cleaned up\n"
        "asyncio.run(main())\n"
    )
    folder.run("web.py")
    assert not folder.calls()
    consumer = Path(sys.executable).with_name("huey_consumer")
    command = [str(consumer), "jobs.huey"]
    assert " ".join(["huey_consumer", *command[1:]]) in BLOCKS["Work that survives a crash"]
    process = subprocess.Popen(command, cwd=folder.path, env=folder.environment)
    try:
        until(folder.calls, "the consumer has run the task")
    finally:
        process.terminate()
        process.wait(PATIENCE)
    assert folder.called("make_report") == ["ada@example.org"]


def test_a_task_has_the_context_of_the_moment_when_it_was_added(folder):
    before = "tasks = BackgroundTasks()\nuser.set('ada')"
    run(folder, "Context of the moment when it is added", before, "user.set('grace')\nawait tasks()")
    assert [call[:3] for call in folder.calls()] == [
        ["make_report", "7", "ada"],
        ["send_email", "ada@example.org", "ada"],
    ]


def test_the_test_of_a_handler_passes_and_can_fail(folder):
    test = "import asyncio\nfrom app import register, send_email\n" + BLOCKS["Test a handler's tasks"]
    (folder.path / "test_app.py").write_text(test)
    assert "1 passed" in folder.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py")
    assert folder.called("send_email") == ["ada@example.org"]
    (folder.path / "app.py").write_text(
        APP.replace("BackgroundTask(send_email, to)", "BackgroundTask(make_report, to)")
    )
    with pytest.raises(AssertionError):
        folder.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py")


def test_each_recipe_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert SECTION.count("```python\n") == len(BLOCKS)
    for heading in BLOCKS:
        assert f'"{heading}"' in source, heading


# ---- the notes on other packages

ran: list[object] = []


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    ran.clear()


async def notify() -> str:
    ran.append("notified")
    return "answer"


@pytest.mark.parametrize("way", ["lambda", "run_coroutine_threadsafe", "token"])
@pytest.mark.parametrize("as_group", [False, True])
def test_a_sync_task_reaches_the_loop_by_the_ways_of_the_note(way, as_group):
    for name in ("lambda: notify()", "run_coroutine_threadsafe", "token"):
        assert name in note("anyio.from_thread.run")

    async def main() -> None:
        loop, token = asyncio.get_running_loop(), anyio.lowlevel.current_token()
        function: Callable[[], object] = {
            "lambda": lambda: notify(),
            "run_coroutine_threadsafe": lambda: ran.append(asyncio.run_coroutine_threadsafe(notify(), loop).result(20)),
            "token": lambda: ran.append(anyio.from_thread.run(notify, token=token)),
        }[way]
        await BackgroundTasks([BackgroundTask(function)], as_group)()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert ran == ["notified"] if way == "lambda" else ran == ["notified", "answer"]


def test_without_one_of_these_ways_anyio_refuses():
    with pytest.raises(RuntimeError):
        asyncio.run(BackgroundTask(anyio.from_thread.run, notify)())
    assert not ran


def test_apscheduler_runs_a_task_by_its_call():
    assert "`task.__call__`" in note("APScheduler")

    async def main() -> None:
        done = asyncio.Event()
        scheduler = AsyncIOScheduler()
        scheduler.start()
        try:
            scheduler.add_job(BackgroundTask(notify).__call__)
            scheduler.add_job(BackgroundTasks([BackgroundTask(notify), BackgroundTask(done.set)]).__call__)
            await done.wait()
        finally:
            scheduler.shutdown(wait=False)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert ran == ["notified"] * 2


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_apscheduler_does_not_run_the_task_itself():
    async def main() -> None:
        executed = asyncio.Event()
        scheduler = AsyncIOScheduler()
        scheduler.add_listener(lambda event: executed.set(), EVENT_JOB_EXECUTED)
        scheduler.start()
        try:
            scheduler.add_job(BackgroundTask(notify))
            await executed.wait()
        finally:
            scheduler.shutdown(wait=False)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert not ran


@pytest.mark.parametrize("started", [True, False])
def test_an_exit_in_a_task_ends_the_program_unless_it_is_wrapped(folder, started):
    assert "wrap a tool's `main()`" in note("sys.exit()")
    how = "task.start()" if started else "await BackgroundTasks([task], as_group=True)()"
    code = """
        import asyncio, sys
        from background import BackgroundTask, BackgroundTasks

        def tool():
            sys.exit(3)

        def wrapped():
            try:
                tool()
            except SystemExit as end:
                print("the tool ended:", end.code)

        async def main(function):
            task = BackgroundTask(function)
            HOW
            await asyncio.sleep(1)

        asyncio.run(main(wrapped))
        print("still there")
        asyncio.run(main(tool))
    """
    (folder.path / "server.py").write_text(textwrap.dedent(code).replace("HOW", how))
    command = [sys.executable, "server.py"]
    done = subprocess.run(command, cwd=folder.path, env=folder.environment, timeout=60, capture_output=True, text=True)
    assert done.stdout == "the tool ended: 3\nstill there\n"
    assert done.returncode != 0


def note(start: str) -> str:
    """The line of the README that names something."""
    lines = [line for line in TEXT.splitlines() if line.startswith("- ") and start in line]
    assert len(lines) == 1, start
    return lines[0]
