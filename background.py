# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors
# Copy this file into your project; keep this notice. Provided "as is", without warranty of any kind.
# pyright: reportPrivateUsage=false
"""Background tasks for asyncio in one file: a call kept for later, and a container of them, run in order or as a group.

A `BackgroundTask` holds a function and its arguments until it is awaited (by a framework, after the response) or
started. Async functions run on the event loop, all others in a thread. A `BackgroundTasks` runs its tasks one after the
other, and stops at the first failure; or concurrently, where the first failure cancels the others. A cancelled run
begins nothing more, waits for the functions that threads are running, and drops no error.
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
from time import monotonic
from types import FunctionType
from typing import Any, Final, ParamSpec, cast

__all__ = ("BackgroundTask", "BackgroundTasks", "drain")
__version__ = "1.0.0"

P = ParamSpec("P")


class BackgroundTask:
    """A call kept for later: `await task()` runs `func(*args, **kwargs)` and returns None.

        task = BackgroundTask(send_email, "ada@example.org", subject="Welcome")
        await task()

    An async function runs on the event loop. Any other callable runs in a thread, in a copy of the caller's context
    variables; an awaitable that it returns is then awaited on the loop. A task carries no state of a run: it may run
    any number of times, also concurrently, and on several event loops.

    Raises TypeError, when it is made, for what cannot be run: something not callable, a coroutine object, a generator
    function. A failure is raised by `await task()` as it is, with a note that names the function. Only a StopIteration
    or an asyncio.CancelledError raised by a sync function becomes a RuntimeError from it: no coroutine can raise them.

    Cancellation: an async function is cancelled. A function still queued for a thread never begins; one that a thread
    is running cannot be stopped, so the `await` ends when the function has ended, with its exception if it failed.
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
                trip = _Trip([self].pop)
                await trip.go(_executor_of(self))
                await trip.finish()
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
        tasks.add_task(write_log, "registered")
        await tasks()

    tasks: any iterable of BackgroundTask; it is copied. as_group: whether `await tasks()` runs them concurrently.
    limit: how many tasks of a group run at a time, at least 1; None: all. fail_fast: whether a failure stops the run;
    if not, all failures are raised in one ExceptionGroup when all tasks have ended. on_error: called on the loop with
    the task and its exception, for each failure as it happens, sync or async. If it returns, the failure is dealt with
    and the run goes on; what it raises is the task's failure instead. executor: runs the sync functions, those of
    nested containers without one included; None: a pool of 40 threads. A ThreadPoolExecutor gets the context variables
    too, any other only the function and its arguments, which must pickle for one that has other processes.

    A task may add tasks to the container that is running it, from a thread too: they run in the same run. A container
    may run again. Raises TypeError for an item of `tasks` that is no BackgroundTask, a `limit` that is no int and an
    `on_error` that cannot be called; ValueError for a `limit` below 1.

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
        for item in cast("list[object]", self.tasks):
            if not isinstance(item, BackgroundTask):
                raise TypeError(f"tasks must hold BackgroundTask objects, got {_type(item)}: wrap it, BackgroundTask(…)")
        if not isinstance(cast(object, limit), int | None):
            raise TypeError(f"limit must be an int, or None for no limit, got {_type(limit)}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, or None for no limit, got {limit}")
        if on_error is not None and not callable(on_error):
            raise TypeError(f"on_error must be callable as on_error(task, exception), got {_type(on_error)}")
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
            if task is not None and task.get_loop() is loop and not task.done() and mark not in _draining
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
    failing = handing_over = False
    index = 0  # of the next task; those added meanwhile stand behind it

    def __init__(self, container: BackgroundTasks) -> None:
        self.container, self.tasks = container, container.tasks
        self.waiting: deque[BackgroundTask] = deque()  # sync tasks, for the next trip to a thread
        self.failures: list[BaseException] = []
        self.context = copy_context()
        self.executor = _executor_of(container, container.executor)
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
        until = monotonic() + _TURN
        while self.waiting or self.index < len(self.tasks):
            task = self.tasks[self.index] if self.index < len(self.tasks) else None
            if task is not None and type(task) is self.threaded and task.func is not task._async_func:
                self.waiting.append(task)  # those that stand together travel together
                self.index += 1
            elif self.waiting:
                await self.attend(None)
            else:
                self.index += 1
                await self.attend(task)
            if monotonic() >= until:
                await asyncio.sleep(0)
                until = monotonic() + _TURN

    async def as_group(self) -> None:
        self.parent, self.requests = asyncio.current_task(), _cancel_requests()
        try:
            # Whoever ends hands over what comes next. A task that is cancelled before its first step cannot: should it
            # have been the last one, the group is entered again.
            while (self.index < len(self.tasks) or self.waiting) and not self.stopping():
                self.free = self.container.limit or sys.maxsize
                self.queued = 0  # trips that no thread has begun
                async with asyncio.TaskGroup() as self.group:
                    await self.hand_over()
        except BaseExceptionGroup as group:
            if self.container.fail_fast:
                raise
            self.failures.extend(group.exceptions)

    def stopping(self) -> bool:
        return self.failing or (self.parent is not None and self.parent.cancelling() > self.requests)

    def begin(self, task: BackgroundTask | None, name: str) -> None:
        self.context.run(cast(asyncio.TaskGroup, self.group).create_task, self.attend(task), name=name)

    async def hand_over(self) -> None:
        """Begin the next tasks, as many as the limit leaves free, and let the loop in every millisecond."""
        if self.handing_over:
            return
        self.handing_over = True
        until = monotonic() + _TURN
        try:
            while self.index < len(self.tasks) and self.free > 0 and not self.stopping():
                task = self.tasks[self.index]
                self.index += 1
                self.free -= 1
                if type(task) is self.threaded and task.func is not task._async_func:
                    self.waiting.append(task)
                else:
                    self.begin(task, _name(task))
                if monotonic() >= until:
                    self.send_trip()
                    await asyncio.sleep(0)
                    until = monotonic() + _TURN
        finally:
            self.handing_over = False
        self.send_trip()

    def send_trip(self, in_place_of_another: bool = False) -> None:
        """Have waiting tasks run in a thread. One trip that waits for its thread is enough."""
        if self.waiting and (in_place_of_another or not self.queued) and not self.stopping():
            self.queued += 1
            self.begin(None, _name(self.container))

    def heard(self, trip: _Trip) -> None:
        # While functions hold the interpreter lock, the loop hears that a thread has begun the trip when it is over:
        # few threads stand in the loop's way. While they block, it hears at once, and sends another until all are busy.
        trip.heard = True
        self.queued -= 1
        if not trip.call.done():
            self.send_trip()

    async def attend(self, task: BackgroundTask | None) -> None:
        """Run a task, or if None waiting ones in a thread until the loop has to do something; in a group, go on."""
        requests = 0 if self.group else _cancel_requests()
        try:
            if task is None:
                trip = _Trip(self.waiting.popleft, self)
                await trip.go(self.executor)
                if self.group:
                    self.queued -= not trip.heard
                    self.free += trip.done
                    self.send_trip(in_place_of_another=True)
                task = trip.task
                await trip.finish()
            elif type(task) is self.inline:
                await (task.func(*task.args, **task.kwargs) if task.kwargs else task.func(*task.args))
            elif self.executor is None:
                await task()
            else:  # which the task learns by a context variable, since `__call__` takes no arguments
                token = _inherited.set((task.func if isinstance(task.func, BackgroundTask) else task, self.executor))
                try:
                    await task()
                finally:
                    _inherited.reset(token)
        except asyncio.CancelledError:
            if not self.group or _cancel_requests():
                raise
        except Exception as exc:
            await self.failed(task or self.container, exc, requests)
        if self.group:
            self.free += task is not None
            if self.index < len(self.tasks):
                await self.hand_over()

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
        self.failing = True
        if self.handing_over:
            # An eager task that fails before TaskGroup.create_task has returned leaves a stray cancellation behind
            # (3.12) or adds an error of TaskGroup's own (3.13), so it fails a step later.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        raise exc


