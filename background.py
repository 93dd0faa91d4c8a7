# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors. Copy this file; keep this notice.
"""Background tasks for asyncio: a call kept for later, and a container of such calls.

A task runs when it is awaited (by a framework, after the response) or started. In a
sequence, the first failure stops the rest; in a group, it cancels the others. A run
that is cancelled begins nothing more, waits for what threads run, and drops no error.
"""

import asyncio
import functools
import inspect
import os
import sys
from asyncio import AbstractEventLoop, CancelledError, Event, Task, TaskGroup  # 3.11
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from contextvars import Context, ContextVar, copy_context
from operator import length_hint
from threading import local
from time import monotonic
from types import FunctionType
from typing import Any, Final, ParamSpec

__all__ = ("BackgroundTask", "BackgroundTasks", "drain")
__version__ = "2.0.0"
P = ParamSpec("P")


class BackgroundTask:
    """A call kept for later: `await task()` runs `func(*args, **kwargs)`, returns None.

        task = BackgroundTask(send_email, "ada@example.org", subject="Welcome")

    An async function runs on the event loop; any other callable in a thread, in a copy
    of the caller's context, and an awaitable that it returns is then awaited. It may
    run again. A failure is raised as it is, with a note that names the function; a sync
    one's StopIteration or CancelledError, as the cause of a RuntimeError. What cannot
    be called, or would run nothing, is refused with a TypeError.

    Cancellation: an async function is cancelled; a sync one still queued for a thread
    never begins; one that a thread runs cannot be stopped: the `await` ends when it has
    ended. `asyncio.wait({task.start()}, timeout=1)` stops the waiting, not the work.
    """

    def __init__(self, /, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs):
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
        """Run it now, in the background of the running event loop (else RuntimeError);
        keep the asyncio.Task until it ends, report a failure that nobody awaits."""
        return _start(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_name(self)})"


class BackgroundTasks(BackgroundTask):
    """A list of tasks that run in order or as a group; itself a task, so they nest.

        tasks = BackgroundTasks(on_error=lambda task, exc: log.error("%r", task))
        tasks.add_task(send_email, "ada@example.org")

    tasks: any iterable, copied. What a running task adds runs in the same run.
    as_group: whether `await tasks()` runs them concurrently, or one after the other.
    limit: at most so many tasks of a group run at a time (1 or more); None: no limit.
    fail_fast: whether a failure ends the run; if not, it ends with an ExceptionGroup.
    on_error: sync or async, called on the loop with each failed task and its exception.
        If it returns, the failure is handled; what it raises replaces the failure.
    executor: runs the sync functions, also of what is awaited inside. None: that of the
        run around this one, else 40 threads. Only threads get a copy of the context.

    Wrong options raise TypeError or ValueError, when made and again when run.
    Cancellation: what has not begun never begins, what runs ends as in BackgroundTask.
    Failures so far are raised, not CancelledError; on_error is not called any more.
    """

    def __init__(
        self,
        tasks: Iterable[BackgroundTask] | None = None,
        as_group: bool = False,
        *,
        limit: int | None = None,
        fail_fast: bool = True,
        on_error: Callable[[BackgroundTask, Exception], object] | None = None,
        executor: futures.Executor | None = None,
    ) -> None:
        it: Any = () if tasks is None else tasks
        self.tasks: list[BackgroundTask] = list(it) if hasattr(it, "__iter__") else it
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
        """Run the tasks one after the other; a failure that ends it is raised as is."""
        async with _Run(self, in_order=True) as run:
            await (run.work(run.upcoming) if run.directly else run.fill())

    async def run_as_group(self) -> None:
        """Run the tasks as an asyncio.TaskGroup; an ExceptionGroup has all failures."""
        async with _Run(self) as run:
            await run.fill()

    async def __call__(self) -> None:
        """Run the tasks, as a group if `as_group`, otherwise one after the other."""
        await self.func()

    def __repr__(self) -> str:
        return _name(self)


