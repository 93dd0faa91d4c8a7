# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors
#
# Copy this file into your project; keep this notice. The software is provided "as is", without warranty of any kind.
"""Background tasks for asyncio in one file: a call kept for later, and a container that runs calls in order or as a group.

    from background import BackgroundTask, BackgroundTasks, drain

A `BackgroundTask` holds a function and its arguments until somebody awaits it (a framework, after the response) or
starts it. Async functions run on the event loop, all others in a thread. A `BackgroundTasks` runs its tasks one after
the other, stopping at the first failure, or concurrently, where the first failure cancels the others. A cancelled run
begins nothing more, waits for the function that a thread is running, and loses no error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from types import FunctionType
from typing import Any, Final, ParamSpec, TypeGuard

__all__ = ("BackgroundTask", "BackgroundTasks", "drain")
__version__ = "1.0.0"

P = ParamSpec("P")


class BackgroundTask:
    """A call kept for later: `await task()` runs `func(*args, **kwargs)` and returns None.

        task = BackgroundTask(send_email, "ada@example.org", subject="Welcome")
        await task()

    An async function runs on the event loop. Any other callable runs in a thread, in a copy of the caller's context
    variables; an awaitable that it returns is then awaited on the loop. A task carries no state of a run: it may run
    any number of times, also concurrently and on several event loops.

    Raises TypeError, when it is made, for what cannot be run: something not callable, a coroutine object (pass the
    function and its arguments, not the call), a generator function.

    A failure is raised as it is, with a note that names the function. A StopIteration or an asyncio.CancelledError
    raised by a sync function cannot leave a coroutine as it is: it becomes the cause of a RuntimeError.

    Cancellation: an async function is cancelled. A function still queued for a thread never begins; one that a thread
    is running cannot be stopped, so the `await` ends when it has ended, and raises its exception if it failed.
    `asyncio.wait({task.start()}, timeout=seconds)` stops the waiting without stopping the work.
    """

    __slots__ = ("func", "args", "kwargs", "_async_func", "__weakref__")

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __init__(self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        # The function again where it is async, so that a `func` replaced later is not taken for what it was.
        self._async_func = func if _is_async(func) else None
        self.func = func
        self.args = args
        self.kwargs = kwargs

    async def __call__(self) -> None:
        """Run the function. Every task of a container runs through here."""
        try:
            if self.func is self._async_func:
                await (self.func(*self.args, **self.kwargs) if self.kwargs else self.func(*self.args))
            else:
                await _call_sync(self)
        except Exception as exc:
            _add_note(exc, self)
            raise

    def start(self) -> asyncio.Task[None]:
        """Run it now, in the background of the running event loop, and return the asyncio.Task.

        The asyncio.Task is named after the function and kept referenced until it ends. A failure that nobody awaits is
        reported by asyncio ("exception was never retrieved"). Raises RuntimeError where no event loop is running.

        Cancellation: cancel the asyncio.Task.
        """
        loop = asyncio.get_running_loop()
        mark = _Started()
        context = contextvars.copy_context()
        context.run(_inside.set, (*(outer for outer in _inside.get() if not outer.ended), mark))
        started = context.run(loop.create_task, self(), name=_task_name(self))
        _started[started] = mark
        started.add_done_callback(_forget)
        return started

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_task_name(self)})"


class BackgroundTasks(BackgroundTask):
    """A list of tasks that run in order or as a group; itself a BackgroundTask, so containers nest.

        tasks = BackgroundTasks(on_error=lambda task, exc: log.error("%r failed", task, exc_info=exc))
        tasks.add_task(send_email, "ada@example.org")
        tasks.add_task(write_log, "registered")
        await tasks()

    tasks: an iterable of BackgroundTask; it is copied. as_group: `await tasks()` runs them concurrently, not in order.
    limit: how many tasks a group runs at a time, at least 1; None for all. fail_fast: whether a failure stops the run;
    if not, all failures are raised together in one ExceptionGroup when all tasks have ended.
    on_error: `on_error(task, exception)`, sync or async, is called on the loop for each failure as it happens. If it
    returns, the failure is dealt with and the run goes on; what it raises is the task's failure instead.
    executor: where the sync functions run, those of nested containers without one of their own included; None for a
    pool of 40 threads of this module. A ThreadPoolExecutor gets the context variables too, any other executor only the
    function and its arguments, which must pickle if it has other processes.

    A task may add tasks to the container that runs it: they run in the same run. A run may be repeated.

    Raises TypeError for a task that is no BackgroundTask, a `limit` that is no int, an `on_error` that cannot be called
    or an `executor` without `submit`; ValueError for a `limit` below 1.

    Cancellation: what has not begun never begins, what runs is cancelled as in BackgroundTask. A run that is being
    cancelled isolates no failure and calls no `on_error`; failures already collected are raised, not lost.
    """

    __slots__ = ("tasks", "as_group", "limit", "fail_fast", "on_error", "executor")

    def __init__(
        self,
        tasks: Iterable[BackgroundTask] | None = None,
        as_group: bool = False,
        *,
        limit: int | None = None,
        fail_fast: bool = True,
        on_error: Callable[[BackgroundTask, Exception], object] | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.tasks: list[BackgroundTask] = [] if tasks is None else list(tasks)
        for task in self.tasks:
            if not isinstance(task, BackgroundTask):
                raise TypeError(f"tasks must hold BackgroundTask objects, got {_described(task)}: wrap it, BackgroundTask(func, ...)")
        if limit is not None:
            if not isinstance(limit, int):
                raise TypeError(f"limit must be an int or None, got {_described(limit)}")
            if limit < 1:
                raise ValueError(f"limit must be at least 1, got {limit}: pass None for no limit")
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise TypeError(f"executor must be a concurrent.futures.Executor, got {_described(executor)}")
        if on_error is not None and not callable(on_error):
            raise TypeError(f"on_error must be callable, on_error(task, exception), got {_described(on_error)}")
        self.as_group = as_group
        self.limit = limit
        self.fail_fast = fail_fast
        self.on_error = on_error
        self.executor = executor
        self._async_func = None
        self.args = ()
        self.kwargs = {}

    @property
    def func(self) -> Callable[[], Coroutine[Any, Any, None]]:  # type: ignore[override]
        """The method that `await tasks()` runs."""
        return self.run_as_group if self.as_group else self.run_single

    def add_task(self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Append BackgroundTask(func, *args, **kwargs), also from a thread and while the container is running."""
        self.tasks.append(BackgroundTask(func, *args, **kwargs))

    async def run_single(self) -> None:
        """Run the tasks one after the other. The first failure stops the run and is raised as it is."""
        await _Sequence(self).run()

    async def run_as_group(self) -> None:
        """Run the tasks concurrently, on asyncio.TaskGroup. The first failure cancels the others."""
        await _Group(self).run()

    async def __call__(self) -> None:
        """Run the tasks: as a group if `as_group`, otherwise one after the other."""
        await (self.run_as_group() if self.as_group else self.run_single())

    def __repr__(self) -> str:
        return _task_name(self)