class _Trip(Executor):
    """One trip to a thread, which calls functions there for a millisecond, or until the loop has to do something.

    It stands in for the executor to see the concurrent future that run_in_executor hides: that alone tells whether a
    cancelled call was still queued or is running.
    """

    task: BackgroundTask | None = None  # the one that the loop has to finish
    failure: BaseException | None = None
    result: Any = None  # an awaitable
    cancelled: asyncio.CancelledError | None = None
    heard = False
    done = 0

    def __init__(self, draw: Callable[[], BackgroundTask], run: _Run | None = None) -> None:
        self.draw = draw  # gives the next task, or raises IndexError
        self.group = run if run is not None and run.group else None
        self.context = self.group.context if self.group else copy_context()
        self.loop = asyncio.get_running_loop()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.call = self.executor.submit(fn, *args, **kwargs)
        return self.call

    async def go(self, executor: Executor | None) -> None:
        """Go and come back: afterwards no thread is running any of it, however often the caller is cancelled."""
        self.executor, foreign = executor or _pool(), _is_foreign(executor)
        if _cancel_requests():
            await asyncio.sleep(0)  # a cancellation still to be delivered comes here, not disguised as a dropped call
        requests = _cancel_requests()
        try:
            if foreign:  # run_in_executor would hang on a StopIteration (3.11, 3.12)
                self.task = task = self.draw()
                self.submit(functools.partial(task.func, **task.kwargs) if task.kwargs else task.func, *task.args)
                await self.ended()
            else:
                await self.loop.run_in_executor(self, self.run)
        except asyncio.CancelledError as exc:
            if _cancel_requests() > requests:
                self.cancelled = exc
            self.call.cancel()
            while not self.call.done():
                with suppress(asyncio.CancelledError):
                    await self.ended()
        except Exception as exc:
            return self.refused(exc)
        if self.call.cancelled() and self.cancelled is None:
            self.refused(RuntimeError("the executor was shut down and dropped the call"))
        elif foreign and not self.call.cancelled():
            self.failure = self.call.exception()
            if self.failure is None and inspect.isawaitable(self.call.result()):
                self.result = self.call.result()

    async def ended(self) -> None:
        done = asyncio.Event()
        self.call.add_done_callback(lambda _: self.loop.call_soon_threadsafe(done.set))
        await done.wait()

    def refused(self, exc: Exception) -> None:
        """The executor does not run the call: that is the failure of the next task."""
        with suppress(IndexError):
            self.task = self.task or self.draw()
            self.failure = exc

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

    async def finish(self) -> None:
        """Do on the loop what is left: raise the failure or the cancellation, await the awaitable."""
        failure, self.failure = self.failure, None  # kept here, it would be in a cycle with its traceback
        try:
            if isinstance(failure, (StopIteration, asyncio.CancelledError)):
                raise RuntimeError(f"the function raised {type(failure).__name__}") from failure
            if failure is not None:
                raise failure
            if self.cancelled is not None:
                close = getattr(self.result, "close", None) or getattr(self.result, "cancel", None)
                if close is not None:
                    close()
                raise self.cancelled
            if self.result is not None:
                await self.result
        finally:
            del failure


