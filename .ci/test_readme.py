"""The README: each of its code blocks is run by one test file, and what it says of others is so."""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import unittest
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import pytest
import test_frameworks
import test_recipes
import test_scripts
import test_wheel_and_typing
import test_without_background
from apps.serving import APPS, PATIENCE, README, ROOT, Block, blocks_and_headings, is_part_of_its_app, serving

import test_background

TEXT = README.read_text(encoding="utf-8")
BLOCKS, HEADINGS = blocks_and_headings()
TESTS_COMMAND = [block for block in BLOCKS if block.language == "sh"][1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, timeout=300, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def run_script(folder: Path, code: str) -> str:
    (folder / "script.py").write_text(code, encoding="utf-8")
    return run(sys.executable, "-W", "error::RuntimeWarning", "script.py", cwd=folder, PYTHONPATH=str(ROOT))


# ---- every block is run


@pytest.fixture(scope="module")
def run_by_the_stdlib_tests() -> list[str]:
    """What the tests of test_background.py on the README do run."""
    ran: list[str] = []
    original = test_background.run_python

    def recording(*args: str, **options: object) -> str:
        ran.append(str(options["input"]) if "input" in options else Path(args[0]).read_text(encoding="utf-8"))
        return original(*args, **options)

    with mock.patch.object(test_background, "run_python", recording):
        tests = unittest.defaultTestLoader.loadTestsFromTestCase(test_background.ReadMe)
        tests.run(result := unittest.TestResult())
    assert result.wasSuccessful(), "\n".join(text for _, text in [*result.failures, *result.errors])
    return ran


def code_to_run(block: Block) -> str:
    heredoc = re.fullmatch(r"(?s)python3 - <<'PY'\n(.*)\nPY\n", block.code)
    return heredoc[1] if heredoc else block.code


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_block_is_run_by_exactly_one_test_file(number: int, run_by_the_stdlib_tests: list[str]) -> None:
    block = BLOCKS[number]
    if block.language == "text":
        assert BLOCKS[number - 1] == BLOCKS[0], "only the output of the first command is text"
        return
    assert block.language in ("python", "sh")
    served = {heading for heading, *_ in test_frameworks.SNIPPETS + test_without_background.SNIPPETS}
    claims = {
        "test_background.py": code_to_run(block) in run_by_the_stdlib_tests,
        "the tests in frameworks": block.heading in served and is_part_of_its_app(block.heading, block.code),
        "the check of types": block.code == test_wheel_and_typing.documented_block(),
        "the tests of scripts": block.code == test_scripts.program_of_the_readme(),
        "the tests of recipes": block.code in test_recipes.BLOCKS.values(),
        "this file": block == TESTS_COMMAND,
    }
    assert list(claims.values()).count(True) == 1, (block, claims)


def test_each_handler_of_the_snippets_is_called_by_the_tests_in_frameworks() -> None:
    called = {(heading, path) for heading, path, *_ in test_frameworks.SNIPPETS + test_without_background.SNIPPETS}
    assert {heading for heading, _ in called} == set(APPS)
    called |= {("Esmerald / Ravyn", "/visit")}
    assert "Esmerald / Ravyn" in test_frameworks.DECORATED
    for heading in APPS:
        code = "".join(block.code for block in BLOCKS if block.heading == heading)
        paths = set(re.findall(r'post\("(/\w+)"', code)) or {"/" + name for name in re.findall(r"def (\w+)\(req", code)}
        assert paths == {path for of, path in called if of == heading}, heading


def test_no_two_headings_are_the_same() -> None:
    assert len(set(HEADINGS)) == len(HEADINGS)


def test_the_second_command_runs_the_tests_where_the_two_files_were_copied(tmp_path: Path) -> None:
    for name in ("background.py", "test_background.py"):
        shutil.copy(ROOT / name, tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    printed = run("sh", "-euc", TESTS_COMMAND.code, cwd=tmp_path, PATH=path)
    assert re.search(r"^Ran \d{2,} tests .*\n\nOK$", printed, re.MULTILINE), printed


# ---- what it says


def test_its_first_sentence_is_that_of_the_module() -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / "background.py").read_text(encoding="utf-8")))
    assert docstring
    assert TEXT.splitlines()[2] == docstring.splitlines()[0]


def test_its_links_lead_to_something() -> None:
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert target[1:] in anchors if target.startswith("#") else (ROOT / target).exists(), target


def table_of_the_peers() -> list[list[str]]:
    """Theirs, ours and what differs, row by row."""
    section = TEXT.split("## Coming from …\n", 1)[1].split("\n## ", 1)[0]
    rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)]
    assert len(rows) <= 20
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_names_of_the_peers_are_their_names(tmp_path: Path) -> None:
    peers = "starlette|fastapi|lilya|ravyn|litestar|backgrounder|aiojobs"
    names: set[str] = set()
    for theirs, _, _ in table_of_the_peers():
        full = re.findall(rf"`((?:{peers})\.[\w.]+)`", theirs)
        assert full, theirs
        methods = re.findall(r"`(\.\w+)`", theirs)
        of = full[-1].removesuffix(".add_task")
        names |= {*full, *(of + method for method in methods)}
    assert {name.partition(".")[0] for name in names} == set(peers.split("|"))
    # In a process of their own, since importing backgrounder changes asyncio.
    run_script(tmp_path, f"import pkgutil\nfor name in {sorted(names)}: pkgutil.resolve_name(name)")