async def drain() -> None:
    """Wait until everything started on the running event loop has ended, tasks started meanwhile included.

    Raises none of their errors. Bound it with `asyncio.timeout`. Called from inside a started task, it waits neither for
    that task nor for another that is itself in drain(), so it cannot deadlock.

    Cancellation: stops the waiting, not the tasks.
    """
    loop = asyncio.get_running_loop()
    inside = _inside.get()
    for mark in inside:
        mark.drains += 1
    try:
        while pending := {
            started
            for started, mark in _started.copy().items()
            if started.get_loop() is loop and not started.done() and not mark.drains
        }:
            await asyncio.wait(pending)
    finally:
        for mark in inside:
            mark.drains -= 1


# ---- what start() and drain() share


class _Started:
    """Marks the context of a started task. (The asyncio.Task itself there would be a cycle that delays its report.)"""

    __slots__ = ("drains", "ended")

    def __init__(self) -> None:
        self.drains = 0  # calls of drain() made from inside the task
        self.ended = False


_started: Final[dict[asyncio.Task[None], _Started]] = {}
_inside: Final[contextvars.ContextVar[tuple[_Started, ...]]] = contextvars.ContextVar("background_inside", default=())


def _forget(started: asyncio.Task[None]) -> None:
    _started.pop(started).ended = True


