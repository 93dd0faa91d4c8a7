# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors. Copy this file; keep this notice. "As is", without any warranty.
# pyright: reportPrivateUsage=false
"""Background tasks for asyncio in one file: a call kept for later, and a container of them, run in order or as a group.

A task runs when it is awaited (by a framework, after the response) or started: an async function on the event loop, any
other in a thread. In order, the first failure stops the rest; in a group, it cancels the others. A cancelled run begins
nothing more, waits for the functions that threads are running, and drops no error.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent import futures
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, copy_context
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from time import monotonic, thread_time
from types import FunctionType
from typing import Any, Final, ParamSpec, cast

__all__ = ("BackgroundTask", "BackgroundTasks", "drain")
__version__ = "1.0.0"
P = ParamSpec("P")


class BackgroundTask:
    """A call kept for later: `await task()` runs `func(*args, **kwargs)` and returns None, any number of times.

        task = BackgroundTask(send_email, "ada@example.org", subject="Welcome")

    An async function runs on the event loop, any other callable in a thread, in a copy of the caller's context; if that
    returns an awaitable, it is then awaited on the loop. Raises TypeError, when made, for what is not callable, for a
    coroutine object and for a generator function. A failure is raised as it is, with a note that names the function;
    only a StopIteration or asyncio.CancelledError of a sync function comes as the cause of a RuntimeError.

    Cancellation: an async function is cancelled; a function still queued for a thread never begins. One that a thread
    is running cannot be stopped: the `await` ends when it has ended, with its exception if it failed.
    `asyncio.wait({task.start()}, timeout=seconds)` stops the waiting without stopping the work.
    """

    __slots__ = ("__weakref__", "_async_func", "_kwargs", "args", "func")

    def __init__(self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        self.func: Callable[..., Any] = func
        self.args: tuple[Any, ...] = args
        self._kwargs: dict[str, Any] | None = kwargs or None  # an empty dict would take as much memory as the rest
        flags = func.__code__.co_flags if type(func) is FunctionType else CO_GENERATOR
        is_async = flags & CO_COROUTINE or ((flags & _GENERATES or func.__dict__) and _is_async(func))
        self._async_func: object = func if is_async else None  # not a flag, which a `func` set later would belie

    @property
    def kwargs(self) -> dict[str, Any]:  # of the task's own, to be changed like `args` and `func`
        self._kwargs = {} if self._kwargs is None else self._kwargs
        return self._kwargs

    @kwargs.setter
    def kwargs(self, kwargs: dict[str, Any]) -> None:
        self._kwargs = kwargs

    async def __call__(self) -> None:
        """Run the function. Where this is overridden or patched, containers still run each task through it."""
        try:
            if self.func is self._async_func:
                await (self.func(*self.args, **self._kwargs) if self._kwargs else self.func(*self.args))
            else:
                heir, executor = _inherited.get()
                await _Trip(self).go(executor if heir is self else None)
        except Exception as exc:
            _add_note(exc, self)
            raise

    def start(self) -> asyncio.Task[None]:
        """Run it now, in the background of the running event loop; RuntimeError if there is none. Returns the
        asyncio.Task, named after the function and kept referenced until it ends. Cancel it to cancel the work.
        A failure that nobody awaits is reported by asyncio ("exception was never retrieved")."""
        loop = asyncio.get_running_loop()
        mark, context, name = object(), copy_context(), _name(self)  # a mark: the task in its own context were a cycle
        context.run(_marks.set, (*(outer for outer in _marks.get() if outer in _started), mark))
        _started[mark] = None  # an eager task may ask before create_task has returned
        _started[mark] = started = context.run(loop.create_task, self(), name=name)
        started.add_done_callback(lambda _: _started.pop(mark))
        return started

    def __repr__(self) -> str:
        return _name(self) if isinstance(self, BackgroundTasks) else f"{type(self).__name__}({_name(self)})"


class BackgroundTasks(BackgroundTask):
    """A list of tasks that run in order or as a group; itself a BackgroundTask, so containers nest.

        tasks = BackgroundTasks(on_error=lambda task, exc: log.error("%r failed", task, exc_info=exc))
        tasks.add_task(send_email, "ada@example.org")

    tasks: any iterable of BackgroundTask, copied. as_group: whether `await tasks()` runs them concurrently. limit: how
    many tasks of a group run at a time, from 1; None: all. fail_fast: whether a failure stops the run; if not, all
    failures are raised in one ExceptionGroup at the end. on_error: sync or async, called on the loop with the task and
    its exception for each failure as it happens. If it returns, the failure is dealt with; what it raises takes its
    place. executor: runs the sync functions, also those of nested containers without one; None: a pool of 40 threads. A
    ThreadPoolExecutor gets the context too, any other only the function and its arguments, pickled for other processes.
    TypeError or ValueError for what is none of this. What a running task adds, from a thread too, runs in the same run.

    Cancellation: what has not begun never begins, what runs ends as in BackgroundTask. A run that is being cancelled
    isolates no failure and calls no `on_error`; failures collected before are raised, not lost.
    """

    __slots__ = ("as_group", "executor", "fail_fast", "limit", "on_error", "tasks")

    def __init__(
        self, tasks: Iterable[BackgroundTask] | None = None, as_group: bool = False, *, limit: int | None = None,
        fail_fast: bool = True, on_error: Callable[[BackgroundTask, Exception], object] | None = None,
        executor: futures.Executor | None = None,
    ) -> None:  # fmt: skip
        self.tasks: list[BackgroundTask] = [] if tasks is None else list(tasks)
        for item in self.tasks:
            if not isinstance(item, BackgroundTask):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"tasks must hold BackgroundTask objects, got {type(item).__name__}: wrap it in one")
        if limit is not None and not isinstance(limit, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"limit must be an int, or None for no limit, got {type(limit).__name__}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, or None for no limit, got {limit}")
        if on_error is not None and not callable(on_error):
            raise TypeError(f"on_error must be callable as on_error(task, exception), got {type(on_error).__name__}")
        self.as_group, self.limit, self.fail_fast = as_group, limit, fail_fast
        self.on_error, self.executor = on_error, executor
        self.args, self._kwargs, self._async_func = (), None, None

    @property
    def func(self) -> Callable[[], Coroutine[Any, Any, None]]:  # type: ignore[override]
        """The method that `await tasks()` runs. (Stored, it would be a cycle, and a copy would run the original.)"""
        return self.run_as_group if self.as_group else self.run_single

    def __getstate__(self) -> object:  # for copy and pickle: all but `func`
        members, slots = cast("tuple[Any, dict[str, Any]]", super().__getstate__())
        return members, {name: slots[name] for name in slots if name != "func"} | {"tasks": list(self.tasks)}

    def add_task(self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Append BackgroundTask(func, *args, **kwargs); raises what that raises."""
        new = BackgroundTask(func, *args, **kwargs) if kwargs else BackgroundTask(func, *args)  # type: ignore[call-arg]
        self.tasks.append(new)  # (to hand on an empty dict takes as long as to make a task)

    async def run_single(self) -> None:
        """Run the tasks one after the other. The first failure stops the run and is raised as it is."""
        with _Run(self) as run:
            await run.work(run.source)

    async def run_as_group(self) -> None:
        """Run the tasks concurrently, on asyncio.TaskGroup: handed over in order, at most `limit` at a time. The first
        failure cancels the others; all failures are raised in one ExceptionGroup."""
        with _Run(self) as run:
            await run.in_group()

    async def __call__(self) -> None:
        """Run the tasks, as a group if `as_group`, otherwise one after the other."""
        await self.func()


