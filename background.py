# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors
# Copy this file into your project; keep this notice. Provided "as is", without warranty of any kind.
# pyright: reportPrivateUsage=false
"""Background tasks for asyncio in one file: a call kept for later, and a container of them, run in order or as a group.

A `BackgroundTask` keeps a call until it is awaited (by a framework, after the response) or started. Async functions run
on the event loop, all others in threads. A `BackgroundTasks` runs its tasks in order, and the first failure stops the
rest; or concurrently, and the first failure cancels the others. A cancelled run begins nothing more, waits for the
functions that threads are running, and drops no error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from time import monotonic
from types import FunctionType
from typing import Any, Final, ParamSpec, cast

__all__ = ("BackgroundTask", "BackgroundTasks", "drain")
__version__ = "1.0.0"
P = ParamSpec("P")


class BackgroundTask:
    """A call kept for later: `await task()` runs `func(*args, **kwargs)` and returns None, any number of times.

        task = BackgroundTask(send_email, "ada@example.org", subject="Welcome")
        await task()

    An async function runs on the event loop; any other callable in a thread, in a copy of the caller's context, and an
    awaitable that it returns is then awaited on the loop. Raises TypeError, when the task is made, for what cannot be
    run: something not callable, a coroutine object, a generator function. A failure is raised as it is, with a note
    that names the function; only a StopIteration or asyncio.CancelledError of a sync function, which no coroutine can
    raise, comes as a RuntimeError from it.

    Cancellation: an async function is cancelled; a function still queued for a thread never begins. One that a thread
    is running cannot be stopped: the `await` ends when the function has ended, with its exception if it failed.
    `asyncio.wait({task.start()}, timeout=seconds)` stops the waiting without stopping the work.
    """

    __slots__ = ("__weakref__", "_async_func", "args", "func", "kwargs")
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    _async_func: Callable[..., Any] | None

    def __init__(self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        self._async_func = func if _is_async(func) else None  # not a flag, which a `func` set later would belie
        self.func = func
        self.args = args
        self.kwargs = kwargs

    async def __call__(self) -> None:
        """Run the function. Where this is overridden or patched, containers still run each task through it."""
        try:
            if self.func is self._async_func:
                await (self.func(*self.args, **self.kwargs) if self.kwargs else self.func(*self.args))
            else:
                await _Trip([self].pop).go(_inherited_executor(self))
        except Exception as exc:
            _add_note(exc, self)
            raise

    def start(self) -> asyncio.Task[None]:
        """Run it now, in the background of the running event loop; returns the asyncio.Task, named after the function.

        The asyncio.Task is kept referenced until it ends; cancel it to cancel the work. A failure that nobody awaits
        is reported by asyncio ("exception was never retrieved"). Raises RuntimeError where no event loop is running.
        """
        loop = asyncio.get_running_loop()
        mark, context = object(), copy_context()
        context.run(_marks.set, (*(outer for outer in _marks.get() if outer in _started), mark))
        _started[mark] = None  # an eager task may ask before create_task has returned
        _started[mark] = started = context.run(loop.create_task, self(), name=_name(self))
        started.add_done_callback(lambda _: _started.pop(mark))
        return started

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_name(self)})"


class BackgroundTasks(BackgroundTask):
    """A list of tasks that run in order or as a group; itself a BackgroundTask, so containers nest.

        tasks = BackgroundTasks(on_error=lambda task, exc: log.error("%r failed", task, exc_info=exc))
        tasks.add_task(send_email, "ada@example.org")
        await tasks()

    tasks: any iterable of BackgroundTask; it is copied. as_group: whether `await tasks()` runs them concurrently.
    limit: how many tasks of a group run at a time, from 1; None: all. fail_fast: whether a failure stops the run; if
    not, all failures are raised in one ExceptionGroup when all tasks have ended. on_error: sync or async, called on the
    loop with the task and its exception for each failure as it happens. If it returns, the failure is dealt with; what
    it raises is the task's failure instead. executor: runs the sync functions, those of nested containers without one
    included; None: a pool of 40 threads. A ThreadPoolExecutor gets the context too, any other only the function and its
    arguments, as pickles where it has other processes. Raises TypeError or ValueError for what is none of this.

    A task may add tasks to the container that runs it, from a thread too: they run in the same run.

    Cancellation: what has not begun never begins, what runs ends as in BackgroundTask. A run that is being cancelled
    isolates no failure and calls no `on_error`; failures collected before are raised, not lost.
    """

    __slots__ = ("as_group", "executor", "fail_fast", "limit", "on_error", "tasks")

    def __init__(
        self, tasks: Iterable[BackgroundTask] | None = None, as_group: bool = False, *, limit: int | None = None,
        fail_fast: bool = True, on_error: Callable[[BackgroundTask, Exception], object] | None = None,
        executor: Executor | None = None,
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
        self.args, self.kwargs, self._async_func = (), {}, None

    @property
    def func(self) -> Callable[[], Coroutine[Any, Any, None]]:  # type: ignore[override]
        """The method that `await tasks()` runs. (Stored, it would be a cycle, and a copy would run the original.)"""
        return self.run_as_group if self.as_group else self.run_single

    def __getstate__(self) -> object:  # for copy and pickle: all but `func`
        members, slots = cast("tuple[Any, dict[str, Any]]", super().__getstate__())
        del slots["func"]
        return members, {**slots, "tasks": list(self.tasks)}

    def add_task(self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Append BackgroundTask(func, *args, **kwargs); raises what that raises."""
        self.tasks.append(BackgroundTask(func, *args, **kwargs))

    async def run_single(self) -> None:
        """Run the tasks one after the other. The first failure stops the run and is raised as it is."""
        with _Run(self) as run:
            await run.in_order()

    async def run_as_group(self) -> None:
        """Run the tasks concurrently, on asyncio.TaskGroup: they begin in order, at most `limit` running at a time.

        The first failure cancels the others; all failures are raised in one ExceptionGroup.
        """
        with _Run(self) as run:
            await run.as_group()

    async def __call__(self) -> None:
        """Run the tasks, as a group if `as_group`, otherwise one after the other."""
        await self.func()

    def __repr__(self) -> str:
        return _name(self)


