"""The common mistakes of the README: each is made, seen as it says, and not seen any more by the way out.

The first code of a row's second and third column is run as it stands there; those of the first are what is raised.
"""

import asyncio
import re
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest
from apps.serving import PATIENCE, README

from background import BackgroundTask, BackgroundTasks, drain

SECTION = README.read_text(encoding="utf-8").split("\n## Common mistakes\n", 1)[1].split("\n## ", 1)[0]
ROWS = re.findall(r"^\|.*\|$", SECTION, re.MULTILINE)[2:]
MESSAGES: dict[str, list[str]] = {}  # by the code that is the mistake
WAYS_OUT: dict[str, str] = {}
for row in ROWS:
    seen, why, way_out = (re.findall(r"`([^`]+)`", cell) for cell in row.strip("|").split("|"))
    MESSAGES[why[0]], WAYS_OUT[why[0]] = seen, way_out[0]

sent: list[str] = []
most: list[int] = []


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    sent.clear()
    most.clear()


async def send_email(to: str) -> None:
    sent.append(to)


def make_report(number: int) -> None:
    assert number == 7


async def call(func: Callable[[str], object], to: str = "ada@example.org") -> None:
    await func(to)  # type: ignore[misc]


async def download(number: int) -> None:
    sent.append(str(number))
    most.append(sum(task.get_name().endswith("download") for task in asyncio.all_tasks()))
    await asyncio.sleep(0)
    if number == 3:
        raise ConnectionError("no route")


async def run(code: str, how: Callable[..., object], failing: bool) -> BaseException | None:
    """What is raised by a code of the README, or by running the task that it makes."""
    names = {
        **globals(),
        "partial": partial,
        "to": "ada@example.org",
        "task": BackgroundTask(send_email, "ada@example.org"),
        "tasks": BackgroundTasks(),
        "loop": asyncio.get_running_loop(),
        "downloads": [BackgroundTask(download, number if failing else 0) for number in range(1, 101)],
    }
    exec(f"async def main():\n    return {code}", names)
    try:
        made = await how(names["main"])
        if names["tasks"].tasks:
            made = names["tasks"]
        if isinstance(made, BackgroundTask):
            await made()
        await drain()
    except Exception as exc:
        return exc
    return None


async def directly(main):
    return await main()


async def in_a_thread(main):
    """As a plain `def` endpoint: with no event loop of its own."""

    def endpoint():
        try:
            main().send(None)
        except StopIteration as end:
            return end.value

    return await asyncio.to_thread(endpoint)


async def in_processes(main):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        await BackgroundTasks([await main()], executor=pool)()


MISTAKES = {  # how the code is run, and what it raises
    "await task": (directly, TypeError),
    "BackgroundTask(send_email(to))": (directly, TypeError),
    "task.start()": (in_a_thread, RuntimeError),
    "BackgroundTask(lambda: make_report(7))": (in_processes, Exception),
    "tasks.add_task(call, func=send_email)": (directly, TypeError),
    "tasks.add_task(send_email, to, limit=5)": (directly, TypeError),
    "BackgroundTask(send_email)": (directly, TypeError),
    "BackgroundTasks(downloads)": (directly, ConnectionError),
}
# Which of these Python says in other words in other versions.
OF_PYTHON = {"await task", "BackgroundTask(lambda: make_report(7))"}
WITHOUT_A_WORD = "BackgroundTasks(downloads, limit=5)"


def test_each_mistake_of_the_readme_is_made_here() -> None:
    assert set(MESSAGES) == {*MISTAKES, WITHOUT_A_WORD}
    assert len(ROWS) == len(MESSAGES)


@pytest.mark.parametrize("wrong", MISTAKES)
def test_a_mistake_says_what_the_readme_says(wrong: str) -> None:
    how, kind = MISTAKES[wrong]
    raised = asyncio.run(asyncio.wait_for(run(wrong, how, failing=True), PATIENCE))
    assert type(raised) is kind or kind is Exception
    messages = MESSAGES[wrong]
    assert messages
    if wrong in OF_PYTHON and sys.version_info[:2] != (3, 13):
        assert "3.13" in SECTION
        return
    printed = traceback.format_exception_only(raised)
    for message in messages:
        assert any(line.rstrip("\n").endswith(message) for line in printed), (message, printed)


@pytest.mark.parametrize("wrong", MISTAKES)
def test_the_way_out_of_a_mistake_raises_nothing(wrong: str) -> None:
    how, _ = MISTAKES[wrong]
    assert asyncio.run(asyncio.wait_for(run(WAYS_OUT[wrong], how, failing=False), PATIENCE)) is None
    assert sent or how is in_processes or WAYS_OUT[wrong] == "BackgroundTasks(as_group=True, limit=5)"


def test_what_a_limit_says_to_a_sequence_and_to_a_group() -> None:
    assert asyncio.run(run(WITHOUT_A_WORD, directly, failing=False)) is None
    assert len(sent) == 100
    assert max(most) == 0, "no task of its own: one after the other"
    assert asyncio.run(run(WAYS_OUT[WITHOUT_A_WORD], directly, failing=False)) is None
    assert len(sent) == 200
    assert max(most) == 5


def test_how_many_downloads_never_began_and_that_they_do_by_the_way_out() -> None:
    wrong = "BackgroundTasks(downloads)"
    assert isinstance(asyncio.run(run(wrong, directly, failing=True)), ConnectionError)
    assert sent == ["1", "2", "3"]
    sent.clear()
    raised = asyncio.run(run(WAYS_OUT[wrong], directly, failing=True))
    assert isinstance(raised, ExceptionGroup)
    assert len(raised.exceptions) == 1
    assert len(sent) == 100


def test_arguments_that_are_missing_are_found_at_the_run() -> None:
    BackgroundTask(send_email)  # type: ignore[call-arg]
    assert "type checker" in next(row for row in ROWS if "`BackgroundTask(send_email)`" in row)