async def drain() -> None:
    """Wait until everything started on the running event loop has ended, tasks started meanwhile included. Raises none
    of their errors. Called from inside a started task, it waits neither for that task nor for another that is itself in
    drain(), so it cannot deadlock. Cancellation ends the waiting, not the tasks: use asyncio.timeout."""
    loop, marks = asyncio.get_running_loop(), _marks.get()
    _draining.extend(marks)
    try:
        while pending := [
            task for mark in _started.keys() - (_draining if marks else ())
            if (task := _started.get(mark)) and task.get_loop() is loop and not task.done()
        ]:  # fmt: skip
            await asyncio.wait(pending)
    finally:
        for mark in marks:
            _draining.remove(mark)


class _Run(AbstractContextManager["_Run"]):
    """One run of a container, in order or as a group. On leaving it, the failures that it has collected are raised."""

    group, named = cast(Any, None), object()  # named: the function that `name` belongs to
    index, failing, filling = 0, False, False  # index: of the group's next task; those added meanwhile stand behind it

    def __init__(self, container: BackgroundTasks) -> None:
        self.container, self.tasks, self.source = container, container.tasks, cast(Any, iter(container.tasks))
        self.failures, self.parent = cast(Any, []), cast(Any, asyncio.current_task())
        self.requests, self.checked = self.parent.cancelling(), monotonic()
        heir, executor = _inherited.get()
        self.executor = executor if heir is container and container.executor is None else container.executor
        plain = BackgroundTask if BackgroundTask.__call__ is _original_call else None  # patched, it must be called
        self.inline = plain if self.executor is None else None
        self.threaded = plain if self.executor is None or not _is_foreign(self.executor) else None

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if self.failing and self.group and sys.version_info < (3, 13):
            self.parent.uncancel()  # which TaskGroup forgets, having cancelled it to wake it up
        del self.parent  # no cycle with what is raised (hence the list in `failed`): asyncio's report would be late
        if isinstance(exc, BaseExceptionGroup if self.group else Exception) and not self.container.fail_fast:
            self.failures.extend(cast(Any, exc).exceptions if self.group else [exc])
            exc = None
        if self.failures and (exc is None or isinstance(exc, asyncio.CancelledError)):
            raise BaseExceptionGroup("failures of background tasks", vars(self).pop("failures")) from None

    async def work(self, tasks: Iterable[BackgroundTask]) -> None:
        """Run tasks one after the other: those of a sequence, or one of a group, which then begins what comes next."""
        plain, group, left, size, until = self.inline, self.group, 1, 1, self.checked + _TURN
        for task in tasks:
            trip = None
            if not group and self.parent.cancelling() != self.requests:
                await asyncio.sleep(0)  # a cancellation still to be delivered comes before anything begins
                self.requests = self.parent.cancelling()
            try:
                if type(task) is plain and (func := task.func) is task._async_func:
                    await (func(*task.args, **kwargs) if (kwargs := task._kwargs) else func(*task.args))
                elif type(task) is self.threaded and task.func is not task._async_func:
                    await (trip := _Trip(task, self)).go(self.executor)
                else:  # its `__call__` learns of the executor by a context variable
                    _inherited.set((task.func if isinstance(task.func, BackgroundTask) else task, self.executor))
                    try:
                        await task()
                    finally:
                        _inherited.set((None, None))
            except asyncio.CancelledError:
                if not group or self.stopping():
                    raise
            except Exception as exc:
                await self.failed(trip.task if trip else task, [exc])
            if group:
                self.free += 1
                if self.index < len(self.tasks) and not (self.filling or self.stopping()):
                    self.filling = True
                    self.context.run(group.create_task, self.fill(), name=_name(self.container))
                return
            left -= 1
            if not left:  # after each heavy task, but up to eight light ones: to ask for the time takes as long as one
                size = (2 * size if size < 8 else 8) if (now := monotonic()) < self.checked + _TURN / 8 else 1
                left, self.checked = size, now
                if now >= until:
                    await asyncio.sleep(0)
                    until = monotonic() + _TURN

    async def failed(self, task: BackgroundTask, failure: list[Exception]) -> None:
        if isinstance(failure[0], BaseExceptionGroup) and not self.group and sys.version_info < (3, 13):
            self.requests += task.func is task._async_func  # which may have had a TaskGroup of its own: see __exit__
        if type(task) is BackgroundTask:
            _add_note(failure[0], task)
        if self.container.on_error is not None and not self.stopping():
            with suppress(asyncio.CancelledError):  # a handler that is cancelled has not dealt with the failure
                try:
                    handled = self.container.on_error(task, failure[0])
                    if inspect.isawaitable(handled):
                        await handled
                    return
                except Exception as raised:
                    failure = [raised]
        if self.container.fail_fast or self.stopping():
            self.failing = self.failing or not self.stopping()
            raise failure.pop()
        self.failures += failure

    async def in_group(self) -> None:
        self.context, self.waiting = copy_context(), deque[BackgroundTask]()  # sync tasks, for the next thread to draw
        # A task that is cancelled before its first step begins no other: the group is then entered again.
        while (self.index < len(self.tasks) or self.waiting) and not self.stopping():
            self.free, self.queued, self.filling = (self.container.limit or sys.maxsize) - len(self.waiting), 0, True
            async with asyncio.TaskGroup() as self.group:
                await asyncio.sleep(0)  # a cancellation still to be delivered comes before anything begins
                self.group.create_task(self.fill(), name=_name(self.container))

    def stopping(self) -> bool:
        return self.failing or self.parent.cancelling() > self.requests  # in a sequence, since the task has begun

    def begin(self, task: BackgroundTask) -> None:
        if task.func is not self.named:
            self.named, self.name = task.func, _name(task)
        self.group.create_task(self.work((task,)), name=self.name)

    async def fill(self) -> None:
        """Begin the next tasks of a group, as many as the limit leaves free, and let the loop in again and again."""
        until = 0.0
        while self.index < len(self.tasks) and self.free > 0 and not self.stopping():
            if monotonic() >= until:
                await asyncio.sleep(0)  # at first, too: what ends in the same step is then replaced together
                until = monotonic() + _TURN / 16  # the loop then runs at once all that has been begun
                continue
            task = self.tasks[self.index]
            self.index, self.free = self.index + 1, self.free - 1
            if type(task) is self.threaded and task.func is not task._async_func:
                self.waiting.append(task)
            else:
                self.begin(task)
        self.filling = False
        if not self.queued:
            self.send_trip()

    def send_trip(self) -> None:
        if not self.stopping() and (task := self.draw()) is not None:
            self.queued += 1
            self.context.run(self.begin, task)

    def draw(self) -> BackgroundTask | None:  # the next one if it is for a thread; the threads draw, too
        try:
            if self.group:
                return self.waiting.popleft()
            left: int = self.source.__length_hint__()  # exhausted, the iterator would miss what is added later
            if left and type(task := self.tasks[-left]) is self.threaded and task.func is not task._async_func:
                return next(self.source, None) if left == self.source.__length_hint__() else None  # no add in between
        except IndexError:  # another thread has drawn the last one, or somebody has taken it out of the list
            return None
        return None

    def heard(self, trip: _Trip) -> None:
        # While functions hold the interpreter lock, the loop hears that a thread has begun a trip when that is over:
        # few threads stand in its way. While they block, it hears at once and sends two more, until all are busy.
        self.queued, trip.heard = self.queued - 1, True
        if not trip.call.done() and not self.queued:
            self.send_trip()
            self.send_trip()