async def drain() -> None:
    """Wait until everything started on the running event loop has ended.

    Tasks started meanwhile are included; none of their errors is raised. In a started
    task, it waits neither for that one and those around it, nor for others in drain():
    they may wait for it. A cancellation (asyncio.timeout) ends only the waiting.
    """
    started = _started.get(asyncio.get_running_loop(), {})
    inside = [mark for mark in _marks.get() if mark in started]
    skipped = _draining if inside else []
    _draining.extend(inside)
    try:
        while others := [t for mark, t in started.items() if t and mark not in skipped]:
            await asyncio.wait(others)
    finally:
        for mark in inside:
            _draining.remove(mark)


# A run of a container; the executor in force is that of the innermost which has one.
_TURN: Final = 0.001  # seconds for which a run may keep the event loop from other work
_executor: ContextVar[futures.Executor | None] = ContextVar("executor", default=None)


class _Run(TaskGroup):
    """One `await container()`, which raises on leaving what its tasks have raised.

    A sequence that fails fast, without on_error, runs its tasks `directly`. Otherwise
    members of the TaskGroup do; its body, fill(), begins them, stays until they end,
    and calls no function of a user: so once the `cancelling()` of its task has grown,
    the run is being cancelled. A function that runs directly may change that count.
    """

    unbegun = 0  # tasks of members that were cancelled before they began
    failing = False  # whether nothing more may begin
    end: BaseException | None = None  # what is raised as it is, in no group

    def __init__(self, container: BackgroundTasks, in_order: bool = False) -> None:
        super().__init__()
        _check(container)
        self.container = container
        self.tasks = container.tasks
        self.upcoming = iter(container.tasks)
        self.in_order = in_order
        self.directly = in_order and container.fail_fast and container.on_error is None
        self.limit = 1 if in_order else container.limit or sys.maxsize
        executor = _executor.get() if container.executor is None else container.executor
        self.token = _executor.set(executor)
        self.in_threads = executor is None or _has_threads(executor)
        self.loop = asyncio.get_running_loop()
        self.parent = asyncio.current_task()
        self.requests = _cancelling(self.parent)
        self.waiting: deque[BackgroundTask] = deque()  # for threads, which draw them
        self.members: set[Task[Any]] = set()
        self.on_their_way: set[Task[Any] | None] = set()  # not yet begun by threads
        self.failures: list[BaseException] = []

    async def __aexit__(self, _: object, exc: BaseException | None, tb: object) -> None:
        with suppress(ValueError):  # when closed from elsewhere, in another context
            _executor.reset(self.token)
        if isinstance(exc, GeneratorExit):
            return  # closed, maybe after the loop: in silence
        if not self.directly:  # (faster)
            await super().__aexit__(None, None, None)  # (for members, if fill() fails)
        if self.end is None and self.failures:
            self.end = BaseExceptionGroup("failures of background tasks", self.failures)
        if never := length_hint(self.upcoming) + len(self.waiting) + self.unbegun:
            tasks = f"task{'s' * (never > 1)} of {_name(self.container)}"
            note = f"{never} {tasks} never began"
            _add_note(exc if self.end is None else self.end, lambda: note)
        try:
            if self.end is not None:
                raise self.end
        finally:
            vars(self).clear()  # (what is raised would be in cycles)
            del exc

    async def work(self, tasks: Iterable[BackgroundTask]) -> None:
        """Run tasks one after the other: those of a sequence, or that of a member."""
        if _cancelling(self.parent) > self.requests:
            raise CancelledError  # (the run is cancelled, fill() will hear it later)
        caught: Any = () if self.directly else BaseException
        until = monotonic() + _TURN
        for task in tasks:
            if monotonic() >= until:
                await asyncio.sleep(0)
                until = monotonic() + _TURN
            try:
                try:
                    plain = type(task) is BackgroundTask
                    if plain and task.is_async and not task.kwargs:
                        await task.func(*task.args)  # (faster)
                    elif self.for_thread(task):
                        member = None if self.directly else asyncio.current_task()
                        self.requests = _cancelling(self.parent)  # (anew)
                        batch = [task]
                        try:
                            await _in_executor(self.call_each, batch, member)
                        finally:
                            task = batch[-1]  # the one that ran last
                    else:
                        await task()
                except Exception as exc:
                    _blame(task, exc)
                    # (what an executor refuses has failed, and is not left unbegun)
                    self.on_their_way.discard(asyncio.current_task())
                    on_error = None if self.stopping() else self.container.on_error
                    try:  # (`suppress` would take a group of exceptions apart)
                        if on_error is not None:
                            await _settle(on_error(task, exc))
                            continue
                    except CancelledError:  # of on_error: the failure stays as it is
                        pass
                    raise
            except caught as exc:
                _blame(task, exc)
                self.collect(exc)

    async def fill(self) -> None:
        """Begin members of the group, and stay in its body until they have ended."""
        self.changed = Event()
        try:
            await asyncio.sleep(0)  # a cancellation to be delivered comes first
            while not self.stopping():  # (below, too: an eager member may have failed)
                self.changed.clear()
                if all(not self.stopping() and self.begin_next() for _ in range(16)):
                    await asyncio.sleep(0)
                elif self.members:
                    await self.changed.wait()
                else:
                    return
            raise CancelledError  # to end the members, below
        except CancelledError:
            self.failing = True
            for member in self.members:
                member.cancel()
            await _wait_on(self.changed, lambda: not self.members)
            if self.end is None and not self.failures:
                raise

    def begin_next(self) -> bool:
        """Begin or queue the next task; return whether to try for another at once."""
        if self.is_next_for_thread():
            self.waiting.append(next(self.upcoming))
            return True
        if len(self.members) >= self.limit:
            return False
        # At most 4 calls wait for threads to begin them. If functions block, the next
        # soon goes; if they hold the GIL, that is late, and more would swamp the loop.
        drawn = self.draw() if self.waiting and len(self.on_their_way) < 4 else None
        may_overtake = not self.waiting or self.limit == sys.maxsize
        if drawn is None and not (may_overtake and length_hint(self.upcoming)):
            return False
        task = next(self.upcoming) if drawn is None else drawn
        member = self.create_task(name=_name(task), coro=self.work([task]))
        self.members.add(member)
        if drawn is not None and not member.done():
            self.on_their_way.add(member)
        member.add_done_callback(self.has_ended)
        return True

    def draw(self) -> BackgroundTask | None:
        """A task for a thread, if any may still begin; also called by threads."""
        if not self.stopping() and not self.loop.is_closed():
            if self.directly and self.is_next_for_thread():
                return next(self.upcoming)  # (the loop waits meanwhile, no other draws)
            with suppress(IndexError):
                return self.waiting.popleft()
        return None

    def call_each(self, batch: list[BackgroundTask], member: Task[Any] | None) -> Any:
        """In a thread: call one function, and more while the turn lasts."""
        tell = self.loop.call_soon_threadsafe
        if member:
            tell(self.has_begun, member)
        until = monotonic() + _TURN  # (wall time: to block counts, too)
        for task in batch:  # (which grows, below)
            returned = copy_context().run(task.func, *task.args, **task.kwargs)
            if returned is not None and isinstance(returned, _FOR_THE_LOOP):
                if member:
                    tell(member.set_name, _name(task))
                return returned
            if member and length_hint(self.upcoming):  # it may have added some
                tell(self.changed.set)
            if monotonic() < until and (drawn := self.draw()) is not None:
                batch.append(drawn)

    def stopping(self) -> bool:
        return self.failing or _cancelling(self.parent) > self.requests

    def for_thread(self, task: BackgroundTask) -> bool:
        return self.in_threads and type(task) is BackgroundTask and not task.is_async

    def is_next_for_thread(self) -> bool:
        left = length_hint(self.upcoming)
        is_for_one = left > 0 and self.for_thread(self.tasks[-left])  # (a look ahead)
        return is_for_one and left == length_hint(self.upcoming)  # (else look again)

    def collect(self, exc: BaseException) -> None:
        if isinstance(exc, CancelledError):
            self.failing |= self.in_order  # (in a group, one may be so on its own)
        elif isinstance(exc, Exception) and not self.container.fail_fast:
            self.failures.append(exc)
        elif self.in_order or isinstance(exc, KeyboardInterrupt | SystemExit):
            self.failing, self.end = True, exc
        else:
            self.failing = True
            self.failures.append(exc)

    def has_begun(self, member: Task[Any]) -> None:
        self.on_their_way.discard(member)
        self.changed.set()

    def has_ended(self, member: Task[Any]) -> None:
        self.unbegun += member.cancelled() or member in self.on_their_way
        self.members.discard(member)
        self.has_begun(member)