async def drain() -> None:
    """Wait until everything started on the running event loop has ended, tasks started meanwhile included.

    Raises none of their errors. Called from inside a started task, it waits neither for that task nor for another that
    is itself in drain(), so it cannot deadlock. Cancellation ends the waiting, not the tasks: use asyncio.timeout.
    """
    loop, marks = asyncio.get_running_loop(), _marks.get()
    _draining.extend(marks)
    try:
        while pending := {
            task for mark, task in _started.copy().items()
            if task is not None and task.get_loop() is loop and not task.done() and not (marks and mark in _draining)
        }:  # fmt: skip
            await asyncio.wait(pending)
    finally:
        for mark in marks:
            _draining.remove(mark)


_started: Final[dict[object, asyncio.Task[None] | None]] = {}
_draining: Final[list[object]] = []  # the marks of started tasks from inside of which drain() is called
# The marks of the started tasks that a context is inside of. (The tasks themselves would be cycles and delay a report.)
_marks: Final = ContextVar[tuple[object, ...]]("background_marks", default=())


class _Run:
    """One run of a container, in order or as a group. On leaving it, the failures that it has collected are raised."""

    group: asyncio.TaskGroup | None = None
    parent: asyncio.Task[Any] | None = None
    failing = filling = False
    index = 0  # of the next task; those added meanwhile stand behind it

    def __init__(self, container: BackgroundTasks) -> None:
        self.container, self.tasks = container, container.tasks
        self.failures: list[BaseException] = []
        self.executor = container.executor or _inherited_executor(container)
        # The type whose tasks need not go through `__call__`: none where it is patched.
        plain = BackgroundTask if BackgroundTask.__call__ is _original_call else None
        self.inline = plain if self.executor is None else None
        self.threaded = None if _is_foreign(self.executor) else plain

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, Exception) and not self.container.fail_fast:
            self.failures.append(exc)
        if self.failures and isinstance(exc, (Exception, asyncio.CancelledError, type(None))):
            raise BaseExceptionGroup("failures of background tasks", self.failures) from None

    async def in_order(self) -> None:
        tasks, inline, until = self.tasks, self.inline, monotonic() + _TURN
        isolating = self.container.on_error is not None or not self.container.fail_fast
        while self.index < len(tasks):
            task = tasks[self.index]
            requests = _cancel_requests() if isolating else 0
            try:
                if type(task) is inline and task.func is task._async_func:
                    self.index += 1
                    await (task.func(*task.args, **task.kwargs) if task.kwargs else task.func(*task.args))
                elif type(task) is self.threaded and task.func is not task._async_func:
                    await _Trip(self.draw).go(self.executor)
                else:
                    self.index += 1
                    await self.call(task)
            except Exception as exc:
                await self.failed(tasks[self.index - 1], exc, requests)
            if monotonic() >= until:
                await asyncio.sleep(0)
                until = monotonic() + _TURN

    def draw(self) -> BackgroundTask:
        """The next task of a sequence for the same thread."""
        task = self.tasks[self.index]
        if type(task) is not self.threaded or task.func is task._async_func:
            raise IndexError
        self.index += 1
        return task

    async def as_group(self) -> None:
        if _cancel_requests():
            await asyncio.sleep(0)  # a cancellation still to be delivered comes before anything begins
        self.parent, self.requests, self.context = asyncio.current_task(), _cancel_requests(), copy_context()
        self.waiting: deque[BackgroundTask] = deque()  # sync tasks, for the next thread to draw
        self.queued: set[_Trip] = set()  # trips that no thread has begun
        try:
            # Whoever ends begins what comes next. A task that is cancelled before its first step cannot: should it have
            # been the last one, the group is entered again.
            while (self.index < len(self.tasks) or self.waiting) and not self.stopping():
                self.free = self.container.limit or sys.maxsize
                self.queued.clear()
                async with asyncio.TaskGroup() as self.group:
                    self.begin(self.fill(), _name(self.container))
        except BaseExceptionGroup as group:
            if self.container.fail_fast:
                raise
            self.failures.extend(group.exceptions)
        finally:
            if self.failing and self.parent is not None and sys.version_info < (3, 13):
                self.parent.uncancel()  # which TaskGroup forgets, having cancelled it to wake it up

    def stopping(self) -> bool:
        return self.failing or (self.parent is not None and self.parent.cancelling() > self.requests)

    def begin(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self.context.run(cast(asyncio.TaskGroup, self.group).create_task, coroutine, name=name)

    async def fill(self) -> None:
        """Begin the next tasks of the group, as many as the limit leaves free, letting the loop in every millisecond."""
        self.filling = True
        await asyncio.sleep(0)  # what ends in the same step is then replaced together
        until = monotonic() + _TURN
        while self.index < len(self.tasks) and self.free > 0 and not self.stopping():
            task = self.tasks[self.index]
            self.index += 1
            self.free -= 1
            if type(task) is self.threaded and task.func is not task._async_func:
                self.waiting.append(task)
            else:
                self.begin(self.attend(task), _name(task))
            if monotonic() >= until:
                await asyncio.sleep(0)
                until = monotonic() + _TURN
        self.filling = False
        if not self.queued:
            self.send_trip()

    def send_trip(self) -> None:
        """Have a thread draw from the waiting tasks."""
        if self.waiting and not self.stopping():
            trip = _Trip(self.waiting.popleft, self)
            self.queued.add(trip)
            self.begin(self.attend(trip), _name(self.container))

    def heard(self, trip: _Trip) -> None:
        """A thread has begun the trip."""
        # While functions hold the interpreter lock, the loop hears this when the trip is over: few threads stand in its
        # way. While they block, it hears it at once, and sends another trip, until all threads are busy.
        self.queued.discard(trip)
        if not trip.call.done() and not self.queued:
            self.send_trip()

    def came_back(self, trip: _Trip) -> None:
        self.queued.discard(trip)
        self.free += trip.done
        self.send_trip()  # which takes its place: the rest of this one may last, and set context variables
        if trip.task is not None and (current := asyncio.current_task()) is not None:
            current.set_name(_name(trip.task))

    async def attend(self, work: BackgroundTask | _Trip) -> None:
        """Do one piece of a group's work, then begin what comes next."""
        try:
            if isinstance(work, _Trip):
                await work.go(self.executor)
            elif type(work) is self.inline:
                await (work.func(*work.args, **work.kwargs) if work.kwargs else work.func(*work.args))
            else:
                await self.call(work)
        except asyncio.CancelledError:
            if _cancel_requests():
                raise
        except Exception as exc:
            await self.failed(work.task or self.container if isinstance(work, _Trip) else work, exc, 0)
        except BaseException:
            self.failing = self.failing or not self.stopping()
            raise
        self.free += not isinstance(work, _Trip) or work.task is not None
        if self.index < len(self.tasks) and not self.filling:
            await self.fill()

    async def call(self, task: BackgroundTask) -> None:
        """Run a task through its `__call__`, which learns of the executor by a context variable."""
        if self.executor is None:
            return await task()
        token = _inherited.set((task.func if isinstance(task.func, BackgroundTask) else task, self.executor))
        try:
            await task()
        finally:
            _inherited.reset(token)

    async def failed(self, task: BackgroundTask, exc: Exception, requests: int) -> None:
        """Deal with a failure or raise it. More cancel requests than `requests`: this run is being cancelled."""
        if type(task) is BackgroundTask:
            _add_note(exc, task)
        on_error = self.container.on_error
        if on_error is not None and _cancel_requests() <= requests:
            try:
                handled = on_error(task, exc)
                if inspect.isawaitable(handled):
                    await handled
                return
            except asyncio.CancelledError:
                pass  # a handler that is cancelled has not dealt with the failure
            except Exception as raised:
                exc = raised
        if not self.container.fail_fast and _cancel_requests() <= requests:
            self.failures.append(exc)
            return
        self.failing = self.failing or not self.stopping()
        raise exc


class _Trip:
    """One trip to a thread, which calls functions there for a millisecond, or until the loop has to do something."""

    task: BackgroundTask | None = None  # the one that the loop has to finish
    failure: BaseException | None = None
    result: Any = None  # an awaitable
    cancelled: asyncio.CancelledError | None = None
    done = 0

    def __init__(self, draw: Callable[[], BackgroundTask], group: _Run | None = None) -> None:
        self.draw = draw  # gives the next task, or raises IndexError
        self.group = group
        self.context = copy_context() if group is None else group.context
        self.loop = asyncio.get_running_loop()

    async def go(self, executor: Executor | None) -> None:
        """Go and come back, however often the caller is cancelled; then do on the loop what is left to do there."""
        if _cancel_requests():
            await asyncio.sleep(0)  # a cancellation still to be delivered comes before anything begins
        # Not run_in_executor: its future, once cancelled, no longer tells whether the call is queued, running or done.
        done, foreign = asyncio.Event(), _is_foreign(executor)
        try:
            if foreign:
                self.task = task = self.draw()
                func = functools.partial(task.func, **task.kwargs) if task.kwargs else task.func
                self.call: Future[Any] = cast(Executor, executor).submit(func, *task.args)
            else:
                self.call = (executor or _pool()).submit(self.run)
            self.call.add_done_callback(lambda _: self.loop.call_soon_threadsafe(done.set))
            while not done.is_set():
                try:
                    await done.wait()
                except asyncio.CancelledError as exc:
                    self.cancelled = exc
                    self.call.cancel()
            if self.call.cancelled() and self.cancelled is None:
                raise RuntimeError("the executor was shut down and dropped the call")
            if foreign and not self.call.cancelled():
                self.failure = self.call.exception()
                self.result = None if self.failure is not None else self.call.result()
        except Exception as exc:  # the executor does not run the call: that is the failure of the next task
            with suppress(IndexError):
                self.task = self.task or self.draw()
                self.failure = exc
        if self.group is not None:
            self.group.came_back(self)
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
            raise self.cancelled

    def run(self) -> None:
        """What the thread does."""
        group, until = self.group, monotonic() + _TURN
        if group is not None:
            self.loop.call_soon_threadsafe(group.heard, self)
        with suppress(IndexError):
            while self.cancelled is None:
                task = self.draw()
                try:
                    result = self.context.copy().run(task.func, *task.args, **task.kwargs)
                except BaseException as exc:
                    self.task, self.failure = task, exc
                    return
                if result is not None and inspect.isawaitable(result):
                    self.task, self.result = task, result
                    return
                self.done += 1
                if monotonic() >= until or (group is not None and (group.failing or group.index < len(group.tasks))):
                    return


_TURN: Final = 0.001  # seconds for which a run may keep the event loop from other work
_pools: Final[dict[int, ThreadPoolExecutor]] = {}
_inherited: Final = ContextVar[tuple[object, Executor | None]]("background_executor", default=(None, None))


def _pool() -> ThreadPoolExecutor:
    pid = os.getpid()  # a forked child has none of its parent's threads
    return _pools.get(pid) or _pools.setdefault(pid, ThreadPoolExecutor(40, thread_name_prefix="background"))


def _inherited_executor(task: BackgroundTask) -> Executor | None:
    heir, executor = _inherited.get()
    return executor if heir is task else None


def _is_foreign(executor: Executor | None) -> bool:
    """Whether no task, context or lock can follow: to other processes or, from 3.14, other interpreters."""
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return executor is not None and (not isinstance(executor, ThreadPoolExecutor) or isinstance(executor, interpreters))


def _cancel_requests() -> int:
    return 0 if (task := asyncio.current_task()) is None else task.cancelling()


def _is_async(func: Any) -> bool:
    """Whether calling `func` gives a coroutine; TypeError if it cannot be called, or if that would run nothing."""
    if type(func) is FunctionType:  # nearly always, and ten times as fast as what follows
        flags = func.__code__.co_flags
        if flags & CO_COROUTINE or not (flags & (CO_GENERATOR | CO_ASYNC_GENERATOR) or func.__dict__):
            return bool(flags & CO_COROUTINE)
    if not callable(func):
        if inspect.iscoroutine(func):
            func.close()
        way_out = "pass the function and its arguments, BackgroundTask(send, 1), not BackgroundTask(send(1))"
        raise TypeError(f"func must be callable, got a {type(func).__name__} object: {way_out}")
    inner = func
    while isinstance(inner, functools.partial):
        inner = cast(Any, inner).func
    for candidate in () if isinstance(inner, type) else (inner, type(inner).__call__):
        generates = inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate)
        if generates and not candidate.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
            raise TypeError(f"func must not be a generator function, got {_name(func)}: calling it runs nothing")
        # Before 3.14 only asyncio's function knows the marks of AsyncMock, Cython and asgiref; then it is deprecated.
        if cast(Any, inspect if sys.version_info >= (3, 14) else asyncio).iscoroutinefunction(candidate):
            return True
    return False


def _name(thing: Any) -> str:
    """The dotted name of a task's function, or of the class of an object without a name; a container's length."""
    if isinstance(thing, BackgroundTasks):
        return f"{type(thing).__name__}({len(thing.tasks)} tasks)"
    if isinstance(thing, (BackgroundTask, functools.partial)):
        return _name(cast(Any, thing).func)
    if not isinstance(getattr(thing, "__qualname__", None), str):
        thing = cast(Any, type(thing))
    module = getattr(thing, "__module__", None)
    return f"{module}.{thing.__qualname__}" if isinstance(module, str) else str(thing.__qualname__)


def _add_note(exc: Exception, task: BackgroundTask) -> None:
    note = f"raised by {task!r}"
    with suppress(Exception):  # an exception may refuse notes
        if note not in getattr(exc, "__notes__", ()):
            exc.add_note(note)


_original_call = BackgroundTask.__call__