class _Trip:
    """One trip to a thread, which computes there for a millisecond at most, or until the loop has to do something."""

    def __init__(self, task: BackgroundTask, run: _Run | None = None) -> None:
        self.task, self.run, self.heard = cast(Any, task), run, False
        self.failure = self.cancelled = self.result = cast(Any, None)  # what is left for the loop
        self.loop, self.context = asyncio.get_running_loop(), run.context if run and run.group else copy_context()

    async def go(self, executor: futures.Executor | None) -> None:
        """Go and come back, however often the caller is cancelled; then do on the loop what is left to do there."""
        if cast(Any, asyncio.current_task()).cancelling():
            await asyncio.sleep(0)  # a cancellation still to be delivered comes before anything begins
        # Not run_in_executor: its future, once cancelled, no longer tells whether the call is queued, running or done.
        done, task, pid, loop = asyncio.Event(), self.task, os.getpid(), self.loop
        try:
            if _is_foreign(executor):
                func = functools.partial(task.func, **task.kwargs) if task.kwargs else task.func
                self.call: futures.Future[Any] = cast(Any, executor).submit(func, *task.args)
            else:
                if executor is None:  # a forked child has none of its parent's threads
                    executor = _pools.get(pid) or _pools.setdefault(pid, futures.ThreadPoolExecutor(40, "background"))
                self.call = executor.submit(self.call_functions)
            self.call.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))  # (with self, a cycle)
            while not done.is_set():
                try:
                    await done.wait()
                except asyncio.CancelledError as exc:
                    self.cancelled = exc.with_traceback(None)  # which would make a cycle
                    self.call.cancel()
            if not self.call.cancelled():
                self.result = self.call.result()
            elif self.cancelled is None:
                raise RuntimeError("the executor was shut down and dropped the call")
        except (Exception, asyncio.CancelledError) as exc:
            self.failure, self.cancelled = exc, True  # a call that was queued all the same begins nothing any more
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # else an eager task, begun next, would fail inside of this one, and so forth
        run, self.run = self.run, None  # the thread may hold on to this trip for a moment
        if run and run.group:
            run.queued -= not self.heard
            run.send_trip()  # in its place: the rest of this one may last, and set context variables
            cast(Any, asyncio.current_task()).set_name(_name(self.task))
        if isinstance(self.failure, (StopIteration, asyncio.CancelledError)):
            raise RuntimeError(f"the function raised {type(self.failure).__name__}") from vars(self).pop("failure")
        if self.failure is not None:
            raise vars(self).pop("failure")  # kept, it would be in a cycle with its traceback
        if inspect.isawaitable(self.result):
            if self.cancelled is None:
                await self.result
            elif close := getattr(self.result, "close", None) or getattr(self.result, "cancel", None):
                close()
        if self.cancelled is not None:
            raise vars(self).pop("cancelled")

    def call_functions(self) -> object:
        run, until, cpu = self.run, monotonic() + _TURN, thread_time() + _TURN
        task = self.task if self.cancelled is None else None
        if run and run.group:
            self.loop.call_soon_threadsafe(run.heard, self)
        while task is not None:
            self.task = task
            try:
                result = self.context.copy().run(task.func, *task.args, **task._kwargs or {})
            except BaseException as exc:
                self.failure = exc
                return None
            if not run or (result is not None and inspect.isawaitable(result)):
                return result
            late = self.cancelled or (monotonic() >= until and thread_time() >= cpu)  # the loop feels no blocking
            # Where a limit gives an order, a task drawn here could overtake one on its way to a thread.
            back = late or (run.group and (run.failing or run.container.limit or run.index < len(run.tasks)))
            task = None if back else run.draw()
        return None