# A trip to an executor; the module's threads are kept by process and depth.
_pools: Final[dict[tuple[int, int], ThreadPoolExecutor]] = {}
_here: Final = local()  # depth: how many loops, each in a thread of the one before
_FOR_THE_LOOP: Final[Any] = (Awaitable, Generator, AsyncGenerator)


async def _in_executor(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """Call it in the executor in force, wait even if cancelled, await its result."""
    if requests := _cancelling(asyncio.current_task()):
        await asyncio.sleep(0)  # a cancellation still to be delivered comes first
    func = functools.partial(func, **kwargs) if kwargs else func  # (not submit's)
    loop, executor = asyncio.get_running_loop(), _executor.get()
    if executor is None:
        at = os.getpid(), getattr(_here, "depth", 0)  # (of two made at once, one goes)
        executor = _pools[at] = _pools.get(at) or ThreadPoolExecutor(40, "background")
    context = copy_context()
    context.run(_executor.set, None)  # a loop in a thread or process inherits none
    call: Future[Any] = Future()
    cancellation = failure = None
    try:
        try:
            if _has_threads(executor):
                await loop.run_in_executor(executor, _thunk(call, context, func, *args))
            else:
                call = context.run(executor.submit, func, *args)
                await _end_of(call).wait()
        except CancelledError as exc:
            if _cancelling(asyncio.current_task()) > requests:
                cancellation = exc.with_traceback(None)
            call.cancel()  # if it has not begun
            await _wait_on(_end_of(call), call.done)
        if call.cancelled():
            raise cancellation or RuntimeError("dropped: the executor was shut down")
        failure = call.exception()
        if failure is not None and isinstance(failure, CancelledError):
            raise RuntimeError("no coroutine can raise its cause") from failure
        if failure is not None:  # (result() may lose one that is false)
            raise failure  # (of a StopIteration, Python makes a RuntimeError)
        await _settle(call.result(), cancellation is not None)
        if cancellation is not None:
            raise cancellation
    finally:
        call.cancel()  # where no thread could be started, it would stay in the queue
        del call, cancellation, failure  # (they would make a cycle)


def _thunk(call: Future[Any], context: Context, *func: Any) -> Callable[[], None]:
    """What a thread does for a call, which cancel() stops as long as it is queued."""
    loop, depth = asyncio.get_running_loop(), getattr(_here, "depth", 0) + 1

    def in_thread() -> None:
        nonlocal call
        try:
            if not loop.is_closed() and call.set_running_or_notify_cancel():
                _here.depth = depth
                call.set_result(context.run(*func))
        except BaseException as exc:  # noqa: BLE001
            call.set_exception(exc)
        finally:
            del call  # (kept by the executor or a frame of a failure: a cycle)

    return in_thread


def _end_of(call: Future[Any]) -> Event:
    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop may have been closed meanwhile
            loop.call_soon_threadsafe(end.set)

    end, loop = Event(), asyncio.get_running_loop()
    call.add_done_callback(tell)
    return end


async def _settle(result: Any, cancelled: bool = False) -> None:
    """Await what a function has returned, or close it, if it is for the loop."""
    try:
        awaitable = inspect.isawaitable(result)
        if awaitable and not cancelled:
            await result
        elif isinstance(result, _FOR_THE_LOOP):
            close: Any = getattr(result, "close", getattr(result, "cancel", None))
            close = getattr(result, "aclose", close)
            await _settle(close and close())  # (which may be async, too)
            if not awaitable:
                raise _wrong("result", "no generator", result, "nothing of it has run")
    finally:
        del result  # (a failed future would be in a cycle)


def _has_threads(executor: futures.Executor) -> bool:
    """Whether it calls in threads of this interpreter, where a context can follow."""
    others = getattr(futures, "InterpreterPoolExecutor", ())  # (3.14, a subclass)
    return isinstance(executor, ThreadPoolExecutor) and not isinstance(executor, others)


async def _wait_on(changed: Event, ended: Callable[[], bool]) -> None:
    """Wait whatever cancels it, shielded: a cancelled scope of anyio never stops."""
    scope = getattr(sys.modules.get("anyio"), "CancelScope", None)
    shield = scope(shield=True) if scope else nullcontext()
    shield.__enter__()
    while not ended():
        changed.clear()
        with suppress(CancelledError):
            await changed.wait()
    shield.__exit__(None, None, None)  # (not where it is closed, maybe after the loop)


def _cancelling(task: Task[Any] | None) -> int:
    return 0 if task is None else task.cancelling()


# Started tasks, by event loop and mark; the marks of those around what runs here; those
# that are in drain(). A mark stands for its task, which there would make a cycle.
_started: Final[dict[AbstractEventLoop, dict[object, Task[None] | None]]] = {}
_marks: ContextVar[tuple[object, ...]] = ContextVar("marks", default=())
_draining: Final[list[object]] = []


def _start(task: BackgroundTask) -> Task[None]:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError as exc:
        exc.add_note("call start() on the event loop, or hand the task to a response")
        raise
    for closed in [other for other in list(_started) if other.is_closed()]:
        _started.pop(closed, None)  # what has not ended there never will
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
    for candidate in (func, type(func).__call__):  # (of an object with a __call__)
        flags = getattr(getattr(candidate, "__code__", None), "co_flags", 0)
        if flags & _GENERATES and not flags & inspect.CO_ITERABLE_COROUTINE:
            got = f"got {_name(func)}: calling it runs nothing"
            raise TypeError(f"func must not be a generator function, {got}")
        if inspect.iscoroutinefunction(candidate):
            return True
    return False


def _check(container: Any) -> None:
    """TypeError or ValueError for what can be no option: when made, and when run."""
    tasks: Iterable[Any] = container.tasks
    limit, on_error, executor = container.limit, container.on_error, container.executor
    wanted = "an iterable of BackgroundTask"
    if not isinstance(tasks, list):
        raise _wrong("tasks", wanted, tasks, "pass a list")
    others = [task for task in tasks if not isinstance(task, BackgroundTask)]
    errors = [_wrong("tasks", wanted, other, "wrap it in one") for other in others]
    if errors:  # (one for each of them: _wrong() closes what is a coroutine)
        raise errors[0]
    for option in ("as_group", "fail_fast"):
        if not isinstance(given := getattr(container, option), bool):
            raise _wrong(option, "a bool", given, "all tasks go into one list")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise _wrong("limit", "an int, or None for no limit", limit)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, or None for no limit, got {limit}")
    if on_error is not None and not callable(on_error):
        raise _wrong("on_error", "callable as on_error(task, exception)", on_error)
    if executor is not None and not isinstance(executor, futures.Executor):
        raise _wrong("executor", "a concurrent.futures.Executor object", executor)


def _wrong(option: str, wanted: str, given: Any, way_out: str = "") -> TypeError:
    if inspect.iscoroutine(given):
        given.close()  # (or Python would warn, too, that it was never awaited)
        way_out = _ADVICE
    got = f"got a {_name(type(given))} object{way_out and ': '}{way_out}"
    return TypeError(f"{option} must be {wanted}, {got}")


def _name(thing: Any) -> str:
    """The dotted name of a function, or of the class of what has no name."""
    name: object = getattr(thing, "__qualname__", None)
    if isinstance(name, str):
        module: object = getattr(thing, "__module__", None)
        return f"{module}.{name}" if isinstance(module, str) else name
    if issubclass(type(thing), BackgroundTasks):
        return f"{type(thing).__name__}({len(thing.tasks)} tasks)"
    is_call = issubclass(type(thing), (BackgroundTask, functools.partial))
    return _name(thing.func if is_call else type(thing))


def _blame(task: BackgroundTask, exc: BaseException) -> None:
    if not isinstance(task, BackgroundTasks):
        _add_note(exc, lambda: f"raised by {task!r}")


def _add_note(exc: BaseException | None, note: Callable[[], str]) -> None:
    with suppress(Exception):  # it may refuse notes, and a subclass fail to name itself
        if isinstance(exc, Exception) and note() not in getattr(exc, "__notes__", ()):
            exc.add_note(note())
