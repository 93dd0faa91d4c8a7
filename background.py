# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors. Copy this file; keep this notice.
"""Background tasks for asyncio: a call kept for later, and a container of such calls.

A task runs when it is awaited (by a framework, after the response) or started: an async
function on the event loop, any other in a thread. In order, the first failure stops the
rest; in a group, it cancels the others. A cancelled run begins nothing more, waits for
the functions that threads are running, and drops no error.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from asyncio import AbstractEventLoop, CancelledError, Event, Task, TaskGroup  # 3.11
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent import futures
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar, copy_context
from itertools import islice, takewhile
from threading import get_ident
from time import monotonic
from types import FunctionType
from typing import Any, Final, ParamSpec

__all__ = ("BackgroundTask", "BackgroundTasks", "drain")
__version__ = "2.0.0"

P = ParamSpec("P")


class BackgroundTask:
    """A call kept for later: `await task()` runs `func(*args, **kwargs)`, returns None.

        task = BackgroundTask(send_email, "ada@example.org", subject="Welcome")

    An async function runs on the event loop, any other callable in a thread, in a copy of
    the caller's context; an awaitable that it returns is then awaited. It may run again.
    A failure is raised as it is, with a note that names the function; a StopIteration or
    asyncio.CancelledError of a sync function as the cause of a RuntimeError. TypeError
    for what cannot be called, or would run nothing.

    Cancellation: an async function is cancelled; one still queued for a thread never
    begins; one that a thread is running cannot be stopped: the `await` ends when it has
    ended. `asyncio.wait({task.start()}, timeout=1)` stops the waiting, not the work.
    """

    def __init__(
        self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        self.func: Callable[..., Any] = func
        self.args: tuple[Any, ...] = args
        self.kwargs: dict[str, Any] = kwargs
        self.is_async: bool = _is_async(func)

    async def __call__(self) -> None:
        """Run the function. Where a subclass overrides this, containers run it so."""
        try:
            if self.is_async and not self.kwargs:
                await self.func(*self.args)  # (faster)
            elif self.is_async:
                await self.func(*self.args, **self.kwargs)
            else:
                await _in_executor(self.func, *self.args, **self.kwargs)
        except Exception as exc:
            _blame(self, exc)
            raise

    def start(self) -> Task[None]:
        """Run it now, in the background of the running event loop (else RuntimeError).

        The asyncio.Task is kept referenced, and a failure that nobody awaits reported.
        """
        return _start(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_name(self)})"


class BackgroundTasks(BackgroundTask):
    """A list of tasks that run in order or as a group; itself a task, so they nest.

        tasks = BackgroundTasks(on_error=lambda task, exc: log.error("%r", task))
        tasks.add_task(send_email, "ada@example.org")

    tasks: any iterable, copied. What a running task adds runs in the same run.
    as_group: whether `await tasks()` runs them concurrently.
    limit: how many tasks of a group run at a time, from 1; None: all.
    fail_fast: whether a failure stops the run, or all are raised in one ExceptionGroup.
    on_error: sync or async, called on the loop with task and exception for each failure.
        If it returns, that is dealt with; what it raises takes its place.
    executor: for the sync functions, also of what is awaited within the run and has none
        of its own; None: that of the run around it, else a pool of 40 threads. Only a
        ThreadPoolExecutor gets the context.

    TypeError or ValueError for what is none of this, when made and again when run.
    Cancellation: what has not begun never begins, what runs ends as in BackgroundTask;
    failures collected before are raised, not lost, and no more are isolated.
    """

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
        self.tasks: list[BackgroundTask] = _listed(() if tasks is None else tasks)
        self.as_group = as_group
        self.limit = limit
        self.fail_fast = fail_fast
        self.on_error = on_error
        self.executor = executor
        self.args, self.kwargs, self.is_async = (), {}, True
        _check(self)

    @property  # (stored, it would be a cycle, and stale once `as_group` is changed)
    def func(self) -> Callable[..., Any]:  # type: ignore[override]
        """The method that `await tasks()` runs."""
        return self.run_as_group if self.as_group else self.run_single

    def add_task(
        self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Append BackgroundTask(func, *args, **kwargs); raises what that raises."""
        self.tasks.append(BackgroundTask(func, *args, **kwargs))

    async def run_single(self) -> None:
        """Run the tasks one after the other; a failure that ends this is raised as is."""
        with _Run(self, in_order=True) as run:
            while await run.work():
                async with _Group() as run.group:
                    await run.fill()

    async def run_as_group(self) -> None:
        """Run the tasks concurrently, on asyncio.TaskGroup, handed over in order: the
        first failure cancels the others, all are raised in one ExceptionGroup."""
        with _Run(self) as run:
            async with _Group() as run.group:
                await run.fill()

    async def __call__(self) -> None:
        """Run the tasks, as a group if `as_group`, otherwise one after the other."""
        await self.func()

    def __repr__(self) -> str:
        return _name(self)


