"""A run inside a cancelled scope of anyio, which cancels again in every turn of the event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from background import BackgroundTask, BackgroundTasks


class CountingLoop(asyncio.SelectorEventLoop):
    """One that counts the callbacks it is given."""

    callbacks = 0

    def call_soon(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.callbacks += 1
        return super().call_soon(*args, **options)


SHAPES: dict[str, Callable[[Callable[[], None]], BackgroundTask]] = {
    "alone": BackgroundTask,
    "in order": lambda func: BackgroundTasks([BackgroundTask(func)]),
    "in order, isolated": lambda func: BackgroundTasks([BackgroundTask(func)], fail_fast=False),
    "as group": lambda func: BackgroundTasks([BackgroundTask(func)] * 3, as_group=True),
    "nested": lambda func: BackgroundTasks([BackgroundTasks([BackgroundTask(func)] * 2, as_group=True)]),
}


class Gate:
    """A function for a thread that waits to be let through."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        self.opened.wait(30)


def callbacks_while_waiting(task: BackgroundTask, gate: Gate) -> int:
    async def main(loop: CountingLoop) -> None:
        with anyio.CancelScope() as scope:
            loop.call_later(0.3, gate.opened.set)

            async def cancel() -> None:
                await asyncio.to_thread(gate.begun.wait, 30)
                scope.cancel()
                loop.callbacks = 0

            canceller = asyncio.create_task(cancel())
            await task()
        assert scope.cancelled_caught
        assert canceller.done()

    return run(main)


def run(main: Callable[[CountingLoop], Coroutine[Any, Any, None]]) -> int:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        runner.run(main(loop))
        return loop.callbacks


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_that_waits_for_a_thread_waits_idle(shape: str) -> None:
    gate = Gate()
    assert callbacks_while_waiting(SHAPES[shape](gate), gate) < 200


def test_a_wait_that_is_not_shielded_would_not_be_idle() -> None:
    async def main(loop: CountingLoop) -> None:
        done = asyncio.Event()
        loop.call_later(0.3, done.set)
        with anyio.CancelScope() as scope:
            scope.cancel()
            while not done.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await done.wait()
            await anyio.sleep_forever()

    assert run(main) > 1000


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_that_is_closed_after_the_loop_ends_without_noise(shape: str) -> None:
    gate = Gate()

    async def main() -> asyncio.Task[None]:
        task = SHAPES[shape](gate).start()
        await asyncio.to_thread(gate.begun.wait, 30)
        task.cancel()
        for _ in range(10):  # turns, in which each run around it comes to wait for the thread
            await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    loop.close()
    coroutine = task.get_coro()
    assert coroutine is not None
    coroutine.close()
    gate.opened.set()