_TURN: Final = 0.001  # seconds for which a run may keep the event loop from other work
_GENERATES: Final = CO_GENERATOR | CO_ASYNC_GENERATOR
_original_call: Final = BackgroundTask.__call__
_pools: Final[dict[int, futures.ThreadPoolExecutor]] = {}
_inherited: Final = ContextVar[tuple[object, futures.Executor | None]]("background_executor", default=(None, None))
_started: Final[dict[object, asyncio.Task[None] | None]] = {}
_draining: Final[list[object]] = []  # the marks of those from inside of which drain() is called
_marks: Final = ContextVar[tuple[object, ...]]("background_marks", default=())  # of the started tasks one is inside of


def _is_foreign(executor: futures.Executor | None) -> bool:
    """Whether no task, context or lock can follow: to other processes or, from 3.14, other interpreters."""
    threads = executor is None or isinstance(executor, futures.ThreadPoolExecutor)
    return not threads or (sys.version_info >= (3, 14) and isinstance(executor, futures.InterpreterPoolExecutor))


def _is_async(func: Any) -> bool:
    """Whether calling `func` gives a coroutine; TypeError if it cannot be called, or if that would run nothing."""
    if not callable(func):
        if inspect.iscoroutine(func):
            func.close()
        way_out = "pass the function and its arguments, BackgroundTask(send, 1), not BackgroundTask(send(1))"
        raise TypeError(f"func must be callable, got a {type(func).__name__} object: {way_out}")
    while isinstance(func, functools.partial):
        func = cast(Any, func).func
    for candidate in () if isinstance(func, type) else (func, type(func).__call__):
        generates = inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate)
        if generates and not candidate.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
            raise TypeError(f"func must not be a generator function, got {_name(func)}: calling it runs nothing")
        # Before 3.14 only asyncio's function knows the marks of AsyncMock, Cython and asgiref; then it is deprecated.
        if cast(Any, inspect if sys.version_info >= (3, 14) else asyncio).iscoroutinefunction(candidate):
            return True
    return False


def _name(thing: Any) -> str:
    """The dotted name of a task's function, or of the class of an object without a name; a container's length."""
    while isinstance(thing, (BackgroundTask, functools.partial)):
        if isinstance(thing, BackgroundTasks):
            return f"{type(thing).__name__}({len(thing.tasks)} tasks)"
        thing = cast(Any, thing).func
    if not isinstance(getattr(thing, "__qualname__", None), str):
        thing = cast(Any, type(thing))
    module = getattr(thing, "__module__", None)
    return f"{module}.{thing.__qualname__}" if isinstance(module, str) else str(thing.__qualname__)


def _add_note(exc: Exception, task: BackgroundTask) -> None:
    with suppress(Exception):  # an exception may refuse notes
        if (note := f"raised by {task!r}") not in getattr(exc, "__notes__", ()):
            exc.add_note(note)