async def drain() -> None:
    """Wait until everything started on the running event loop has ended.

    Tasks started meanwhile are included, none of their errors is raised. From inside a
    started task, it waits neither for that one nor for others that are in drain(), so it
    cannot deadlock. Cancellation ends the waiting, not the tasks: use asyncio.timeout.
    """
    started = _started.setdefault(asyncio.get_running_loop(), {})
    inside = [mark for mark in _marks.get() if mark in started]
    skipped = _draining if inside else []
    _draining.extend(inside)
    try:
        while others := [t for mark, t in started.items() if t and mark not in skipped]:
            await asyncio.wait(others)
    finally:
        for mark in inside:
            _draining.remove(mark)


# A run of a container

_TURN: Final = 0.001  # seconds for which a run may keep the event loop from other work
_AT_ONCE: Final = 16  # steps that a group takes before it lets the loop in

# How many trips may be on their way to threads that have not begun them. While functions
# hold the interpreter lock, the loop hears that one has begun when they are over: few
# threads stand in its way. While they block, it hears at once, until all are busy.
_ON_THEIR_WAY: Final = 4

# The executor in force: that of the innermost run which has one.
_executor: ContextVar[Executor | None] = ContextVar("executor", default=None)


class _Run(AbstractContextManager["_Run"]):
    """One `await container()`, which raises on leaving what its tasks have.

    A sequence that fails fast awaits its tasks itself, until a thread can run several.
    All else are members of a TaskGroup, whose body begins them and stays until the last
    has ended. They raise nothing: so nobody but the body's caller cancels it, and it
    calls no function of a user. When its `cancelling()` has grown, the run is being
    cancelled; elsewhere that count is not to be trusted.
    """

    group: _Group
    position = 0  # of the next task
    unbegun = 0  # tasks of members that were cancelled before they began
    failing = False
    end: BaseException | None = None  # what is raised as it is, in no group

    def __init__(self, container: BackgroundTasks, in_order: bool = False) -> None:
        _listed(container.tasks, list)
        _check(container)
        self.container = container
        self.tasks = container.tasks
        self.in_order = in_order
        self.directly = in_order and container.fail_fast and container.on_error is None
        self.limit = 1 if in_order else container.limit or sys.maxsize
        executor = _executor.get() if container.executor is None else container.executor
        self.token = _executor.set(executor)
        self.in_threads = _has_threads(executor)
        self.parent = asyncio.current_task()
        self.waiting: deque[BackgroundTask] = deque()  # for threads, which draw them
        self.members: set[Task[Any]] = set()
        self.on_their_way: set[Task[Any]] = set()  # those that no thread has begun
        self.changed = Event()
        self.failures: list[BaseException] = []

    def __exit__(self, kind: object, exc: BaseException | None, tb: object) -> None:
        with suppress(ValueError):  # when closed from elsewhere, in another context
            _executor.reset(self.token)
        if isinstance(exc, GeneratorExit):
            self.failing = True  # threads go on with no more
            return
        if self.end is None and self.failures:
            self.end = BaseExceptionGroup("failures of background tasks", self.failures)
        self.failures, self.parent = [], None  # (they were cycles,)
        vars(self).pop("group", None)  # (and so was this)
        never = len(self.tasks) - self.position + len(self.waiting) + self.unbegun
        raised = exc if self.end is None else self.end
        if never > 0 and isinstance(raised, Exception):
            tasks = f"task{'s' * (never > 1)} of {_name(self.container)}"
            _add_note(raised, f"{never} {tasks} never began")
        raised = exc = None  # (in a frame through which they leave: cycles)
        if self.end is not None:
            raise vars(self).pop("end")  # (likewise)

    async def work(self) -> bool:
        """Await tasks of a sequence directly; return whether members are needed."""
        if self.failing or not self.directly:
            return not self.failing and self.position < len(self.tasks)
        until = monotonic() + _TURN
        numbered = enumerate(islice(self.tasks, self.position, None), self.position + 1)
        for self.position, task in numbered:
            try:
                if type(task) is BackgroundTask and task.is_async:
                    func, args, kwargs = task.func, task.args, task.kwargs
                    # (an empty **kwargs would take a twelfth of the time)
                    await (func(*args, **kwargs) if kwargs else func(*args))
                elif self.for_thread(task) and self.position < len(self.tasks):
                    self.waiting.append(task)  # of several, one thread can run many
                    return True
                else:
                    await task()
            except Exception as exc:
                _blame(task, exc)
                raise
            if monotonic() >= until:
                await asyncio.sleep(0)
                until = monotonic() + _TURN
        return False

    async def fill(self) -> None:
        """Begin members of the TaskGroup, and stay in its body until they have ended."""
        self.requests = _cancelling(self.parent)
        try:
            if self.requests:
                await asyncio.sleep(0)  # a cancellation to be delivered comes first
            while True:
                self.changed.clear()
                if self.stopping():
                    await asyncio.sleep(0)  # (likewise)
                    raise CancelledError  # and end those that are running
                if all(self.begin_next() for _ in range(_AT_ONCE)):
                    await asyncio.sleep(0)
                elif self.members:
                    await self.changed.wait()
                else:
                    break
        except CancelledError:
            self.failing = True
            for member in self.members:
                member.cancel()
            await _wait_on(self.changed, lambda: not self.members)
            if self.end is None and not self.failures:
                raise

    def cancelling(self) -> bool:
        return _cancelling(self.parent) > self.requests

    def stopping(self) -> bool:
        return self.failing or self.cancelling()

    def for_thread(self, task: BackgroundTask) -> bool:
        return self.in_threads and type(task) is BackgroundTask and not task.is_async

    def begin_next(self) -> bool:
        """Queue sync tasks that come next, or begin a member; whether there was any."""
        if self.stopping():  # (an eager one has failed)
            return False
        ahead = self.tasks[self.position : self.position + _AT_ONCE]
        queued = list(takewhile(self.for_thread, ahead))
        self.position += len(queued)
        self.waiting.extend(queued)
        if queued or len(self.members) >= self.limit:
            return bool(queued)
        sendable = self.waiting and len(self.on_their_way) < _ON_THEIR_WAY
        task = self.draw() if sendable else None
        # (under a limit, those that wait for threads come first)
        in_turn = self.limit == sys.maxsize or not self.waiting
        if task is None and ahead and in_turn and not self.directly:
            task = ahead[0]
            self.position += 1
        if task is None:
            return False
        name, work = _name(task), self.run([task])
        member = self.group.create_task(work, name=name)
        self.members.add(member)
        if self.for_thread(task):
            self.on_their_way.add(member)
        member.add_done_callback(self.has_ended)
        return True

    async def run(self, tasks: list[BackgroundTask]) -> None:
        """What a member does; `collect` has its failures, it raises none."""
        if self.cancelling():
            raise CancelledError  # which it has not been told of yet
        try:
            try:
                if self.for_thread(tasks[0]):
                    member = asyncio.current_task()
                    await _in_executor(self.call_functions, tasks, member)
                else:
                    await tasks[0]()
            except Exception as exc:
                _blame(tasks[-1], exc)
                on_error = None if self.stopping() else self.container.on_error
                with suppress(CancelledError):  # which leaves the failure as it is
                    if on_error is not None:
                        await _settle(on_error(tasks[-1], exc))
                        return
                raise
        except BaseException as exc:  # noqa: BLE001
            self.collect(tasks[-1], exc)

    def call_functions(self, tasks: list[BackgroundTask], member: Task[Any]) -> object:
        """In a thread: one after the other, until the loop is needed or a turn over."""
        loop = member.get_loop()
        _tell(loop, self.has_begun, member)
        until = monotonic() + _TURN  # by the clock: who has blocked has had a turn, too
        while True:
            task = tasks[-1]
            returned = copy_context().run(task.func, *task.args, **task.kwargs)
            if _is_for_the_loop(returned):
                _tell(loop, member.set_name, _name(task))
                return returned
            if self.position < len(self.tasks):  # it may have added some
                _tell(loop, self.changed.set)
            over = monotonic() >= until or loop.is_closed()
            if over or (drawn := self.draw()) is None:
                return returned
            tasks.append(drawn)

    def collect(self, task: BackgroundTask, exc: BaseException) -> None:
        _blame(task, exc)
        isolated = isinstance(exc, Exception) and not self.container.fail_fast
        cancelled = isinstance(exc, CancelledError)
        if cancelled and (self.stopping() or not self.in_order):
            return  # a member of a group may be cancelled on its own
        self.failing = self.failing or not isolated
        alone = self.in_order or isinstance(exc, KeyboardInterrupt | SystemExit)
        if isolated or not alone:
            self.failures.append(exc)
        elif not cancelled or not self.failures:
            self.end = exc

    def draw(self) -> BackgroundTask | None:
        """A task that waits, if any may still begin; also called by threads."""
        with suppress(IndexError):
            return None if self.stopping() else self.waiting.popleft()
        return None

    def has_begun(self, member: Task[Any]) -> None:
        self.on_their_way.discard(member)
        self.changed.set()

    def has_ended(self, member: Task[Any]) -> None:
        self.unbegun += member.cancelled() or member in self.on_their_way
        self.members.discard(member)
        self.has_begun(member)