def test_the_peers_differ_as_the_table_says(tmp_path: Path) -> None:
    script = """
        import sys
        from inspect import getsource, iscoroutinefunction, signature
        import aiojobs, fastapi, lilya.background, litestar.background_tasks, ravyn, starlette.background
        from background import BackgroundTask, BackgroundTasks

        def work(): ...

        assert vars(starlette.background.BackgroundTask(work)) == vars(BackgroundTask(work))
        assert list(signature(starlette.background.BackgroundTasks).parameters) == ["tasks"]
        assert issubclass(ravyn.BackgroundTask, lilya.background.Task)
        assert issubclass(ravyn.BackgroundTasks, lilya.background.Tasks)
        assert lilya.background.Task(work).func is not work and BackgroundTask(work).func is work
        assert "anyio.create_task_group()" in getsource(lilya.background.Tasks.run_as_group)

        assert list(signature(litestar.background_tasks.BackgroundTask).parameters) == ["fn", "args", "kwargs"]
        theirs = litestar.background_tasks.BackgroundTasks(iter([]))
        assert list(signature(type(theirs)).parameters) == ["tasks", "run_in_task_group"]
        assert not isinstance(theirs.tasks, list) and not hasattr(theirs, "add_task")
        assert not isinstance(theirs, litestar.background_tasks.BackgroundTask)

        scheduler = signature(aiojobs.Scheduler).parameters
        assert (scheduler["limit"].default, scheduler["wait_timeout"].default) == (100, 60)
        assert "exception_handler" in scheduler and "coro" in signature(aiojobs.Scheduler.spawn).parameters

        assert "nest_asyncio" not in sys.modules
        import backgrounder
        assert "nest_asyncio" in sys.modules and callable(backgrounder.background)
        assert "create_task_group()" in getsource(backgrounder.Tasks.run_as_group)
        assert backgrounder.Task(work).func is not work
    """
    run_script(tmp_path, textwrap.dedent(script))


def test_it_has_the_markers_between_which_the_benchmark_writes() -> None:
    assert TEXT.index("<!-- benchmark:begin -->\n") < TEXT.index("<!-- benchmark:end -->\n")


# ---- its limitations


@pytest.mark.parametrize("handled", [False, True])
def test_uvicorn_closes_the_connection_of_a_request_whose_task_raises(handled: bool, tmp_path: Path) -> None:
    app = f"""
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route
        from background import BackgroundTask, BackgroundTasks

        async def fail():
            raise ConnectionError

        def report(task, exception):
            print("reported")

        async def answer(request):
            tasks = BackgroundTasks([BackgroundTask(fail)], on_error=report if {handled} else None)
            return PlainTextResponse("answered", background=tasks)

        app = Starlette(routes=[Route("/", answer)])
    """
    (tmp_path / "example.py").write_text(textwrap.dedent(app))
    with serving(tmp_path, *test_frameworks.UVICORN, "example:app") as server:
        where = urlsplit(server.url)
        with socket.create_connection((str(where.hostname), where.port), timeout=PATIENCE) as client:
            for _ in range(2 if handled else 1):
                client.sendall(f"GET / HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
                received = b""
                while not received.endswith(b"answered"):
                    more = client.recv(1024)
                    assert more, received
                    received += more
            if handled:
                assert server.prints("reported", times=2)
            else:
                assert client.recv(1024) == b""


def test_a_django_connection_stays_open_in_a_thread_unless_the_task_closes_it(tmp_path: Path) -> None:
    script = """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        import django
        from django.conf import settings
        from django.core.signals import request_finished
        from django.db import close_old_connections, connection
        from background import BackgroundTasks

        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "database"}
        settings.configure(DATABASES={"default": database}, SECRET_KEY="change me")
        django.setup()

        def query():
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")

        def query_and_close():
            query()
            close_old_connections()

        def look():
            print("closed" if connection.connection is None else "open")

        async def main():
            with ThreadPoolExecutor(1) as pool:
                for func in (look, query, look, query_and_close, look):
                    tasks = BackgroundTasks(executor=pool)
                    tasks.add_task(func)
                    await tasks()
                    request_finished.send(None)

        asyncio.run(main())
    """
    assert run_script(tmp_path, textwrap.dedent(script)).split() == ["closed", "open", "closed"]


def test_a_cancelled_call_on_dask_is_abandoned(tmp_path: Path) -> None:
    script = """
        import asyncio
        import time
        from pathlib import Path
        from distributed import Client, LocalCluster
        from background import BackgroundTasks

        begun, release, ended = (Path(name).absolute() for name in ("begun", "release", "ended"))

        def wait(path):
            give_up = time.monotonic() + 30
            while not path.exists():
                assert time.monotonic() < give_up
                time.sleep(0.01)

        def work():
            begun.touch()
            wait(release)
            ended.touch()

        async def main(executor):
            tasks = BackgroundTasks(executor=executor)
            tasks.add_task(work)
            started = tasks.start()
            await asyncio.to_thread(wait, begun)
            started.cancel()
            await asyncio.wait({started}, timeout=30)
            assert started.cancelled()
            release.touch()
            await asyncio.to_thread(wait, ended)

        if __name__ == "__main__":
            cluster = LocalCluster(n_workers=1, processes=True, host="127.0.0.1", dashboard_address=None)
            with cluster, Client(cluster) as client:
                asyncio.run(main(client.get_executor(pure=False)))
            print("it went on")
    """
    assert "it went on" in run_script(tmp_path, textwrap.dedent(script))