# ---- one run of a container


class _Run:
    """What a sequence and a group have in common: one run of a container, from its first task to its last failure."""

    def __init__(self, container: BackgroundTasks) -> None:
        self.container = container
        self.tasks = container.tasks
        self.index = 0  # of the next task to hand over; what is added meanwhile stands behind it
        self.failures: list[BaseException] = []
        self.executor = _executor_of(container, container.executor)
        # The type whose tasks may skip `__call__`: none where it is patched, so that it stays the one seam.
        plain = BackgroundTask if BackgroundTask.__call__ is _original_call else None
        self.inline = plain if self.executor is None else None
        self.threads = None if _is_foreign(self.executor) else plain

    async def run(self) -> None:
        try:
            await self.body()
        except (Exception, asyncio.CancelledError) as exc:
            if self.container.fail_fast or not (self.failures or isinstance(exc, Exception)):
                raise
            if isinstance(exc, Exception):
                self.failures.append(exc)
        if self.failures:  # they have priority over a cancellation
            raise BaseExceptionGroup("failures of background tasks", self.failures)

    async def body(self) -> None:
        raise NotImplementedError

    async def call(self, task: BackgroundTask) -> None:
        """Run a task through its `__call__`, which learns of the executor by a context variable."""
        if self.executor is None:
            return await task()
        target = task
        while isinstance(target, BackgroundTask) and isinstance(target.func, BackgroundTask):
            target = target.func
        token = _inherited.set((target, self.executor))
        try:
            await task()
        finally:
            _inherited.reset(token)

    async def failed(self, task: BackgroundTask, exc: Exception, requests: int) -> None:
        """Give a failure to `on_error` or collect it; raise it where it ends the run.

        A cancellation requested since there were `requests` of them means that this run is being cancelled.
        """
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
        if self.container.fail_fast or _cancel_requests() > requests:
            raise exc
        self.failures.append(exc)


class _Sequence(_Run):
    """Runs tasks one after the other: async ones here, sync ones that stand together in one trip to a thread."""

    async def body(self) -> None:
        tasks = self.tasks
        until = monotonic() + _TURN
        while self.index < len(tasks):
            task = tasks[self.index]
            requests = _cancel_requests()
            try:
                if type(task) is self.threads and task.func is not task._async_func:
                    trip = _Trip(self.draw)
                    await trip.go(self.executor)
                    task = trip.task or task
                    await trip.finish()
                else:
                    self.index += 1
                    if type(task) is self.inline:
                        await (task.func(*task.args, **task.kwargs) if task.kwargs else task.func(*task.args))
                    else:
                        await self.call(task)
            except Exception as exc:
                await self.failed(task, exc, requests)
            if monotonic() >= until:
                await asyncio.sleep(0)
                until = monotonic() + _TURN

    def draw(self) -> BackgroundTask:
        task = self.tasks[self.index]
        if type(task) is not self.threads or task.func is task._async_func:
            raise IndexError
        self.index += 1
        return task