class _Group(TaskGroup):
    """A TaskGroup that is silent when its coroutine is closed, maybe after the loop."""

    async def __aexit__(self, _: object, exc: BaseException | None, tb: object) -> None:
        if not isinstance(exc, GeneratorExit):
            kind = None if exc is None else type(exc)
            await super().__aexit__(kind, exc, None)


# A trip to an executor

# Which thread a context was made for, and how deep that is in threads, each of which may
# run an event loop of its own. Threads copy their context into other ones, too.
_depth: ContextVar[tuple[int, int]] = ContextVar("depth", default=(0, 0))
_pools: Final[dict[tuple[int, int], ThreadPoolExecutor]] = {}


def _pool(depth: int) -> ThreadPoolExecutor:
    """The module's threads; a forked child has none of its parent's."""
    key = os.getpid(), depth
    if key not in _pools:
        _pools.setdefault(key, ThreadPoolExecutor(40, "background"))
    return _pools[key]


async def _in_executor(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """Call it in the executor in force; wait, however often cancelled; then settle."""
    requests = _cancelling(asyncio.current_task())
    if requests:
        await asyncio.sleep(0)  # a cancellation still to be delivered comes first
    cancellation = None
    call, handed = _hand_over(func, args, kwargs)
    try:
        try:
            await handed
        except CancelledError as exc:
            if _cancelling(asyncio.current_task()) > requests:
                cancellation = exc.with_traceback(None)
            done = _end_of(call)
            call.cancel()  # if it has not begun
            await _wait_on(done, done.is_set)
        if call.cancelled():
            raise cancellation or RuntimeError("dropped: the executor was shut down")
        try:
            call.result()
        except (StopIteration, CancelledError) as exc:  # no coroutine can raise them
            raise RuntimeError(f"the function raised {type(exc).__name__}") from exc
        await _settle(call.result(), cancellation is not None)
        if cancellation is not None:
            raise cancellation
    finally:
        del call, handed, cancellation  # (of a failure, they would make a cycle)


def _hand_over(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Future[Any], Awaitable[object]]:
    """The call, whose cancel() tells whether it has begun, and what to wait for."""
    executor = _executor.get()
    if executor is not None and not _has_threads(executor):
        if kwargs:  # whose names are the function's own, not the executor's
            func = functools.partial(func, **kwargs)
        call = executor.submit(func, *args)
        return call, _end_of(call).wait()
    loop, context, call = asyncio.get_running_loop(), copy_context(), Future[Any]()
    context.run(_executor.set, None)  # a loop that runs in the thread inherits none
    thread, depth = _depth.get()
    depth = depth if thread == get_ident() else 0

    def in_thread() -> None:
        nonlocal call
        try:
            if not loop.is_closed() and call.set_running_or_notify_cancel():
                context.run(_depth.set, (get_ident(), depth + 1))
                call.set_result(context.run(func, *args, **kwargs))
        except BaseException as exc:  # noqa: BLE001
            call.set_exception(exc)
        finally:
            del call  # (kept by the executor or a frame of a failure: a cycle)

    try:
        pool = _pool(depth) if executor is None else executor
        return call, loop.run_in_executor(pool, in_thread)
    except RuntimeError:
        call.cancel()  # where no thread could be started, it stays in the queue
        raise


def _end_of(call: Future[Any]) -> Event:
    done, loop = Event(), asyncio.get_running_loop()
    call.add_done_callback(lambda _: _tell(loop, done.set))
    return done


def _is_for_the_loop(returned: object) -> bool:
    generates = inspect.isgenerator(returned) or inspect.isasyncgen(returned)
    return generates or inspect.isawaitable(returned)


async def _settle(returned: Any, cancelled: bool = False) -> None:
    """Await what a function has returned, or close it, if it is for the loop."""
    try:
        if inspect.isawaitable(returned) and not cancelled:
            await returned
        elif inspect.isawaitable(returned):
            close = getattr(returned, "close", getattr(returned, "cancel", None))
            await _settle(close and close())  # (which may be async, too)
        elif _is_for_the_loop(returned):
            kind = type(returned).__name__
            await returned.aclose() if hasattr(returned, "aclose") else returned.close()
            raise TypeError(f"the function returned a {kind}: nothing of it has run")
    finally:
        del returned  # (a failed future would be in a cycle)


def _has_threads(executor: Executor | None) -> bool:
    """Whether a context can follow a call there; not to another interpreter."""
    return executor is None or (
        isinstance(executor, ThreadPoolExecutor)
        and not isinstance(executor, getattr(futures, "InterpreterPoolExecutor", ()))
    )


async def _wait_on(changed: Event, ended: Callable[[], bool]) -> None:
    """After a cancellation, however often it comes: a scope of anyio does so in every
    turn of the loop, unless one is shielded from it."""
    scope = getattr(sys.modules.get("anyio"), "CancelScope", None)
    with scope(shield=True) if scope else nullcontext():
        while not ended():
            changed.clear()
            with suppress(CancelledError):
                await changed.wait()


def _cancelling(task: Task[Any] | None) -> int:
    return 0 if task is None else task.cancelling()


def _tell(loop: AbstractEventLoop, func: Callable[..., None], *args: Any) -> None:
    """From a thread; a loop that was closed meanwhile need not be told any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(func, *args)


# Started tasks

_started: Final[dict[AbstractEventLoop, dict[object, Task[None] | None]]] = {}

# A mark stands for a started task in the contexts of what runs inside of it, where the
# asyncio task would be a cycle.
_marks: ContextVar[tuple[object, ...]] = ContextVar("marks", default=())
_draining: Final[list[object]] = []  # marks of what waits in drain()


def _start(task: BackgroundTask) -> Task[None]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError as exc:
        _add_note(exc, "call start() on the event loop, or hand the task to a response")
        raise
    for other in list(_started):
        if other.is_closed():  # what has not ended there never will
            _started.pop(other, None)
    started = _started.setdefault(loop, {})
    mark, name, context = object(), _name(task), copy_context()
    outer = [other for other in _marks.get() if other in started]
    context.run(_marks.set, (*outer, mark))
    context.run(_executor.set, None)  # what is started within a run is no part of it
    started[mark] = None  # (an eager task may ask before it is there)
    started[mark] = running = context.run(loop.create_task, task(), name=name)
    running.add_done_callback(lambda _: started.pop(mark))
    return running


# Checks and names

_ADVICE: Final = "pass the function and its arguments, BackgroundTask(send, 1)"
_GENERATES: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _is_async(func: Any) -> bool:
    """Whether calling it gives a coroutine; TypeError for what can be no task."""
    if type(func) is FunctionType and not func.__dict__:  # most are, and this is quick
        flags = func.__code__.co_flags
        if not flags & _GENERATES:
            return flags & inspect.CO_COROUTINE != 0
    if not callable(func):
        raise _wrong("func", "callable", func, _ADVICE)
    while isinstance(func, functools.partial):
        func = func.func
    for candidate in () if isinstance(func, type) else (func, type(func).__call__):
        flags = getattr(getattr(candidate, "__code__", None), "co_flags", 0)
        if flags & _GENERATES and not flags & inspect.CO_ITERABLE_COROUTINE:
            got = f"got {_name(func)}: calling it runs nothing"
            raise TypeError(f"func must not be a generator function, {got}")
        if inspect.iscoroutinefunction(candidate):
            return True
    return False


def _listed(tasks: Any, kind: Any = Iterable) -> list[BackgroundTask]:
    """A copy, if all of them are tasks; else TypeError."""
    wanted = "an iterable of BackgroundTask"
    if not isinstance(tasks, kind):
        raise _wrong("tasks", wanted, tasks, "pass a list")
    copy = list(tasks)
    others = [task for task in copy if not isinstance(task, BackgroundTask)]
    # (all of them: it closes coroutines)
    errors = [_wrong("tasks", wanted, other, "wrap it in one") for other in others]
    if errors:
        raise errors[0]
    return copy


def _check(container: Any) -> None:
    """TypeError or ValueError for what can be no option: when made, and when run."""
    limit, on_error, executor = container.limit, container.on_error, container.executor
    for option in ("as_group", "fail_fast"):
        if not isinstance(given := getattr(container, option), bool):
            raise _wrong(option, "a bool", given, "all tasks go into one list")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise _wrong("limit", "an int, or None for no limit", limit)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, or None for no limit, got {limit}")
    if on_error is not None and not callable(on_error):
        raise _wrong("on_error", "callable as on_error(task, exception)", on_error)
    if executor is not None and not isinstance(executor, Executor):
        raise _wrong("executor", "a concurrent.futures.Executor object", executor)


def _wrong(option: str, wanted: str, given: Any, way_out: str = "") -> TypeError:
    if inspect.iscoroutine(given):
        given.close()  # (or Python would warn, too, that it was never awaited)
        way_out = _ADVICE
    got = f"got a {_name(type(given))} object{way_out and ': '}{way_out}"
    return TypeError(f"{option} must be {wanted}, {got}")


def _name(thing: Any) -> str:
    """The dotted name of a function, or of the class of what has no name."""
    if isinstance(thing, BackgroundTasks):
        return f"{type(thing).__name__}({len(thing.tasks)} tasks)"
    if issubclass(type(thing), (BackgroundTask, functools.partial)):
        return _name(thing.func)
    if not isinstance(getattr(thing, "__qualname__", None), str):
        return _name(type(thing))
    module, name = getattr(thing, "__module__", None), str(thing.__qualname__)
    return f"{module}.{name}" if isinstance(module, str) else name


def _blame(task: BackgroundTask, exc: BaseException) -> None:
    if isinstance(exc, Exception) and not isinstance(task, BackgroundTasks):
        with suppress(Exception):  # (a subclass has its own repr)
            _add_note(exc, f"raised by {task!r}")


def _add_note(exc: BaseException, note: str) -> None:
    with suppress(Exception):  # an exception may refuse notes
        if note not in getattr(exc, "__notes__", ()):
            exc.add_note(note)