_TURN: Final = 0.001  # seconds for which a run may keep the event loop from other work
_pools: Final[dict[int, ThreadPoolExecutor]] = {}
_inherited: Final = ContextVar[tuple[BackgroundTask, Executor] | None]("background_executor", default=None)


def _pool() -> ThreadPoolExecutor:
    pid = os.getpid()  # a forked child has none of its parent's threads
    return _pools.get(pid) or _pools.setdefault(pid, ThreadPoolExecutor(40, thread_name_prefix="background"))


def _executor_of(task: BackgroundTask, own: Executor | None = None) -> Executor | None:
    inherited = _inherited.get()
    return inherited[1] if own is None and inherited is not None and inherited[0] is task else own


def _is_foreign(executor: Executor | None) -> bool:
    """Whether no task, context or lock can follow: to other processes or, from 3.14, other interpreters."""
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return executor is not None and (not isinstance(executor, ThreadPoolExecutor) or isinstance(executor, interpreters))


def _cancel_requests() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _is_async(func: Any) -> bool:
    """Whether calling `func` gives a coroutine; TypeError if it cannot be called, or if that would run nothing."""
    if type(func) is FunctionType and not func.__dict__:  # most functions, ten times as fast as what follows
        flags = func.__code__.co_flags
        if not flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
            return bool(flags & inspect.CO_COROUTINE)
    if not callable(func):
        if inspect.iscoroutine(func):
            func.close()
        way_out = "pass the function and its arguments, BackgroundTask(send, 1), not BackgroundTask(send(1))"
        raise TypeError(f"func must be callable, got {_type(func)}: {way_out}")
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


def _type(value: object) -> str:
    return f"an object of type {type(value).__qualname__}"  # not its repr, which may hold what no log should


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
