"""What a user writes: mypy and pyright must both report the lines that end in `# error`, and no others.

`# error in pyright` stands where mypy cannot know: a `functools.partial` takes any further argument there.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, assert_type

import background
from background import BackgroundTask, BackgroundTasks, drain


async def send(to: str, *, subject: str = "", retries: int = 3) -> int:
    return len(to + subject) + retries


def write(path: str, data: bytes = b"") -> int:
    return len(path) + len(data)


def nothing() -> None: ...


def collect(*numbers: int, **flags: bool) -> None: ...


def takes_names_of_ours(self: int, tasks: str, limit: float) -> None: ...


class Mailer:
    async def welcome(self, to: str) -> None: ...

    def __call__(self, count: int) -> None: ...


def log(task: BackgroundTask, exc: Exception) -> None: ...


async def report(task: BackgroundTask, exc: Exception) -> None: ...


def handler_of_text(task: str, exc: Exception) -> None: ...


def handler_of_one() -> None: ...


one = BackgroundTask(send, "ada@example.org", subject="Welcome")
BackgroundTask(send, "ada@example.org", retries=1)
BackgroundTask(write, "log.txt", b"text")
BackgroundTask(write, path="log.txt", data=b"text")
BackgroundTask(nothing)
BackgroundTask(func=nothing)
BackgroundTask(func=write, path="log.txt")
BackgroundTask(collect, 1, 2, 3, fast=True)
BackgroundTask(takes_names_of_ours, 1, tasks="all", limit=0.5)
BackgroundTask(Mailer().welcome, "ada@example.org")
BackgroundTask(Mailer(), 3)
BackgroundTask(Mailer)
BackgroundTask(functools.partial(send, "ada@example.org"))
BackgroundTask(functools.partial(send, "ada@example.org"), subject="Welcome")
BackgroundTask(lambda: send("ada@example.org"))
BackgroundTask(print, "done", end="")
BackgroundTask(one)

BackgroundTask()  # error
BackgroundTask("send")  # error
BackgroundTask(send("ada@example.org"))  # error
BackgroundTask(send)  # error
BackgroundTask(send, 1)  # error
BackgroundTask(send, "ada@example.org", "Welcome")  # error
BackgroundTask(send, "ada@example.org", subject=1)  # error
BackgroundTask(send, "ada@example.org", subjekt="Welcome")  # error
BackgroundTask(write, "log.txt", "text")  # error
BackgroundTask(func=write)  # error
BackgroundTask(func=write, path=1)  # error
BackgroundTask(nothing, 1)  # error
BackgroundTask(collect, "1")  # error
BackgroundTask(collect, fast="yes")  # error
BackgroundTask(Mailer().welcome)  # error
BackgroundTask(Mailer(), "3")  # error
BackgroundTask(functools.partial(send, "ada@example.org"), subject=1)  # error in pyright

many = BackgroundTasks()
BackgroundTasks([])
BackgroundTasks([one, many])
BackgroundTasks((one, one), True)
BackgroundTasks(tasks=[one, BackgroundTasks([one], as_group=True)], as_group=False)
BackgroundTasks(BackgroundTask(write, path) for path in ("a.txt", "b.txt"))
BackgroundTasks([many, many])
BackgroundTasks(None, as_group=True, limit=10, fail_fast=False, on_error=log, executor=None)
BackgroundTasks(on_error=report)
BackgroundTasks(on_error=lambda task, exc: print(task.func, exc))
BackgroundTasks(executor=ThreadPoolExecutor(2))

BackgroundTasks(one)  # error
BackgroundTasks([one, nothing])  # error
BackgroundTasks(["send"])  # error
BackgroundTasks([one], limit="10")  # error
BackgroundTasks([one], limit=1.5)  # error
BackgroundTasks([one], "group")  # error
BackgroundTasks([one], True, 10)  # error
BackgroundTasks([one], group=True)  # error
BackgroundTasks([one], fail_fast="no")  # error
BackgroundTasks([one], on_error=handler_of_text)  # error
BackgroundTasks([one], on_error=handler_of_one)  # error
BackgroundTasks([one], executor=10)  # error

many.add_task(send, "ada@example.org", subject="Welcome")
many.add_task(func=write, path="log.txt")
many.add_task(nothing)
many.add_task(takes_names_of_ours, self=1, tasks="all", limit=0.5)
many.add_task(one)
many.add_task(many)

many.add_task()  # error
many.add_task(send)  # error
many.add_task(send, 1)  # error
many.add_task(send, "ada@example.org", subjekt="Welcome")  # error
many.add_task(send, "ada@example.org", limit=1)  # error
many.add_task(nothing, 1)  # error
many.tasks.append(nothing)  # error
many.limit = "10"  # error

assert_type(one.func, Callable[..., Any])
assert_type(one.args, tuple[Any, ...])
assert_type(one.kwargs, dict[str, Any])
assert_type(many.tasks, list[BackgroundTask])
assert_type(many.as_group, bool)
assert_type(many.limit, int | None)
assert_type(many.fail_fast, bool)
assert_type(many.on_error, Callable[[BackgroundTask, Exception], object] | None)
assert_type(many.executor, Executor | None)
assert_type(background.__version__, str)


async def main() -> None:
    await one()
    await many()
    await many.run_single()
    await many.run_as_group()
    await drain()
    assert_type(one.start(), asyncio.Task[None])
    assert_type(many.start(), asyncio.Task[None])
    await asyncio.wait({one.start(), many.start()}, timeout=1)
    started: asyncio.Task[int] = one.start()  # error
    await one  # error
    await many.tasks  # error
    many.add_tasks(one)  # error
    await drain(1)  # error
    print(started)


asyncio.run(main())