class _Group(_Run):
    """Runs tasks concurrently: an asyncio.Task for each async one, and as many trips to threads as the sync ones need.

    Whoever ends, hands over what comes next, so nobody waits for a count that a task cancelled before its first step
    would leave wrong; should that have happened to the last one, the group is simply entered again.
    """

    def __init__(self, container: BackgroundTasks) -> None:
        super().__init__(container)
        self.context = contextvars.copy_context()
        self.waiting: deque[BackgroundTask] = deque()  # sync tasks handed over, for the next thread to draw
        self.handing_over = False
        self.failing = False

    async def body(self) -> None:
        self.parent = asyncio.current_task()
        self.requests = _cancel_requests()
        try:
            while self.index < len(self.tasks) or self.waiting:
                self.free = self.container.limit or math.inf
                self.queued = 0  # trips that no thread has begun yet
                async with asyncio.TaskGroup() as self.group:
                    await self.hand_over()
        except BaseExceptionGroup as failures:
            if self.container.fail_fast:
                raise
            self.failures.extend(failures.exceptions)

    def stopping(self) -> bool:
        return self.failing or (self.parent is not None and self.parent.cancelling() > self.requests)

    def begin(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        self.context.run(self.group.create_task, coroutine, name=name)

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
                if type(task) is self.threads and task.func is not task._async_func:
                    self.waiting.append(task)
                elif type(task) is self.inline:
                    self.begin(self.attend(task, task.func, task.args, task.kwargs), _task_name(task))
                else:
                    self.begin(self.attend(task, self.call, (task,), {}), _task_name(task))
                if monotonic() >= until:
                    self.send_trip()
                    await asyncio.sleep(0)
                    until = monotonic() + _TURN
        finally:
            self.handing_over = False
        self.send_trip()

    async def attend(
        self, task: BackgroundTask, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Await what runs the task, deal with its failure, hand over what comes next."""
        try:
            await (func(*args, **kwargs) if kwargs else func(*args))
        except asyncio.CancelledError:
            if _cancel_requests():
                raise
        except BaseException as exc:
            try:
                if not isinstance(exc, Exception):
                    raise
                await self.failed(task, exc, 0)
            except BaseException:
                self.failing = True
                # A child that an eager task factory lets fail before the group has taken it in confuses TaskGroup
                # (before 3.13 a cancellation is left behind, since then an error is added): fail a step later.
                if self.handing_over:
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(0)
                raise
        self.free += 1
        if self.index < len(self.tasks):
            await self.hand_over()

    def send_trip(self) -> None:
        """Send one trip to a thread, if there is work for it and no other still waits for its thread."""
        if self.waiting and not self.queued and not self.stopping():
            self.queued += 1
            self.begin(self.travel(), _task_name(self.container))

    def heard(self, trip: _Trip) -> None:
        # Where functions hold the interpreter lock, the loop hears of a trip when its turn is over: they stay on few
        # threads. Where they block, it hears at once, and the trip gets company until all threads of the pool are busy.
        self.queued -= 1
        trip.heard = True
        if not trip.ended:
            self.send_trip()

    async def travel(self) -> None:
        """Run waiting sync tasks in a thread, a turn at a time, until none is left."""
        while True:
            trip = _Trip(self.waiting.popleft, self.loop_is_needed, self.heard)
            await trip.go(self.executor)
            if not trip.heard:
                self.queued -= 1
            self.free += trip.done
            if trip.task is not None or trip.cancelled is not None:
                self.send_trip()  # somebody else draws from now on: what is left of this task may take its time
                task = trip.task or self.container
                me = asyncio.current_task()
                if me is not None:
                    me.set_name(_task_name(task))
                await self.attend(task, trip.finish, (), {})
            elif self.index < len(self.tasks):
                await self.hand_over()
            if not self.waiting or self.stopping():
                return
            self.queued += 1

    def loop_is_needed(self) -> bool:
        return self.index < len(self.tasks)


# ---- sync functions


class _Trip:
    """One trip to a thread, which calls functions there until it has to tell the loop something.

    It ends after a turn of a millisecond, at a failure, at an awaitable, when `draw` raises IndexError or `enough()` is
    true, and when it is cancelled.
    """

    __slots__ = (
        "draw", "enough", "on_begin", "context", "loop", "begin", "end", "wake", "stop", "ended", "heard", "done",
        "task", "result", "failure", "cancelled",
    )  # fmt: skip

    def __init__(
        self,
        draw: Callable[[], BackgroundTask],
        enough: Callable[[], bool] | None = None,
        on_begin: Callable[[_Trip], None] | None = None,
    ) -> None:
        self.draw = draw
        self.enough = enough
        self.on_begin = on_begin
        self.context = contextvars.copy_context()
        self.loop = asyncio.get_running_loop()
        self.begin = threading.Lock()  # whoever acquires it first decides: the thread begins, or never will
        self.end = threading.Lock()  # whoever acquires it last knows that the other has been there
        self.wake: asyncio.Future[None] = None  # type: ignore[assignment]
        self.stop = False
        self.ended = False
        self.heard = False
        self.done = 0
        self.task: BackgroundTask | None = None
        self.result: Any = None
        self.failure: BaseException | None = None
        self.cancelled: asyncio.CancelledError | None = None

    async def go(self, executor: Executor | None) -> None:
        """Travel there and back. Returns when nothing of it is running, however often the caller is cancelled."""
        if _cancel_requests():
            await asyncio.sleep(0)  # a cancellation still to be delivered comes here, not disguised as a dropped call
        requests = _cancel_requests()
        try:
            await self.loop.run_in_executor(executor or _pool(), self.travel)
        except asyncio.CancelledError as exc:
            self.stop = True
            if self.begin.acquire(blocking=False):
                if _cancel_requests() > requests:
                    self.cancelled = exc
                else:
                    self.refused(RuntimeError("the executor was shut down and has dropped the call"))
                return
            self.cancelled = exc
            self.wake = self.loop.create_future()
            if self.end.acquire(blocking=False):
                while not self.wake.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([self.wake])
        except Exception as exc:
            self.refused(exc)

    def refused(self, exc: Exception) -> None:
        """The executor takes no calls: this is the failure of the next task."""
        with suppress(IndexError):
            self.task = self.draw()
            self.failure = exc

    def travel(self) -> None:
        if not self.begin.acquire(blocking=False):
            return
        if self.on_begin is not None:
            self.loop.call_soon_threadsafe(self.on_begin, self)
        with suppress(IndexError):
            self.call_functions()
        self.ended = True
        if not self.end.acquire(blocking=False):
            self.loop.call_soon_threadsafe(self.wake.set_result, None)

    def call_functions(self) -> None:
        until = monotonic() + _TURN
        while not self.stop:
            task = self.draw()
            try:
                result = self.context.copy().run(task.func, *task.args, **task.kwargs)
            except BaseException as exc:
                self.task = task
                self.failure = _fit_for_coroutine(exc)
                return
            if result is not None and inspect.isawaitable(result):
                self.task = task
                self.result = result
                return
            self.done += 1
            if monotonic() >= until or (self.enough is not None and self.enough()):
                return

    async def finish(self) -> None:
        """Raise or await what the thread has left to the loop."""
        failure, self.failure = self.failure, None
        try:
            if failure is not None:
                raise failure
            if self.cancelled is not None:
                _discard(self.result)
                raise self.cancelled
            if self.result is not None:
                await self.result
        finally:
            del failure  # it would hold this frame, which its traceback holds


async def _call_sync(task: BackgroundTask) -> None:
    executor = _executor_of(task)
    if _is_foreign(executor):
        await _call_elsewhere(task, executor)
    else:
        trip = _Trip([task].pop)
        await trip.go(executor)
        await trip.finish()


async def _call_elsewhere(task: BackgroundTask, executor: Executor) -> None:
    """Run a task on an executor that takes neither a lock nor a context, only the function and its arguments."""
    # Not run_in_executor: its future, once cancelled, tells no more whether the call is queued, running or done.
    loop = asyncio.get_running_loop()
    func = functools.partial(task.func, **task.kwargs) if task.kwargs else task.func
    call = executor.submit(func, *task.args)
    cancelled: asyncio.CancelledError | None = None
    while not call.done():
        done = asyncio.Event()
        call.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
        try:
            await done.wait()
        except asyncio.CancelledError as exc:
            cancelled = exc
            call.cancel()
    if call.cancelled():
        raise cancelled or RuntimeError("the executor was shut down and has dropped the call")
    failure = call.exception()
    if failure is not None:
        raise _fit_for_coroutine(failure)
    if cancelled is not None:
        _discard(call.result())
        raise cancelled
    if inspect.isawaitable(call.result()):
        await call.result()


def _fit_for_coroutine(exc: BaseException) -> BaseException:
    """A StopIteration would end a coroutine, a CancelledError would pass for the caller's own cancellation."""
    if isinstance(exc, (StopIteration, asyncio.CancelledError)):
        fit = RuntimeError(f"the function raised {type(exc).__name__}")
        fit.__cause__ = exc
        return fit
    return exc


def _discard(result: object) -> None:
    """Close an awaitable that nobody will await, or cancel it if it is a future."""
    if inspect.isawaitable(result):
        give_up = getattr(result, "close", None) or getattr(result, "cancel", None)
        if give_up is not None:
            give_up()


_TURN: Final = 0.001  # seconds for which the event loop may be kept from other work
_pools: Final[dict[int, ThreadPoolExecutor]] = {}
_inherited: Final[contextvars.ContextVar[tuple[object, Executor] | None]] = contextvars.ContextVar(
    "background_executor", default=None
)


def _pool() -> ThreadPoolExecutor:
    """The module's own pool of this process: a forked child has none of its parent's threads."""
    pid = os.getpid()
    return _pools.get(pid) or _pools.setdefault(pid, ThreadPoolExecutor(40, thread_name_prefix="background"))


def _executor_of(task: BackgroundTask, own: Executor | None = None) -> Executor | None:
    inherited = _inherited.get()
    if own is None and inherited is not None and inherited[0] is task:
        return inherited[1]
    return own


def _is_foreign(executor: Executor | None) -> TypeGuard[Executor]:
    """Whether an executor may have other processes (or interpreters, from 3.14), which share no objects with us."""
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return executor is not None and (not isinstance(executor, ThreadPoolExecutor) or isinstance(executor, interpreters))


def _cancel_requests() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


# ---- what a function is, and its name


def _is_async(func: Callable[..., object]) -> bool:
    """Whether calling `func` gives a coroutine; TypeError if it cannot be called or calling it would run nothing."""
    if type(func) is FunctionType and not func.__dict__:  # the common case, ten times as fast as what follows
        flags = func.__code__.co_flags
        if not flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
            return bool(flags & inspect.CO_COROUTINE)
    if not callable(func):
        if isinstance(func, Coroutine):
            func.close()
            raise TypeError(
                "func must be callable, got a coroutine object: pass the function and its arguments, "
                "BackgroundTask(send, 1), not BackgroundTask(send(1))"
            )
        raise TypeError(f"func must be callable, got {_described(func)}: pass a function and its arguments")
    inner = func
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isclass(inner):
        return False
    for candidate in (inner, type(inner).__call__):
        if inspect.isasyncgenfunction(candidate) or inspect.isgeneratorfunction(candidate):
            code = getattr(candidate, "__code__", None)
            if not code.co_flags & inspect.CO_ITERABLE_COROUTINE:
                raise TypeError(f"func must not be a generator function, got {_name(func)}: calling it runs nothing")
        if _iscoroutinefunction(candidate):
            return True
    return False


# inspect does not know the marks that AsyncMock and Cython use before 3.14; asyncio's function is deprecated since then.
_iscoroutinefunction = inspect.iscoroutinefunction if sys.version_info >= (3, 14) else asyncio.iscoroutinefunction


def _described(value: object) -> str:
    """What was given, by its type: a value may hold what must not stand in a log."""
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"an object of type {type(value).__qualname__}"


def _name(func: object) -> str:
    """The dotted name of a function, or of the class of an object without one; never its arguments."""
    while isinstance(func, functools.partial):
        func = func.func
    if isinstance(func, BackgroundTask):
        return _task_name(func)
    qualname = getattr(func, "__qualname__", None)
    if not isinstance(qualname, str):
        func = type(func)
        qualname = func.__qualname__
    module = getattr(func, "__module__", None)
    return f"{module}.{qualname}" if isinstance(module, str) else qualname


def _task_name(task: BackgroundTask) -> str:
    if isinstance(task, BackgroundTasks):
        return f"{type(task).__name__}({len(task.tasks)} tasks)"
    return _name(task.func)


def _add_note(exc: Exception, task: BackgroundTask) -> None:
    note = f"raised by {task!r}"
    with suppress(Exception):  # an exception may refuse notes
        if note not in getattr(exc, "__notes__", ()):
            exc.add_note(note)


_original_call = BackgroundTask.__call__
