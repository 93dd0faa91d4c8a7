# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors
# ruff: noqa: ASYNC110, PT009, PT027
"""The tests of background.py: copy them along with it, and run `python3 -m unittest`."""

import asyncio
import collections
import contextlib
import contextvars
import copy
import faulthandler
import functools
import gc
import inspect
import io
import itertools
import multiprocessing
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
import warnings
import weakref
from concurrent import futures
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from unittest import mock

import background
from background import BackgroundTask, BackgroundTasks, drain

HERE = pathlib.Path(background.__file__).resolve().parent
SECONDS = 20  # until something counts as hanging
EAGER = hasattr(asyncio, "eager_task_factory")  # from Python 3.12 on

GROUP = {"as_group": True}
MODES = {"in order": {}, "as a group": GROUP, "limited": GROUP | {"limit": 2}, "one at a time": GROUP | {"limit": 1}}
GROUPS = ("as a group", "limited", "one at a time")
SIDE_BY_SIDE = ("as a group", "limited")
ONE_BY_ONE = ("in order", "one at a time")

var = contextvars.ContextVar("var", default="default")
gc.freeze()  # what there is now need not be looked at whenever a test collects its garbage


def each(**axes):
    """Run a test once for each combination of values, and give it those that are among its parameters.

    The test of a `container` runs in every mode, or those that are given as `mode`: the parameter makes the container
    to run. That of a `make` runs with the first task on its own, too. Values that are options of a container are its
    options; an executor, a door or a gate is given by its kind. What is among AXES need not be named here, and a new
    `log`, `door`, `gate` or `failure` is given to a parameter of that name.
    """

    def decorate(test):
        test.axes = {name: list(values) for name, values in axes.items()}
        return test

    return decorate


def container(*tasks, **options):
    """A container of tasks, and of functions that take no arguments."""
    made = (task if isinstance(task, BackgroundTask) else BackgroundTask(task) for task in tasks)
    return BackgroundTasks(made, **options)


class Log(list):
    """Functions of four kinds that record what they are given, then raise or return; and one that tells its threads."""

    def sync(self, item=1, raises=None):
        self.append(item)
        if raises is not None:
            raise raises

    async def coro(self, item=1, raises=None):
        self.sync(item, raises)

    async def waiting(self, item=1, raises=None):
        await asyncio.sleep(0)
        self.sync(item, raises)

    def returned(self, item=1, raises=None):
        return self.coro(item, raises)

    def thread(self):
        self.append(threading.current_thread().name.rpartition("_")[0])

    def task(self, kind, item=1, raises=None):
        return BackgroundTask(getattr(self, kind), item, raises)


KINDS = ("sync", "coro", "waiting", "returned")


def failing(kind, exc):
    return Log().task(kind, 1, exc)


class Gate:
    """A function for a thread, which says when it has begun and waits to be let through."""

    def __init__(self, raises=None, returns=None):
        self.begun, self.opened = threading.Event(), threading.Event()
        self.open, self.reached = self.opened.set, partial(until, self.begun.is_set)
        self.raises, self.returns, self.calls, self.ends = raises, returns, [], []

    def __call__(self):
        self.calls.append(threading.get_ident())
        self.begun.set()
        if not self.opened.wait(SECONDS):
            raise TimeoutError("nobody has opened the gate")
        self.ends.append(threading.get_ident())
        if self.raises is not None:
            raise self.raises
        return self.returns


class Door:
    """The same for the event loop; it may fail when it is cancelled, or swallow the cancellation."""

    def __init__(self, raises=None, swallow=False):
        self.begun, self.opened = asyncio.Event(), asyncio.Event()
        self.open, self.reached = self.opened.set, self.begun.wait
        self.cancelled, self.raises, self.swallow = False, raises, swallow

    async def __call__(self):
        self.begun.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            if self.raises is not None:
                raise self.raises from None
            if not self.swallow:
                raise


class Overridden(BackgroundTask):
    state = "made"

    async def __call__(self):
        self.state = "called"
        await super().__call__()
        self.state = "ended"


BLOCKING = (Door, Gate)
TASKS = (BackgroundTask, Overridden)


class Pool(ThreadPoolExecutor):
    """A pool of threads that shows what was submitted; while that is nothing, it is false."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        self.calls.append((fn, args, kwargs))
        return super().submit(fn, *args, **kwargs)

    def __len__(self):
        return len(self.calls)


class Elsewhere(Executor):
    """The same, but no pool of threads as far as anyone can tell."""

    def __init__(self, workers):
        pool = Pool(workers)
        self.calls, self.submit, self.shutdown = pool.calls, pool.submit, pool.shutdown


EXECUTORS = (None, Pool, Elsewhere)


async def until(condition, seconds=SECONDS):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def bounded(awaitable, seconds=SECONDS):
    async with asyncio.timeout(seconds):
        return await awaitable


async def outcome(awaitable):
    """What it raises, which is a TimeoutError if it hangs; None if it returns."""
    try:
        await bounded(awaitable)
    except BaseException as exc:
        return exc


def leaves(exc):
    """The exceptions out of their groups."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in leaves(inner)]
    return [] if exc is None else [exc]


async def raised(awaitable):
    return leaves(await outcome(awaitable))


async def kinds(awaitable):
    return [type(exc) for exc in await raised(awaitable)]


def notes(exc):
    return getattr(exc, "__notes__", [])


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


async def through_threads():
    """Through threads of the module, behind whatever is on its way to them."""
    for _ in range(3):
        await BackgroundTask(int)()


async def through_all_threads():
    """The same when all of them have ended what they did."""
    await container(*[partial(threading.Barrier(40).wait, SECONDS)] * 40, as_group=True)()


async def cancelled(run, times=1):
    for _ in range(times):
        run.cancel()
        await turns()


def spin(seconds=0.0001):
    """Compute for so long, on the clock: so many calls take at least so long on any machine."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def spin_async(seconds=0.0001):
    spin(seconds)


def raises(exc):
    return mock.Mock(side_effect=exc)


def fails():
    raise ValueError("failed")


async def fails_async():
    fails()


async def fails_in_a_task_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(fails_async())


async def raises_another(instead=None):
    try:
        await fails_in_a_task_group()
    except ExceptionGroup as group:
        failure = instead or group.exceptions[0]
    raise failure


async def times_out_as_old_clients_do():
    asyncio.current_task().cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        raise TimeoutError from None


# Ways to make a task or a handler of a function.
def later(func):
    async def calls(*args, **kwargs):
        await asyncio.sleep(0)
        return func(*args, **kwargs)

    return calls


def returned(func):
    return lambda *args, **kwargs: later(func)(*args, **kwargs)


WAYS = (partial, later, returned, lambda func: mock.AsyncMock(side_effect=func))
FAILING = (fails, fails_async, later(fails), returned(fails))
AXES = {"kind": KINDS, "rest": KINDS, "way": WAYS, "func": FAILING, "task": TASKS, "blocking": BLOCKING}
# They leave Task.cancelling() one too high, all but the last before Python 3.13, and fail.
MISCOUNTING = (fails_in_a_task_group, raises_another, partial(raises_another, KeyError()), times_out_as_old_clients_do)


def run_python(*args, logs=False, **options):
    """Run it to its good end; what it prints, which is nothing on its standard error unless it logs."""
    env = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *args]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, env=env, **options)
    if done.returncode or (done.stderr and not logs):
        raise AssertionError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def eager_task_factory(loop, coro, *, name=None, context=None, **_):  # uvloop gives more than it takes
    return asyncio.eager_task_factory(loop, coro, name=name, context=context)


class AsyncTestCase(unittest.IsolatedAsyncioTestCase):
    """Runs its tests with eager tasks too; fails those that hang, or leave something for the event loop to report."""

    def __init_subclass__(cls, eager=EAGER):
        for name, test in list(vars(cls).items()):
            if name.startswith("test"):
                setattr(cls, name, cls.runner(test))
                if eager:
                    setattr(cls, f"{name}_with_eager_tasks", cls.runner(test, eager_task_factory))

    @staticmethod
    def runner(test, factory=None):
        @functools.wraps(test)
        async def run(self):
            if factory is not None:
                self.loop.set_task_factory(factory)
            for subtest, arguments in self.combinations(test):
                with subtest:
                    await bounded(test(self, **arguments), 2 * SECONDS)
                    self.assertEqual(asyncio.current_task().cancelling(), 0)

        return run

    def combinations(self, test):
        """The arguments of a test for each combination of the values of its axes."""
        wanted = inspect.signature(test).parameters
        modes = {"container": {"mode": MODES}, "make": {"mode": ("alone", *MODES)}}
        axes = {}
        for name in wanted:
            axes |= modes.get(name, {name: AXES[name]} if name in AXES else {})
        axes |= getattr(test, "axes", {})
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            given = {"log": Log(), "door": Door(), "gate": Gate(), "failure": ValueError(), **chosen}
            given |= {name: kind() for name, kind in chosen.items() if kind in BLOCKING}
            options = {name: given[name] for name in ("limit", "fail_fast", "on_error") if name in given}
            if given.get("executor"):
                options["executor"] = self.pool(kind=given["executor"])
            given["container"] = given["make"] = self.maker(given.get("mode"), **options)
            yield self.subTest(**chosen), {name: given[name] for name in wanted if name != "self"}

    @staticmethod
    def maker(mode, **options):
        if mode == "alone":
            return lambda *tasks, **_: container(*tasks).tasks[0]
        return partial(container, **MODES.get(mode, {}), **options)

    async def asyncSetUp(self):
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True, file=sys.__stderr__)  # for what ignores cancellation
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        self.reports = []
        self.loop = asyncio.get_running_loop()
        self.loop.slow_callback_duration = SECONDS
        self.loop.set_debug(sys.flags.dev_mode or "PYTHONASYNCIODEBUG" in os.environ)  # unittest always does
        self.many = 100 if self.loop.get_debug() else 1000  # which makes all of it slow
        self.loop.set_exception_handler(lambda _, report: self.reports.append(report))

    async def asyncTearDown(self):
        gc.collect()
        self.assertEqual(self.reports, [])

    def pool(self, workers=1, kind=Pool, **options):
        pool = kind(workers, **options)
        self.addCleanup(pool.shutdown, wait=False, cancel_futures=True)
        return pool

    async def full_pool(self, kind=Pool):
        """A pool, or None for that of the module, whose threads are busy until the gate is opened."""
        pool, gate = kind and self.pool(1, kind), Gate()
        threads = 1 if kind else 40
        container(*[gate] * threads, as_group=True, executor=pool).start()
        await until(lambda: len(gate.calls) == threads)
        if kind:
            pool.calls.clear()
        return pool, gate

    def go(self, run):
        """Run it in an asyncio task of its own."""
        return self.loop.create_task(run())

    async def cancel(self, run, *blocking):
        """Run it, cancel it when what blocks it is reached, then open that; return what the run raises."""
        running = self.go(run)
        for door in blocking:
            await door.reached()
            await cancelled(running)
            door.open()
        return await outcome(running)

    async def open_in_turn(self, running, *blocking):
        """Open them, each when it is reached; until the last is open, it runs."""
        for door in blocking:
            await door.reached()
            await turns()
            self.assertFalse(running.done())
            door.open()
        await bounded(running)

    def without_the_garbage_collector(self):
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

    def assert_cancelled(self, exc):
        self.assertIs(type(exc), asyncio.CancelledError)

    @contextlib.contextmanager
    def silence(self):
        """Nothing is left un-awaited, nor said where nobody can catch it."""
        gc.collect()
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()) as printed:
            warnings.simplefilter("always")
            yield
            gc.collect()
        self.assertEqual(([str(warning.message) for warning in caught], printed.getvalue()), ([], ""))


class Names(AsyncTestCase):
    async def test_the_three_names_that_are_exported_and_their_signatures(self):
        calls = BackgroundTask.__call__, BackgroundTasks.__call__
        runs = *calls, BackgroundTasks.run_single, BackgroundTasks.run_as_group
        options = "tasks=None, as_group=False, *, limit=None, fail_fast=True, on_error=None, executor=None"
        signatures = {
            "(func, *args, **kwargs)": [BackgroundTask],
            "(self, /, func, *args, **kwargs)": [BackgroundTask.__init__, BackgroundTasks.add_task],
            f"({options})": [BackgroundTasks],
            "(self)": [*runs, BackgroundTask.start, BackgroundTasks.start],
            "()": [drain],
        }
        for text, function in ((text, function) for text, functions in signatures.items() for function in functions):
            signature = inspect.signature(function)
            parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            self.assertEqual(str(signature.replace(parameters=parameters, return_annotation=signature.empty)), text)
        self.assertTrue(all(map(inspect.iscoroutinefunction, (*runs, drain))))
        self.assertEqual(len(set(calls)), 2)
        self.assertTrue(issubclass(BackgroundTasks, BackgroundTask))
        self.assertEqual(tuple(background.__all__), ("BackgroundTask", "BackgroundTasks", "drain"))

    async def test_a_task_keeps_the_function_and_its_arguments_also_where_they_are_added(self):
        tasks = BackgroundTasks()
        self.assertIsNone(tasks.add_task(print, 1, 2, sep=""))
        self.assertIsNone(tasks.add_task(func=print))
        for made in ([BackgroundTask(print, 1, 2, sep=""), BackgroundTask(func=print)], tasks.tasks):
            kept = [(type(task), task.func, task.args, task.kwargs) for task in made]
            self.assertEqual(kept, [(BackgroundTask, print, (1, 2), {"sep": ""}), (BackgroundTask, print, (), {})])

    async def test_the_keywords_of_a_task_are_a_dict_of_its_own_that_can_be_changed(self, make, log, way):
        changed, replaced, other = (BackgroundTask(way(lambda **kwargs: log.append(kwargs))) for _ in range(3))
        changed.kwargs["way"] = "changed"
        replaced.kwargs = kept = {}
        kept["way"] = "replaced"
        for task in (changed, replaced, other):
            await make(task)()
        self.assertEqual(log, [{"way": "changed"}, {"way": "replaced"}, {}])
        self.assertIs(replaced.kwargs, kept)

    async def test_a_function_may_take_keywords_of_any_name(self, container, log, way):
        kwargs = dict.fromkeys(["self", "tasks", "task", "fn", "limit", "as_group", "on_error", "executor", "name"], 1)
        func = way(lambda **kwargs: log.append(kwargs))
        await BackgroundTask(func, **kwargs)()
        tasks = container(partial(func, func=1))
        tasks.add_task(func, **kwargs)
        await tasks()
        self.assertCountEqual(log, [kwargs, kwargs, {"func": 1}])

    async def test_the_options_of_a_container_are_its_attributes(self):
        pool, task = self.pool(), BackgroundTask(print)
        given = BackgroundTasks([task], True, limit=3, fail_fast=False, on_error=print, executor=pool)
        names = "tasks", "as_group", "limit", "fail_fast", "on_error", "executor"
        self.assertEqual([getattr(given, name) for name in names], [[task], True, 3, False, print, pool])
        self.assertEqual([getattr(container(), name) for name in names], [[], False, None, True, None, None])

    async def test_the_func_of_a_container_is_the_method_that_runs_it_and_its_keywords_its_own(self, container, mode):
        tasks = container()
        method = tasks.run_as_group if mode in GROUPS else tasks.run_single
        self.assertEqual((tasks.func, tasks.args, tasks.kwargs, tasks.is_async), (method, (), {}, True))
        tasks.kwargs["way"] = "changed"
        self.assertEqual((tasks.kwargs, BackgroundTasks().kwargs), ({"way": "changed"}, {}))

    @each(executor=(None, Pool), fail_fast=(True, False), on_error=(None, print))
    async def test_awaiting_returns_none_from_an_empty_container_too(self, container):
        tasks = container(int, later(int))
        for run in (tasks, tasks.run_single, tasks.run_as_group, *tasks.tasks, container()):
            self.assertIsNone(await run())

    @each(as_group=(False, True), method=("__call__", "run_single", "run_as_group"), second=BLOCKING)
    async def test_as_group_and_the_names_of_the_methods_say_how_it_runs(self, as_group, method, door, second):
        run = self.go(getattr(container(door, second, as_group=as_group), method))
        concurrent = as_group if method == "__call__" else method == "run_as_group"
        await (second if concurrent else door).reached()
        await turns()
        self.assertEqual(second.begun.is_set(), concurrent)
        await self.open_in_turn(run, door, second)

    @each(func=(spin, spin_async))
    async def test_tasks_and_containers_can_be_pickled_and_copied(self, func):
        for copied in (lambda tasks: pickle.loads(pickle.dumps(tasks)), copy.copy, copy.deepcopy):
            tasks = copied(container(func, as_group=True, limit=2))
            self.assertEqual((tasks.tasks[0].func, tasks.limit, tasks.func), (func, 2, tasks.run_as_group))
            await tasks()
            await copied(tasks.tasks[0])()

    @each(call=(partial(BackgroundTask, print), BackgroundTasks))
    async def test_tasks_and_containers_can_be_referenced_weakly_and_go_at_once(self, call):
        self.assertIsNone(weakref.ref(call())())


def function(log):
    log.append(threading.get_ident())


async def coroutine(log):
    function(log)


class SyncCall:
    def __call__(self, log):
        function(log)

    of_class = classmethod(__call__)


class AsyncCall:
    async def __call__(self, log):
        function(log)

    of_class = classmethod(__call__)
    static = staticmethod(coroutine)


@types.coroutine
def old_coroutine(log):
    yield from asyncio.sleep(0).__await__()
    function(log)


class Awaitable:
    def __init__(self, log):
        self.log = log

    def __await__(self):
        return later(function)(self.log).__await__()


decorated = functools.wraps(coroutine)(lambda *args: coroutine(*args))
decorated_by_async = functools.wraps(function)(later(function))
attributed = partial(coroutine)  # which a partial of it does not replace by its function
attributed.name = "attributed"
ASYNC_KINDS = [coroutine, staticmethod(coroutine), partial(coroutine), lambda *args: coroutine(*args), Awaitable]
ASYNC_KINDS += [AsyncCall(), AsyncCall().__call__, AsyncCall.of_class, AsyncCall.static, partial(AsyncCall())]
ASYNC_KINDS += [partial(partial(AsyncCall().__call__)), partial(attributed), old_coroutine, partial(old_coroutine)]
ASYNC_KINDS += [decorated, decorated_by_async, mock.create_autospec(coroutine, side_effect=coroutine)]
ASYNC_KINDS += [mock.AsyncMock(side_effect=coroutine), mock.MagicMock(side_effect=coroutine)]  # which returns one
if hasattr(inspect, "markcoroutinefunction"):  # from Python 3.12 on
    ASYNC_KINDS += [inspect.markcoroutinefunction(lambda log: (function(log), asyncio.sleep(0))[1])]
SYNC_KINDS = [function, staticmethod(function), partial(partial(function)), lambda *args: function(*args)]
SYNC_KINDS += [SyncCall(), SyncCall().__call__, SyncCall.of_class, mock.MagicMock(side_effect=function)]
SYNC_KINDS += [functools.lru_cache(maxsize=0)(function), lambda log: (function(log), futures.Future())[1]]


def generator_function(*_):
    yield


async def async_generator_function(*_):
    yield


class WhatMayBeRun(AsyncTestCase, eager=False):
    @each(executor=EXECUTORS, kind=[*ASYNC_KINDS, *SYNC_KINDS])
    async def test_async_callables_of_every_kind_run_on_the_loop_and_others_in_a_thread(self, make, log, kind):
        await make(BackgroundTask(kind, log))()
        self.assertEqual([thread == threading.get_ident() for thread in log], [kind in ASYNC_KINDS])

    async def test_a_partial_of_a_partial_is_async_where_the_function_is(self):
        self.assertIs(BackgroundTask(partial(attributed)).is_async, True)
        self.assertIs(BackgroundTask(partial(partial(function))).is_async, False)

    @each(call=(AsyncCall.__call__, generator_function))
    async def test_a_class_is_a_plain_callable_whatever_the_call_of_its_instances(self, make, log, call):
        job = type("Job", (), {"__init__": lambda _: function(log), "__call__": call})
        await make(job)()
        await make(partial(job))()
        self.assertEqual(len(log), 2)
        self.assertNotIn(threading.get_ident(), log)

    async def test_a_returned_asyncio_future_is_awaited(self, make, failure):
        future = self.loop.create_future()
        self.loop.call_later(0.01, future.set_exception, failure)
        self.assertEqual(await raised(make(lambda: future)()), [failure])

    @each(executor=(None, Pool), func=(generator_function, async_generator_function), bare=(True, False))
    async def test_a_returned_generator_is_a_failure_and_closed(self, make, func, bare):
        generator = func()
        returns = (lambda: generator) if bare else functools.wraps(func)(lambda: generator)
        (failure,) = await raised(make(returns, int)())
        self.assertIsInstance(failure, TypeError)
        self.assertRegex(str(failure), "generator.*nothing of it has run")
        self.assertIsNone(getattr(generator, "gi_frame" if func is generator_function else "ag_frame"))

    @each(func=(lambda: asyncio.sleep(0), partial(asyncio.sleep, 0), mock.AsyncMock()))
    async def test_nothing_is_left_unawaited(self, container, func):
        with self.silence():
            await container(func, func, func)()

    async def test_a_container_runs_again_after_a_cancellation_and_after_a_failure(self, container, door):
        tasks = container(door, fails)
        await self.cancel(tasks, door)
        for _ in range(2):
            self.assertEqual(await kinds(tasks()), [ValueError])
        del tasks.tasks[1]
        await tasks()

    async def test_one_instance_runs_and_starts_on_several_event_loops_in_turn_and_at_once(self, container, log):
        tasks = container(*[log.sync, log.waiting] * 2)

        async def runs():
            await tasks()
            tasks.start()
            await drain()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: asyncio.run(bounded(runs()), debug=False), range(80), timeout=2 * SECONDS))
        self.assertEqual(len(log), 80 * 2 * 4)

    async def test_tasks_may_be_any_iterable_and_are_copied(self):
        task = BackgroundTask(print)
        given = [task]
        for iterable in (given, (task,), {task}, {task: 1}, iter([task]), (each for each in [task])):
            tasks = BackgroundTasks(iterable)
            self.assertEqual(tasks.tasks, [task])
            tasks.add_task(print)
        self.assertEqual(given, [task])


GeneratorCall = type("GeneratorCall", (), {"__call__": generator_function})
AsyncGeneratorCall = type("AsyncGeneratorCall", (), {"__call__": async_generator_function})
Foreign = type("BackgroundTask", (), {"__module__": "starlette.background"})


class Refusals(AsyncTestCase):
    UNCALLABLE = (None, 42, "secret", b"secret", ["secret"], object())
    GENERATING = (generator_function, GeneratorCall(), GeneratorCall().__call__, partial(GeneratorCall()))
    GENERATING += (partial(generator_function), partial(partial(async_generator_function)), async_generator_function)
    GENERATING += (AsyncGeneratorCall(), AsyncGeneratorCall().__call__)
    OPTIONS = (
        ("tasks", TypeError, "object: pass a list$", [BackgroundTask(print), print, 5]),
        ("tasks", TypeError, "object: wrap it in one$", [[BackgroundTask(print), print], [BackgroundTask], [None]]),
        ("tasks", TypeError, "object: wrap it in one$", [[Foreign()], [("secret",)]]),
        ("as_group", TypeError, "one list", [BackgroundTask(print), 1]),
        ("fail_fast", TypeError, "one list", [None]),
        ("limit", TypeError, "int.*None.* object$", [True, 2.0, "secret", [3]]),
        ("limit", ValueError, "at least 1.*None", [0, -1]),
        ("on_error", TypeError, r"on_error\(task, exception\)", [True, "secret", 0]),
        ("executor", TypeError, "Executor", [ThreadPoolExecutor, "secret"]),
    )
    WRONG = tuple((option, value, kind, message) for option, kind, message, values in OPTIONS for value in values)
    NO_LISTS = iter(()), map(id, ()), (BackgroundTask(print),), collections.deque([BackgroundTask(print)]), set()
    ASSIGNED = tuple(("tasks", value, TypeError, "object: pass a list$") for value in NO_LISTS)  # that may be given
    MAKERS = BackgroundTask, BackgroundTasks().add_task, BackgroundTasks

    @contextlib.contextmanager
    def refused(self, kind, *messages):
        with self.assertRaises(kind) as caught:
            yield
        for message in messages:
            self.assertRegex(str(caught.exception), message)
        self.assertNotIn("secret", str(caught.exception))

    def refused_option(self, option, value, kind, message):
        given = value[-1] if option == "tasks" and isinstance(value, list) else value
        named = f"{type(given).__module__}.{type(given).__qualname__}" if kind is TypeError else str(given)
        return self.refused(kind, option, message, f"got.* {re.escape(named)}")

    @each(func=(*UNCALLABLE, *GENERATING))
    async def test_what_cannot_be_called_or_would_run_nothing_is_refused_when_the_task_is_made(self, func):
        tasks = BackgroundTasks()
        generates = "generator function.*(enerator|Call).*runs nothing"
        message = generates if func in self.GENERATING else f"callable.*{type(func).__name__}.*function"
        for make in (BackgroundTask, tasks.add_task):
            with self.refused(TypeError, message):
                make(func)
        self.assertEqual(tasks.tasks, [])

    @each(call=(*MAKERS, lambda given: BackgroundTasks([given, asyncio.sleep(0)])))
    async def test_a_coroutine_object_is_refused_and_closed(self, call):
        given = asyncio.sleep(0)
        with self.silence(), self.refused(TypeError, r"coroutine.*function and its arguments.*\(send, 1\)"):
            call(given)
        self.assertEqual(inspect.getcoroutinestate(given), inspect.CORO_CLOSED)

    @each(wrong=WRONG + ASSIGNED)
    async def test_each_wrong_option_is_refused_when_it_is_given_and_before_any_task_runs(self, container, log, wrong):
        option, value, *_ = wrong
        with self.refused_option(*wrong) if wrong in self.WRONG else contextlib.nullcontext():
            BackgroundTasks(**{option: value if wrong in self.WRONG else []})
        tasks = container(log.sync)
        run = tasks.func
        setattr(tasks, option, [*tasks.tasks, *value] if option == "tasks" and isinstance(value, list) else value)
        with self.refused_option(*wrong):
            await run()
        self.assertEqual(log, [])


class Context(AsyncTestCase):
    def looks(self, log):
        """Functions that look at the variable, in a thread, on the loop, and first the one and then the other."""
        return [way(lambda: log.append(var.get())) for way in (partial, later, returned)]

    @each(executor=EXECUTORS, index=range(3), start=(False, True))
    async def test_a_task_sees_the_variables_of_its_caller(self, mode, make, log, executor, index, start):
        var.set("caller")
        run = make(self.looks(log)[index])
        run = run.start() if start else run()
        var.set("later" if start else "caller")
        await run
        nowhere = executor is Elsewhere and index == 0 and mode != "alone"
        self.assertEqual(log, ["default" if nowhere else "caller"])

    @each(executor=(None, Pool))
    async def test_what_a_thread_or_member_sets_reaches_no_other_nor_handler_nor_caller(self, mode, container, log):
        var.set("caller")
        sets, looks = partial(var.set, "set by a task"), self.looks(log)
        setters = [sets, later(sets)] if mode in GROUPS else [sets]
        tasks = container(*setters, *looks, lambda: (sets(), fails()), on_error=lambda *_: looks[0]())
        await tasks()
        await BackgroundTask(sets)()
        self.assertEqual([*log, var.get()], ["caller"] * 5)
        if tasks.executor is not None:  # its next user
            self.assertEqual(await asyncio.wrap_future(tasks.executor.submit(var.get)), "default")


CustomBase = type("CustomBase", (BaseException,), {})
StopSubclass = type("StopSubclass", (StopIteration,), {})
FalsyError = type("FalsyError", (ValueError,), {"__len__": lambda _: 0})
FrozenError = type("FrozenError", (Exception,), {"__setattr__": raises(AttributeError)})  # takes no notes
NotelessError = type("NotelessError", (Exception,), {"add_note": raises(RuntimeError)})
NotedErrors = [type("NotedError", (Exception,), {"__notes__": value}) for value in (None, 5)]

# What run_in_executor would replace: it must come out as the same object.
CONCURRENT_ERRORS = (futures.CancelledError, futures.TimeoutError, futures.InvalidStateError, futures.BrokenExecutor)
UNRAISABLE = (StopIteration, StopSubclass, asyncio.CancelledError)
INTERRUPTS = (KeyboardInterrupt, SystemExit)


class Notes(AsyncTestCase):
    async def test_a_failure_has_a_note_that_names_the_function(self, make, func):
        (failure,) = await raised(make(func)())
        self.assertEqual(notes(failure), [f"raised by BackgroundTask({__name__}.{func.__qualname__})"])

    @each(fail_fast=[False])
    async def test_an_exception_has_one_note_for_each_function_that_has_raised_it(self, mode, make, failure, kind):
        failure.add_note("mine")
        task = failing(kind, failure)
        for _ in range(2):
            self.assertEqual(set(await raised(make(task, task, BackgroundTask(raises(failure)))())), {failure})
        self.assertEqual(len(notes(failure)), 2 if mode == "alone" else 3)

    async def test_the_failure_of_a_subclass_has_a_note_in_every_mode(self, container):
        own = type("Own", (BackgroundTask,), {"__call__": later(raises(KeyError()))})
        (failure,) = await raised(container(own(int))())
        self.assertEqual(notes(failure), ["raised by Own(builtins.int)"])

    @each(on_error=(None, lambda *_: None))
    async def test_a_task_that_cannot_show_itself_fails_as_it_does(self, container, on_error):
        mute = type("Mute", (BackgroundTask,), {"__repr__": raises(LookupError())})
        self.assertEqual(await kinds(container(mute(fails_async))()), [] if on_error else [ValueError])

    @each(mode=["in order"])
    async def test_one_without_a_function_fails_in_a_sequence_as_it_does(self, container):
        methods = {"__init__": lambda _: None, "__call__": lambda _: fails_async()}
        self.assertEqual(await kinds(container(type("Unmade", (BackgroundTask,), methods)())()), [ValueError])

    async def test_containers_of_which_all_tasks_have_begun_add_no_notes(self, container):
        failure = await outcome(container(container(container(fails)))())
        while isinstance(failure, ExceptionGroup):
            self.assertEqual(notes(failure), [])
            (failure,) = failure.exceptions
        self.assertEqual(len(notes(failure)), 1)

    @each(error=(FrozenError, NotelessError, *NotedErrors))
    async def test_an_exception_that_refuses_notes_is_raised_without(self, make, kind, error):
        failure = error()
        self.assertEqual([id(leaf) for leaf in await raised(make(failing(kind, failure), int)())], [id(failure)])
        self.assertEqual(getattr(failure, "__notes__", None), getattr(error, "__notes__", None))

    @each(mode=ONE_BY_ONE, on_error=(None, raises(FalsyError)), count=(4, 10))
    async def test_a_failure_says_how_many_tasks_never_began(self, container, count, failure):
        functions = int, spin_async, raises(failure), int, *[int, spin_async] * 3
        never = {4: "1 task", 10: "7 tasks"}[count]
        for _ in range(2):  # with the same failure
            exc = await outcome(container(*functions[:count])())
            self.assertEqual(notes(exc).count(f"{never} of BackgroundTasks({count} tasks) never began"), 1)

    async def test_a_nested_run_and_the_one_around_it_each_say_how_many_never_began(self):
        exc = await outcome(container(container(fails, int), int, int)())
        inner, outer = "1 task of BackgroundTasks(2 tasks)", "2 tasks of BackgroundTasks(3 tasks)"
        self.assertEqual(notes(exc)[1:], [f"{never} never began" for never in (inner, outer)])

    async def test_what_waits_for_a_thread_or_was_taken_back_from_its_queue_never_began(self, failure):
        pool, gate = await self.full_pool()
        door = Door(raises=failure)
        exc = await self.cancel(container(*[int] * 20, door, as_group=True, executor=pool), door)
        gate.open()
        self.assertGreater(len(pool.calls), 0)
        self.assertIn("20 tasks of BackgroundTasks(21 tasks) never began", notes(exc))


class Failures(AsyncTestCase):
    @each(fail_fast=(True, False), executor=EXECUTORS, error=(ValueError, FalsyError, *CONCURRENT_ERRORS))
    async def test_a_failure_is_raised_as_the_same_object(self, mode, make, error, fail_fast, kind):
        failure = error()
        exc = await outcome(make(failing(kind, failure))())
        grouped = mode in GROUPS or (mode == "in order" and not fail_fast)
        self.assertEqual((type(exc), leaves(exc)), (ExceptionGroup if grouped else error, [failure]))

    @each(mode=ONE_BY_ONE)
    async def test_a_failure_begins_no_more_of_a_sequence_or_limited_group(self, container, log, failure, kind, rest):
        tasks = log.task(rest, "before"), failing(kind, failure), *[getattr(log, rest)] * 30
        self.assertEqual(await raised(container(*tasks)()), [failure])
        self.assertEqual(log, ["before"])

    @each(limit=(None, 3))
    async def test_a_failure_cancels_the_others_of_a_group_and_all_are_raised_when_they_have_ended(self, limit, way):
        failure, gate, door = ValueError(), Gate(raises=OSError()), Door(raises=KeyError())

        def fails_when_all_have_begun():
            gate.begun.wait(SECONDS)
            raise failure

        run = self.go(container(gate, door, way(fails_when_all_have_begun), as_group=True, limit=limit))
        await until(lambda: door.cancelled)
        await turns()
        self.assertFalse(run.done())
        gate.open()
        exc = await outcome(run)
        self.assertEqual((set(exc.exceptions), exc.__context__), ({failure, gate.raises, door.raises}, None))

    @each(fail_fast=[False])
    async def test_without_fail_fast_all_tasks_run_and_all_failures_are_raised_then(self, mode, container, log):
        failures = [ValueError(kind) for kind in KINDS * 2]
        tasks = [log.task(exc.args[0], item, exc if item == 1 else None) for exc in failures for item in (1, 2)]
        exc = await outcome(container(*tasks)())
        self.assertCountEqual(exc.exceptions, failures)
        self.assertEqual(notes(exc), [])
        self.assertCountEqual(log, [1, 2] * len(failures))
        if mode in ONE_BY_ONE:
            self.assertEqual(list(exc.exceptions), failures)

    async def test_nested_containers_decide_by_their_own_options(self, log):
        stops = container(fails, log.task("sync", "stopped"))
        goes_on = container(fails, log.task("sync", "goes on"), fail_fast=False)
        handles = container(fails, log.task("coro", "handled"), on_error=lambda *_: None)
        exc = await outcome(container(stops, goes_on, handles, log.task("sync", "last"), fail_fast=False)())
        self.assertEqual(log, ["goes on", "handled", "last"])
        self.assertEqual([type(inner) for inner in exc.exceptions], [ValueError, ExceptionGroup])

    @each(executor=EXECUTORS, kind=UNRAISABLE, handled=(False, True))
    async def test_what_cannot_leave_a_coroutine_fails_as_a_runtime_error_from_it(self, make, log, kind, handled):
        cause, options = kind(), {"on_error": lambda _, exc: log.append(exc)} if handled else {}
        (failure,) = await raised(make(failing("sync", cause), **options)()) or log
        self.assertEqual((type(failure), failure.__cause__), (RuntimeError, cause))
        self.assertIn("sync", "".join(notes(failure)))

    @each(base=(CustomBase, GeneratorExit, *INTERRUPTS), fail_fast=(True, False))
    async def test_other_base_exceptions_pass_through_without_notes(self, mode, make, log, door, base, kind):
        failure = base()
        exc = await outcome(make(failing(kind, failure), door, on_error=log.append)())
        if mode in GROUPS and base not in INTERRUPTS:
            self.assertIs(type(exc), BaseExceptionGroup)
            (exc,) = exc.exceptions
        self.assertIs(exc, failure)
        self.assertEqual((notes(exc), log), ([], []))
        self.assertEqual(door.cancelled, door.begun.is_set() and mode not in ONE_BY_ONE)

    @each(kind=("coro", "waiting"), fail_fast=(True, False))
    async def test_an_async_function_that_raises_cancelled_error_counts_as_cancelled(self, mode, make, log, kind):
        tasks = make(failing(kind, asyncio.CancelledError()), log.sync, log.coro, on_error=log.append)
        self.assertEqual(await kinds(tasks()), [] if mode in GROUPS else [asyncio.CancelledError])
        self.assertEqual(log, [1, 1] if mode in GROUPS else [])

    @each(mode=ONE_BY_ONE, fail_fast=[False], base=(CustomBase, asyncio.CancelledError))
    async def test_no_base_exception_loses_the_failures_collected_before(self, mode, container, base):
        failures = await kinds(container(fails, failing("coro", base()))())
        if base is asyncio.CancelledError:
            self.assertEqual(failures, [ValueError])
        else:
            self.assertEqual(failures, [CustomBase] if mode == "in order" else [ValueError, CustomBase])

    async def test_once_an_eager_task_has_failed_no_other_begins(self, log):
        await outcome(self.go(container(fails_async, *[log.coro] * 5, as_group=True)))
        self.assertEqual(len(log), 5 if self.loop.get_task_factory() is None else 0)


class OnError(AsyncTestCase):
    @each(executor=(None, Pool), fail_fast=(True, False))
    async def test_it_deals_on_the_loop_with_each_task_that_failed_as_that_happens(self, mode, container, log, way):
        tasks = [log.task(kind, 1, exc) for kind in KINDS for exc in (ValueError(), None, KeyError())]
        given = {task: (task, task.args[1], threading.get_ident()) for task in tasks if task.args[1]}
        expected = [event for task in tasks for event in (1, given.get(task)) if event]
        await container(*tasks, on_error=way(lambda *args: log.append((*args, threading.get_ident()))))()
        self.assertCountEqual(log, expected)
        if mode in ONE_BY_ONE:
            self.assertEqual(log, expected)

    @each(mode=SIDE_BY_SIDE)
    async def test_it_is_called_while_other_tasks_of_a_group_still_run(self, container, gate, func):
        handled = asyncio.Event()
        run = self.go(container(gate, func, on_error=lambda *_: handled.set()))
        await handled.wait()
        await self.open_in_turn(run, gate)

    @each(fail_fast=(True, False), error=(ValueError, FalsyError, partial(ExceptionGroup, "", [ValueError()])))
    async def test_what_it_raises_is_the_failure_instead(self, mode, container, log, error, fail_fast, func, way):
        failure = error()
        exc = await outcome(container(func, log.sync, on_error=way(raises(failure)))())
        self.assertTrue(exc is failure or exc.exceptions == (failure,))
        self.assertIn(f"raised by BackgroundTask({__name__}.{func.__qualname__})", notes(failure))
        if not fail_fast or mode in ONE_BY_ONE:
            self.assertEqual(log, [] if fail_fast else [1])

    @each(fail_fast=(True, False), base=(CustomBase, asyncio.CancelledError))
    async def test_a_base_exception_that_it_raises_passes_through_but_for_a_cancellation(self, container, base):
        failures = await kinds(container(fails, on_error=raises(base))())
        self.assertEqual(failures, [CustomBase] if base is CustomBase else [ValueError])

    async def test_it_is_not_called_in_a_run_whose_cancellation_is_taken_back(self, container, log, failure):
        door = Door(raises=failure)
        run = self.go(container(door, on_error=lambda *_: log.append(1)))
        await door.reached()
        run.cancel()
        run.uncancel()
        self.assertEqual((await raised(run), log), ([failure], []))

    @each(fail_fast=(True, False), func=(fails, fails_in_a_task_group, container(fails, as_group=True)))
    async def test_a_handler_that_is_cancelled_has_not_dealt_with_the_failure(self, mode, container, log, door, func):
        run = container(func, *[log.coro, log.sync] * 3, on_error=lambda *_: door())
        self.assertEqual([type(leaf) for leaf in leaves(await self.cancel(run, door))], [ValueError])
        if mode in ONE_BY_ONE:
            self.assertEqual(log, [])

    async def test_it_is_given_a_nested_container_whose_failure_has_not_been_dealt_with(self, container, log):
        inner = BackgroundTasks([BackgroundTask(fails)])
        handles = container(fails, on_error=lambda *_: Awaitable(log))  # which is awaited
        await container(handles, inner, on_error=lambda task, exc: log.append((task, type(exc))))()
        self.assertCountEqual(log, [threading.get_ident(), (inner, ValueError)])


async def members(func):
    """The asyncio tasks of a function in a group, as soon as there are any: before their first steps."""
    name = f"{__name__}.{func.__qualname__}"
    while not (found := [task for task in asyncio.all_tasks() if task.get_name() == name]):
        await asyncio.sleep(0)
    return found


class Cancellation(AsyncTestCase):
    @each(start=(False, True))
    async def test_async_functions_that_run_are_cancelled(self, mode, make, door, start):
        other = Door()
        tasks = make(door, other, spin_async)
        run = tasks.start() if start else self.go(tasks)
        await door.reached()
        run.cancel()
        self.assert_cancelled(await outcome(run))
        self.assertEqual((door.cancelled, other.cancelled), (True, mode in SIDE_BY_SIDE))
        await drain()

    @each(executor=EXECUTORS, times=(0, 1, 3))
    async def test_it_and_a_timeout_end_when_the_function_in_a_thread_has_ended(self, make, gate, task, times):
        timeout = asyncio.timeout(None)

        async def times_out():
            async with timeout:
                await make(task(gate))()

        run = self.go(times_out)
        await gate.reached()
        await cancelled(run, times)
        if not times:
            timeout.reschedule(self.loop.time())
            await until(timeout.expired)
        self.assertFalse(run.done())
        gate.open()
        self.assertEqual(await kinds(run), [asyncio.CancelledError if times else TimeoutError])
        self.assertEqual(len(gate.ends), 1)

    @each(pool=EXECUTORS)
    async def test_a_function_still_queued_for_a_thread_never_begins(self, container, log, pool, task):
        pool, gate = await self.full_pool(pool)
        run = self.go(container(task(log.sync), task(log.sync), executor=pool))
        await turns()
        self.assertTrue(pool is None or pool.calls)
        await cancelled(run)
        self.assert_cancelled(await outcome(run))
        self.assertEqual(gate.ends, [])
        gate.open()
        await container(int, int, int, executor=pool)()
        self.assertEqual(log, [])

    @each(kind=("sync", "coro"))
    async def test_the_rest_of_a_large_group_never_begins(self, log, kind):
        run = self.go(container(*[getattr(log, kind)] * 20_000, as_group=True))
        while not log:
            await asyncio.sleep(0)
        await cancelled(run)
        self.assert_cancelled(await outcome(run))
        begun = len(log)
        self.assertLess(begun, 20_000)
        await through_all_threads()
        self.assertEqual(len(log), begun)

    @each(executor=EXECUTORS)
    async def test_an_awaitable_returned_after_the_cancellation_is_closed_or_cancelled(self, make, log):
        coroutine, future = log.coro(), self.loop.create_future()
        with_async_close = type("Opened", (Awaitable,), {"close": later(lambda _: log.append("closed"))})(log)
        with self.silence():
            for gate in map(partial(Gate, None), (coroutine, future, Awaitable(log), with_async_close)):
                self.assert_cancelled(await self.cancel(make(gate), gate))
        self.assertEqual((inspect.getcoroutinestate(coroutine), future.cancelled()), (inspect.CORO_CLOSED, True))
        self.assertEqual(log, ["closed"])

    ERRORS = (None, ValueError, lambda: ExceptionGroup("two", [ValueError(), KeyError()]))

    @each(executor=EXECUTORS, fail_fast=(True, False), on_error=(None, raises(LookupError)), error=ERRORS)
    async def test_a_failure_after_it_is_raised_not_handled_and_no_more_begins(self, mode, make, log, blocking, error):
        blocking.raises = error and error()
        rest = [log.sync, log.sync, log.waiting, log.coro, make(log.coro)] * 4
        exc = await self.cancel(make(blocking, *rest), blocking)
        self.assertEqual(leaves(exc), leaves(blocking.raises)) if error else self.assert_cancelled(exc)
        if mode in ONE_BY_ONE:
            await through_threads()
            self.assertEqual(log, [])

    @each(fail_fast=[False], after=([], [KeyError()]))
    async def test_failures_before_and_after_it_are_raised_in_one_group(self, container, log, failure, blocking, after):
        blocking.raises = after[0] if after else None
        run = self.go(container(log.task("coro", 1, failure), log.task("sync", 1, failure), blocking))
        await blocking.reached()
        await until(lambda: len(log) == 2)
        await through_threads()
        await cancelled(run)
        blocking.open()
        exc = await outcome(run)
        self.assertEqual((type(exc), list(exc.exceptions)), (ExceptionGroup, [failure, failure, *after]))

    @each(executor=EXECUTORS)
    async def test_a_function_for_a_thread_never_begins_once_its_caller_is_cancelled(self, make, log):
        async def cancel_and_run():
            asyncio.current_task().cancel()
            await make(log.sync)()

        self.assert_cancelled(await outcome(self.go(cancel_and_run)))
        self.assertEqual(log, [])

    async def test_a_function_that_swallows_the_cancellation_ends_it_but_not_the_next(self, log, rest, blocking):
        door, other = Door(swallow=True), Door(swallow=True)
        self.assertIsNone(await self.cancel(container(door, getattr(log, rest)), door))
        self.assert_cancelled(await self.cancel(container(other, blocking, fails), other, blocking))
        self.assertEqual(log, [1])

    @each(mode=("as a group", "one at a time"))
    async def test_a_member_cancelled_on_its_own_gives_up_its_place_and_stops_no_other(self, container, log, door):
        run = self.go(container(door, log.sync))
        await door.reached()
        (await members(Door))[0].cancel()
        await run
        self.assertEqual((door.cancelled, log), (True, [1]))

    @each(mode=SIDE_BY_SIDE, fail_fast=[False])
    async def test_a_member_that_fails_when_cancelled_on_its_own_stops_no_other(self, container, log, door, failure):
        door.raises = failure

        async def goes_on():
            (await members(Door))[0].cancel()
            await until(lambda: door.cancelled)
            await turns()
            log.append("ended")

        self.assertEqual((await raised(container(door, goes_on)()), log), ([failure], ["ended"]))

    async def test_members_cancelled_on_their_own_while_in_threads_drop_nothing_that_waits(self, gate):
        run = self.go(container(*[gate] * 60, as_group=True))
        await until(lambda: len(gate.calls) == 40)
        gone = [member.cancel() for member in await members(Gate)]
        gate.open()
        await run
        self.assertGreaterEqual(len(gate.ends), 100 - len(gone))  # one that waits for a thread may be among them


class BeforeFirstSteps(AsyncTestCase, eager=False):
    """Cancellations before the first step of an asyncio task, which an eager one takes at once."""

    async def asyncSetUp(self):
        await super().asyncSetUp()
        self.loop.set_task_factory(None)

    @each(mode=GROUPS)
    async def test_a_member_begins_nothing_once_its_run_is_cancelled(self, container, log):
        run = self.go(container(*[log.sync, log.coro] * 9))
        await asyncio.sleep(0)  # the members are made, and have not begun
        run.cancel()
        self.assert_cancelled(await outcome(run))
        self.assertEqual(log, [])

    @each(limit=(None, 1, 2, 10))
    async def test_a_group_whose_members_are_cancelled_loses_no_others(self, log, limit, kind):
        tasks = [log.task(kind, number) for number in range(40)]
        run = self.go(container(spin_async, *tasks, as_group=True, limit=limit))
        gone = [member.cancel() for func in (spin_async, tasks[0].func) for member in await members(func)]
        await run
        self.assertCountEqual(log, range(len(gone) - 1, 40))

    @each(mode=GROUPS, fail_fast=[False])
    async def test_members_that_are_cancelled_before_they_send_anything_never_began(self, container, log):
        async def fails_and_cancels():
            run.cancel()
            raise ValueError

        run = self.go(container(fails_and_cancels, *[log.sync, log.coro] * 20))
        exc = await outcome(run)
        self.assertEqual(([type(leaf) for leaf in leaves(exc)], log), ([ValueError], []))
        self.assertEqual(notes(exc), ["40 tasks of BackgroundTasks(41 tasks) never began"])


class Unusual(AsyncTestCase):
    async def test_tasks_that_are_falsy_or_mocks_or_have_a_call_but_no_function_run(self, container, log):
        falsy = type("FalsyTask", (BackgroundTask,), {"__bool__": lambda _: False})
        tick = type("Tick", (BackgroundTask,), {"__call__": later(lambda _: log.append("tick"))})(int)
        tick.func, mocked = None, mock.AsyncMock(spec=BackgroundTask)
        await container(falsy(log.sync), log.sync, falsy(log.coro), tick, tick, mocked, int)()
        self.assertCountEqual(log, [1, 1, 1, "tick", "tick"])
        self.assertEqual(mocked.await_count, 1)

    async def test_where_a_member_cannot_be_made_the_run_fails_when_the_others_have_ended(self, door, failure):
        def refuses(_, coro, **options):
            self.loop.set_task_factory(None)
            coro.close()
            raise failure

        run = self.go(container(door, later(lambda: self.loop.set_task_factory(refuses)), int, as_group=True, limit=2))
        self.assertEqual(await raised(self.open_in_turn(run, door)), [failure])

    @each(executor=(None, ThreadPoolExecutor), fails=(False, True))
    async def test_the_arguments_are_not_kept_after_a_run_nor_after_one_that_fails(self, make, gate, fails):
        self.without_the_garbage_collector()
        gate.raises = ValueError if fails else None
        argument = Log()
        kept = weakref.ref(argument)
        run = self.go(make(BackgroundTask(lambda argument: gate(), argument)))
        del argument
        await gate.reached()
        await cancelled(run, times=1 if fails else 0)
        gate.open()
        with contextlib.suppress(Exception):
            await run
        del run
        await through_all_threads()  # of which one may hold on to it until it runs again
        await until(lambda: kept() is None, 0.5)

    async def test_a_failed_future_that_is_returned_is_in_no_cycle(self, make, log):
        def fails_later():
            future = self.loop.create_future()
            future.set_exception(ValueError())
            log.append(weakref.ref(future))
            return future

        self.without_the_garbage_collector()
        await outcome(self.go(make(fails_later)))
        await through_all_threads()
        await until(lambda: log[0]() is None, 0.5)


class Growing(AsyncTestCase):
    @each(fail_fast=(True, False))
    async def test_one_that_is_added_while_another_is_looked_at_does_not_take_its_place(self, container, log):
        class Tasks(list):
            def __getitem__(self, index):
                if index == -1 and len(self) == 2:
                    self.append(BackgroundTask(log.sync, "added"))  # as a thread may
                return super().__getitem__(index)

        run, overridden = container(), Overridden(log.sync, "looked at")
        run.tasks = Tasks([BackgroundTask(int), overridden])
        await run()
        self.assertEqual((overridden.state, sorted(log)), ("ended", ["added", "looked at"]))

    async def test_tasks_added_by_a_task_run_in_the_same_run_and_in_order(self, mode, container, log):
        def add(number):
            log.append(number)
            for way in (partial, later, returned) if number else ():
                tasks.add_task(way(add), number - 1)

        tasks = container(BackgroundTask(add, 3), BackgroundTask(later(add), 3))
        await tasks()
        self.assertEqual(log if mode in ONE_BY_ONE else sorted(log)[::-1], [3] * 2 + [2] * 6 + [1] * 18 + [0] * 54)
        self.assertEqual(len(tasks.tasks), 80)

    @each(mode=SIDE_BY_SIDE, added=BLOCKING)
    async def test_tasks_added_to_a_group_start_as_soon_as_one_of_it_ends(self, container, blocking, added, way):
        tasks = container(blocking, way(lambda: tasks.add_task(added)))
        await self.open_in_turn(self.go(tasks), added, blocking)

    async def test_an_async_task_added_in_a_thread_begins_before_what_that_goes_on_with_has_ended(self, door, gate):
        def adds():
            asyncio.run_coroutine_threadsafe(turns(), self.loop).result(SECONDS)  # it has sent four more by now
            group.add_task(door)

        group = container(adds, *[int] * 4, gate, as_group=True, executor=self.pool())
        await self.open_in_turn(self.go(group), door, gate)

    async def test_an_error_handler_may_add_tasks(self, container, log, way):
        tasks = container(*FAILING, on_error=way(lambda *_: tasks.add_task(log.sync)))
        await tasks()
        self.assertEqual(log, [1] * len(FAILING))

    @each(as_group=(True, False))
    async def test_a_group_of_sequences_and_a_sequence_of_groups(self, as_group):
        doors = [Door() for _ in range(4)]
        pairs = [container(*pair, as_group=not as_group) for pair in (doors[:2], doors[2:])]
        run = self.go(container(*pairs, as_group=as_group))
        first = doors[::2] if as_group else doors[:2]
        for door in first:
            await door.reached()
        await turns()
        self.assertEqual([door.begun.is_set() for door in doors], [door in first for door in doors])
        await self.open_in_turn(run, *doors)


class Limits(AsyncTestCase):
    @each(size=(1, 2, 5), kind=(partial(threading.Barrier, timeout=SECONDS), asyncio.Barrier))
    async def test_that_many_tasks_run_at_a_time_and_no_more(self, size, kind):
        barrier = kind(size + 1)
        run = self.go(container(*[barrier.wait] * size * 5, as_group=True, limit=size))
        for _ in range(5):
            await until(lambda: barrier.n_waiting == size)
            await through_threads()
            self.assertEqual(barrier.n_waiting, size)
            await BackgroundTask(barrier.wait)()
        await run

    @each(first=BLOCKING, second=BLOCKING)
    async def test_sync_and_async_tasks_share_the_limit_and_a_nested_container_counts_as_one(self, door, first, second):
        nested = Door(), Door()
        run = self.go(container(first, second, container(*nested, as_group=True), door, as_group=True, limit=3))
        for blocking in (first, second, *nested):
            await blocking.reached()
        await through_threads()
        self.assertFalse(door.begun.is_set())
        await self.open_in_turn(run, first, door, second, *nested)

    @each(limit=(3, None), kind=("coro", "waiting"))
    async def test_async_tasks_start_in_order(self, log, limit, kind):
        tasks = [log.task(kind, number) for number in range(50)]
        await container(*tasks, as_group=True, limit=limit)()
        self.assertEqual(log, list(range(50)))

    async def test_an_async_task_does_not_pass_by_sync_ones_that_wait_under_a_limit(self, log, gate):
        run = self.go(container(gate, *[int] * 9, log.coro, as_group=True, limit=8, executor=self.pool()))
        await gate.reached()
        await turns()
        self.assertEqual(log, [])
        await self.open_in_turn(run, gate)

    OPTIONS = ({"limit": 5}, {"as_group": True, "limit": 1})

    @each(kinds=(["sync"], ["coro"], [*["sync"] * 5, *["coro"] * 5], KINDS), options=OPTIONS)
    async def test_any_number_runs_in_order_by_a_limit_of_one_and_in_a_sequence_by_any(self, log, kinds, options):
        numbers = range(self.many + 500)
        await container(*(log.task(kinds[number % len(kinds)], number) for number in numbers), **options)()
        self.assertEqual(log, list(numbers))

    async def test_a_large_group_holds_no_more_asyncio_tasks_than_its_limit(self, log):
        async def counts():
            await asyncio.sleep(0)
            log.append(len(asyncio.all_tasks()))

        before = len(asyncio.all_tasks())
        await container(*[counts] * 1000, *[int] * 1000, as_group=True, limit=10)()
        self.assertEqual(len(log), 1000)
        self.assertLessEqual(max(log), before + 1 + 10)

    async def test_async_tasks_and_what_threads_bring_back_are_limited_by_nothing_else(self):
        meet = asyncio.Barrier(300).wait
        await container(*[lambda: meet()] * 100, *[meet] * 200, as_group=True)()


class Executors(AsyncTestCase):
    @each(task=(*TASKS, lambda func: BackgroundTasks([Overridden(func)])))
    async def test_the_sync_functions_of_a_container_run_in_its_executor_but_not_elsewhere(self, container, log, task):
        functions = log.thread, later(log.thread), returned(log.thread), log.thread
        tasks = container(*map(task, functions), executor=self.pool(thread_name_prefix="own"))
        await tasks()
        self.assertCountEqual(log, ["own", "", "", "own"])
        await tasks.tasks[0]()
        self.assertEqual(log[4:], ["background"])

    @each(inner_mode=MODES, added=(False, True), own=(False, True))
    async def test_the_executor_is_that_of_nested_containers_without_one(self, container, log, inner_mode, added, own):
        inner = self.maker(inner_mode)
        nested = inner(inner(log.thread), executor=self.pool(thread_name_prefix="inner") if own else None)
        tasks = container(executor=self.pool(thread_name_prefix="outer"))
        tasks.add_task(nested) if added else tasks.tasks.append(nested)
        await tasks()
        self.assertEqual(log, ["inner" if own else "outer"])

    async def test_the_executor_is_that_of_what_is_awaited_in_a_run_not_of_what_is_started(self, container, log):
        async def awaits():
            for task in (BackgroundTask(log.thread), container(log.thread)):
                await task()
                await task.start()

        await container(awaits, executor=self.pool(thread_name_prefix="own"))()
        self.assertEqual(log, ["own", "background"] * 2)

    async def test_a_loop_run_in_a_thread_inherits_no_executor(self, container):
        await container(lambda: asyncio.run(bounded(BackgroundTask(int)()), debug=False), executor=self.pool(1))()

    async def test_other_executors_get_only_the_function_and_its_arguments(self, container, log, task):
        executor = self.pool(kind=Elsewhere)
        await container(task(log.sync, 1), task(log.sync, item=2), task(log.coro, item=3), executor=executor)()
        first, (second, args, kwargs) = executor.calls
        if isinstance(second, partial):
            second, args, kwargs = second.func, (*second.args, *args), second.keywords | kwargs
        self.assertEqual((first, (second, args, kwargs)), ((log.sync, (1,), {}), (log.sync, (), {"item": 2})))

    @each(limit=(None, 4))
    async def test_other_executors_get_one_task_per_call(self, limit):
        executor, barrier = self.pool(4, Elsewhere), partial(threading.Barrier(4).wait, SECONDS)
        await container(*[barrier] * 8, as_group=True, limit=limit, executor=executor)()
        self.assertEqual(len(executor.calls), 8)

    @each(fail_fast=(True, False), kind=(Pool, Elsewhere), queued=(True, False))
    async def test_calls_refused_or_dropped_are_runtime_errors(self, container, log, fail_fast, kind, task, queued):
        pool, gate = await self.full_pool(kind)
        if not queued:
            pool.shutdown(wait=False)
        run = self.go(container(*(task(log.sync) for _ in range(5)), executor=pool))
        if queued:
            await until(lambda: pool.calls)
            pool.shutdown(wait=False, cancel_futures=True)
        exc = await outcome(run)
        gate.open()
        failures = [type(leaf) for leaf in leaves(exc)]
        self.assertEqual(failures, [RuntimeError] * (len(failures) or 1 if fail_fast else 5))
        never_began = [int(number) for note in notes(exc) for number in re.findall(r"^(\d+) task", note)]
        self.assertLessEqual(len(failures) + sum(never_began), 5)
        self.assertEqual(log, [])

    async def test_a_call_for_which_no_thread_could_be_started_never_begins(self, container, log, task):
        pool, refusal = self.pool(), RuntimeError("can't start new thread")
        with mock.patch("threading.Thread.start", side_effect=refusal):
            self.assertIn(refusal, await raised(container(task(log.sync), task(log.sync), executor=pool)()))
        await container(int, executor=pool)()  # behind them
        self.assertEqual(log, [])

    @each(executor=(Pool, Elsewhere))
    async def test_each_refused_call_is_handed_to_on_error_however_many(self, container, log):
        tasks = [BackgroundTask(int) for _ in range(self.many)]
        run = container(*tasks, on_error=lambda task, exc: log.append((id(task), type(exc))))
        run.executor.shutdown()
        await run()
        self.assertCountEqual(log, [(id(task), RuntimeError) for task in tasks])

    async def test_a_pool_whose_initializer_fails_is_the_failure_of_its_tasks(self, container, log):
        run = container(*[log.sync] * 3, fail_fast=False, executor=self.pool(initializer=raises(LookupError)))
        with self.assertLogs("concurrent.futures", "CRITICAL"):
            self.assertEqual(await kinds(run()), [futures.thread.BrokenThreadPool] * 3)
        self.assertEqual(log, [])


def in_process(name, log=None, raises=None):
    if log is not None:
        with open(log, "a") as file:
            file.write(name)
    if raises is not None:
        raise raises


def meet(directory, name, others):
    """Wait in this process until the others have come."""
    (directory / name).touch()
    end = time.monotonic() + SECONDS
    while len(os.listdir(directory)) < others:
        if time.monotonic() > end:
            raise TimeoutError("the others have not come")
        time.sleep(0.001)


Unpicklable = type("Unpicklable", (), {"__reduce__": raises(pickle.PicklingError)})


class Processes(AsyncTestCase, eager=False):
    @classmethod
    def setUpClass(cls):
        cls.processes = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        cls.addClassCleanup(cls.processes.shutdown)

    def maker(self, mode, **options):
        return partial(super().maker(mode, **options), executor=self.processes)

    def directory(self):
        return pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork on this platform")
    async def test_a_loop_that_a_function_runs_in_a_forked_process_has_threads_there(self):
        script = """
            import asyncio, multiprocessing, concurrent.futures
            from background import BackgroundTask, BackgroundTasks

            def runs_a_loop():
                asyncio.run(asyncio.wait_for(BackgroundTask(print, "ran", flush=True)(), 20))

            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
                asyncio.run(BackgroundTasks([BackgroundTask(runs_a_loop)], executor=pool)())
        """
        self.assertEqual(run_python("-W", "ignore", "-c", inspect.cleandoc(script)), "ran\n")

    async def test_functions_run_in_other_processes_with_their_arguments(self, container, task):
        log = self.directory() / "log"
        await container(task(in_process, "a", log), task(in_process, name="b", log=log))()
        self.assertEqual(sorted(log.read_text()), ["a", "b"])

    @each(kind=(ValueError, *UNRAISABLE))
    async def test_the_exception_is_a_copy_or_a_runtime_error_if_that_cannot_leave_a_coroutine(self, container, kind):
        failure = kind("text")
        (copied,) = await raised(container(BackgroundTask(in_process, "", raises=failure))())
        self.assertIs(type(copied), ValueError if kind is ValueError else RuntimeError)
        self.assertIsNot(copied, failure)
        self.assertIn("in_process", "".join(notes(copied)))
        if kind is ValueError:
            self.assertEqual(copied.args, failure.args)

    @each(fail_fast=[False], index=range(3))
    async def test_what_cannot_be_pickled_raises_its_error(self, container, task, index):
        func, *args = [(lambda: None,), (print, threading.Lock()), (print, Unpicklable())][index]
        (failure,) = await raised(container(task(func, *args), int)())
        self.assertIsInstance(failure, (pickle.PicklingError, AttributeError, TypeError))

    @each(mode=SIDE_BY_SIDE)
    async def test_the_workers_share_the_tasks_and_after_a_cancellation_fetch_no_more(self, container):
        others, log = self.directory(), self.directory() / "log"
        tasks = [BackgroundTask(meet, others, str(number), 3) for number in range(2)]
        run = self.go(container(*tasks, *[BackgroundTask(in_process, "x", log)] * 50))
        await until(lambda: len(list(others.iterdir())) == 2)
        await cancelled(run)
        self.assertFalse(run.done())
        (others / "the last").touch()
        self.assert_cancelled(await outcome(run))
        self.assertLess(len(log.read_text()) if log.exists() else 0, 10)


class Threads(AsyncTestCase, eager=False):
    @each(computed=(0, 100))
    async def test_forty_functions_of_a_group_run_at_once_after_others_have_only_computed(self, log, computed):
        barrier = threading.Barrier(40)

        def meets():
            barrier.wait(SECONDS)
            log.append(threading.current_thread().name)

        await container(*[int] * computed, *[meets] * 200, as_group=True)()
        self.assertEqual(set(log), {f"background_{number}" for number in range(40)})

    async def test_forty_tasks_on_their_own_run_at_once(self):
        task = BackgroundTask(threading.Barrier(40).wait, SECONDS)
        await asyncio.gather(*(task() for _ in range(40)))

    async def test_background_work_and_the_default_executor_of_the_loop_keep_neither_from_running(self, make, gate):
        self.loop.set_default_executor(ThreadPoolExecutor(1))
        busy = self.loop.run_in_executor(None, gate)
        await gate.reached()
        await bounded(make(int)())
        await self.open_in_turn(busy, gate)
        _, busy = await self.full_pool(None)
        self.assertEqual(await bounded(self.loop.run_in_executor(None, int)), 0)
        busy.open()
        await drain()

    @each(mode=ONE_BY_ONE)
    async def test_blocking_tasks_one_after_another_give_their_thread_back_between_them(self, container, log, gate):
        def blocks(item):
            log.append(item)
            gate()
            time.sleep(0.002)

        pool = self.pool()
        run = self.go(container(*(BackgroundTask(blocks, item) for item in range(3)), executor=pool))
        await gate.reached()
        other = pool.submit(log.sync, "other")
        gate.open()
        await run
        other.result()
        self.assertEqual(log, [0, "other", 1, 2])

    async def test_small_sync_tasks_share_few_trips(self, container, log):
        pool = self.pool(4)
        await container(*(BackgroundTask(log.append, number) for number in range(1000)), executor=pool)()
        self.assertCountEqual(log, range(1000))
        self.assertLess(len(pool.calls), 250)

    async def test_a_group_that_computes_uses_few_threads(self, log):
        await container(*[lambda: (spin(0.00005), function(log))] * 1000, as_group=True, executor=self.pool(40))()
        self.assertLess(len(set(log)), 30)

    async def test_loops_run_in_threads_have_threads_of_their_own(self, log):
        barrier = threading.Barrier(40)

        def runs_a_loop(depth):
            barrier.wait(SECONDS)
            inner = BackgroundTask(runs_a_loop, depth - 1) if depth else log.sync
            asyncio.run(container(int, inner)(), debug=False)

        await container(*[BackgroundTask(runs_a_loop, 2)] * 40, as_group=True)()
        self.assertEqual(len(log), 40)

    async def test_the_pool_is_made_when_the_first_sync_function_needs_it(self):
        script = """
            import asyncio, threading
            from background import BackgroundTask, BackgroundTasks

            sleep = BackgroundTask(asyncio.sleep, 0)
            for task in BackgroundTasks([sleep]), BackgroundTasks([sleep], as_group=True), BackgroundTask(int):
                asyncio.run(task())
                print(*[thread.name for thread in threading.enumerate()])
        """
        printed = run_python("-c", inspect.cleandoc(script)).splitlines()
        self.assertEqual(printed, ["MainThread", "MainThread", "MainThread background_0"])

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork on this platform")
    async def test_a_forked_child_makes_its_own_pool(self):
        script = """
            import asyncio, os, signal, threading
            from background import BackgroundTask, BackgroundTasks

            task = BackgroundTask(lambda: os.write(1, f"{threading.current_thread().name}\\n".encode()))
            barrier = BackgroundTask(threading.Barrier(40).wait, 60)
            asyncio.run(BackgroundTasks([barrier] * 40, as_group=True)())
            child = os.fork()
            signal.alarm(30)  # which no child inherits
            for as_group in (False, True):
                asyncio.run(BackgroundTasks([task], as_group)())
            if child:
                assert os.waitpid(child, 0)[1] == 0
        """
        lines = run_python("-W", "ignore", "-c", inspect.cleandoc(script)).split()  # (3.12 warns of forks)
        self.assertEqual([line.rpartition("_")[0] for line in lines], ["background"] * 4)


class Foreground(AsyncTestCase, eager=False):
    # How often the loop should let others in, the options, and tasks that compute for a tenth of a millisecond each.
    RUNS = {
        "a sequence that never waits": (30, {}, [spin_async] * 1000),
        "one of another kind of task": (30, {}, [Overridden(spin_async)] * 1000),
        "a group that never waits": (15, {"as_group": True}, [spin_async] * 1000),
        "a sequence that turns heavy": (30, {}, [Log().coro] * 500 + [partial(spin_async, 0.002)] * 50),
        "failures dealt with": (30, {"on_error": lambda *_: spin()}, [fails_async] * 300),
        "many sync tasks": (5, {"as_group": True}, [int] * 2000),
        "many async tasks": (5, {"as_group": True}, [partial(asyncio.sleep, 0)] * 1000),
    } | {f"sync tasks {mode}": (5, MODES[mode], [spin] * 1000) for mode in MODES}

    @each(name=RUNS)
    async def test_other_tasks_of_the_loop_are_let_in_while_there_is_background_work(self, name):
        times, options, tasks = self.RUNS[name]
        run, let_in = self.go(container(*tasks, **options)), 0
        while not run.done():
            await asyncio.sleep(0)
            let_in += 1
        await run
        self.assertGreater(let_in, times)


class Starting(AsyncTestCase):
    @each(times=(0, 1, 100), drained=(False, True))
    async def test_start_returns_an_asyncio_task_that_runs_it_many_times_too(self, make, log, kind, times, drained):
        task = make(getattr(log, kind))
        started = [task.start() for _ in range(times)]
        if drained:
            self.assertEqual((await drain(), log), (None, [1] * times))
        self.assertEqual(await asyncio.gather(*started), [None] * times)
        self.assertEqual(log, [1] * times)
        self.assertTrue(all(isinstance(running, asyncio.Task) for running in started))

    async def test_it_runs_beside_the_caller_who_may_stop_waiting_without_stopping_the_work(self, make, blocking):
        started = make(blocking).start()
        await blocking.reached()
        self.assertEqual(await asyncio.wait({started}, timeout=0), (set(), {started}))
        await self.open_in_turn(started, blocking)
        self.assertFalse(started.cancelled())

    async def test_the_garbage_collector_cannot_take_a_started_task_until_that_has_ended(self, make):
        futures = weakref.WeakSet()  # else only the asyncio task and its future know of each other

        async def waits():
            future = self.loop.create_future()
            futures.add(future)
            await future

        started = weakref.ref(make(waits).start())
        await until(lambda: futures)
        gc.collect()
        self.assertEqual(len(futures), 1)
        futures.pop().set_result(None)
        await drain()
        await turns()
        gc.collect()
        self.assertIsNone(started())

    async def test_a_task_that_starts_itself_again_from_its_thread_has_the_same_threads(self):
        threads, ends = set(), iter(range(50))

        def again():
            threads.add(threading.current_thread())
            if next(ends, None) is not None:
                asyncio.run_coroutine_threadsafe(later(BackgroundTask(again).start)(), self.loop).result(SECONDS)

        BackgroundTask(again).start()
        await bounded(drain())
        self.assertLess(len(threads), 41)

    async def test_without_a_running_loop_it_is_a_runtime_error_that_says_where_to_start(self, make):
        with self.silence(), self.assertRaisesRegex(RuntimeError, "no running event loop") as caught:
            await asyncio.to_thread(make(spin_async).start)
        self.assertRegex(notes(caught.exception)[0], "event loop.*response")

    FUNCS = ((fails, later(fails)), (later(fails), fails), (returned(fails),))

    @each(executor=(None, Elsewhere), fail_fast=(True, False), on_error=(None, raises(LookupError)), funcs=FUNCS)
    async def test_a_failure_that_nobody_awaits_is_reported_by_asyncio_at_once(self, make, funcs):
        self.without_the_garbage_collector()
        make(*funcs).start()
        await drain()
        await turns()
        await until(lambda: self.reports, 0.5)  # a thread may hold on to it for a moment
        (report,) = self.reports
        self.reports.clear()
        self.assertIn("exception was never retrieved", report["message"])
        self.assertIn(type(leaves(report["exception"])[0]), (ValueError, LookupError))


class Draining(AsyncTestCase):
    async def test_two_wait_for_what_is_started_before_and_meanwhile_by_tasks_and_others(self, make, door, blocking):
        by_a_task, by_others = Door(), Door()

        async def starts():
            await door()
            BackgroundTask(by_a_task).start()

        make(blocking).start()
        BackgroundTask(starts).start()
        draining, other = self.go(drain), self.go(drain)
        await door.reached()
        BackgroundTask(by_others).start()
        await self.open_in_turn(draining, blocking, door, by_others, by_a_task)
        await self.open_in_turn(other)

    async def test_it_raises_none_of_their_errors(self):
        for func in FAILING:
            BackgroundTask(func).start()
        BackgroundTask(asyncio.Event().wait).start().cancel()
        self.assertIsNone(await drain())
        await turns()
        gc.collect()
        self.assertEqual([type(report["exception"]) for report in self.reports], [ValueError] * len(FAILING))
        self.reports.clear()

    async def test_it_is_bounded_by_a_timeout_that_stops_no_task(self, door):
        started = BackgroundTask(door).start()
        with self.assertRaises(TimeoutError):
            await bounded(drain(), 0)
        await self.open_in_turn(self.go(drain), door)
        self.assertEqual((started.done(), door.cancelled), (True, False))

    async def test_it_waits_only_for_the_running_loop(self, gate):
        async def other():
            await BackgroundTask(gate).start()

        other_loop = self.loop.run_in_executor(None, asyncio.run, other())
        await gate.reached()
        await drain()
        await self.open_in_turn(other_loop, gate)

    async def test_from_deep_inside_a_started_task_it_does_not_wait_for_that_one(self, make):
        def from_a_thread():
            asyncio.run_coroutine_threadsafe(drain(), self.loop).result(SECONDS)

        async def from_a_child():
            await asyncio.gather(drain(), drain())

        async def from_another_that_it_started():
            await BackgroundTask(drain).start()

        inside = from_a_thread, from_a_child, from_another_that_it_started, BackgroundTask(drain).__call__
        for func in (drain, lambda: drain(), *inside):
            await make(func).start()
            await BackgroundTasks([make(func, func)], as_group=True).start()

    @each(count=(1, 2, 3), outside_first=(False, True))
    async def test_from_inside_it_waits_for_the_others_not_for_each_other(self, log, door, count, outside_first):
        async def drains():
            await drain()
            log.append(other.done())
            await turns(10)
            log.append("ended")

        other, early = BackgroundTask(door).start(), self.go(drain)
        await turns()
        for _ in range(count):
            BackgroundTask(drains).start()
        await self.open_in_turn(early if outside_first else self.go(drain), door)
        self.assertCountEqual(log, [True, "ended"] * count)
        await early

    async def test_cancelled_inside_a_started_task_it_leaves_that_to_be_waited_for(self, door):
        after = Door()

        async def gives_up():
            await outcome(bounded(drain(), 0))
            await after()

        BackgroundTask(door).start()
        BackgroundTask(gives_up).start()
        await after.reached()
        await self.open_in_turn(BackgroundTask(drain).start(), door, after)


NAMES = {
    f"{__name__}.fails": [fails, partial(partial(fails), "secret")],
    f"{__name__}.fails_async": [fails_async],
    f"{__name__}.SyncCall": [SyncCall, partial(SyncCall())],
    f"{__name__}.AsyncCall": [AsyncCall()],
    f"{__name__}.SyncCall.__call__": [SyncCall().__call__],
    f"{__name__}.AsyncCall.__call__": [AsyncCall.of_class],
    f"{__name__}.coroutine": [AsyncCall.static, decorated, attributed, partial(attributed)],
    f"{__name__}.<lambda>": [lambda: None],
    "builtins.print": [print],
    "list.append": [[].append],
}


class Shown(AsyncTestCase):
    @each(name=NAMES)
    async def test_repr_names_the_class_of_the_task_and_the_function(self, name):
        for func in NAMES[name]:
            self.assertEqual(repr(BackgroundTask(func)), f"BackgroundTask({name})")
            self.assertEqual(repr(Overridden(func)), f"Overridden({name})")

    @each(length=(0, 1, 12))
    async def test_repr_of_a_container_shows_its_class_and_length(self, length):
        for kind in (BackgroundTasks, type("Jobs", (BackgroundTasks,), {})):
            self.assertEqual(repr(kind([BackgroundTask(print)] * length)), f"{kind.__name__}({length} tasks)")

    async def test_repr_never_shows_arguments(self):
        secretive = type("Secretive", (), {"__repr__": lambda _: "secret", "__call__": lambda _: None})()
        for func in (print, partial(print, "secret", end="secret"), secretive, mock.Mock(name="secret")):
            task = BackgroundTask(func, "secret", sep="secret")
            for shown in (task, container(task), container(container(task), as_group=True)):
                self.assertNotIn("secret", repr(shown) + str(shown) + f"{shown}")

    @each(wrap=(lambda func: func, lambda func: lambda *args: func(*args)))
    async def test_no_name_nor_note_shows_arguments(self, make, log, wrap):
        async def shy(value):
            await asyncio.sleep(0)
            log.append(asyncio.current_task().get_name())
            raise ValueError

        started = make(BackgroundTask(wrap(shy), "hidden")).start()
        (failure,) = await raised(started)
        self.assertNotIn("hidden", "".join([*log, started.get_name(), *notes(failure)]))

    @each(func=(fails, spin_async, partial(spin)))
    async def test_what_is_started_is_named_after_the_function_or_the_class_and_length(self, mode, make, func):
        started = make(func).start()
        name = f"{__name__}.{getattr(func, 'func', func).__name__}"
        self.assertEqual(started.get_name(), name if mode == "alone" else "BackgroundTasks(1 tasks)")
        await outcome(started)

    @each(mode=GROUPS)
    async def test_the_asyncio_tasks_of_a_group_carry_the_dotted_name(self, container, log):
        async def named():
            await asyncio.sleep(0)  # an eager task may have no name in its first step
            log.append(asyncio.current_task().get_name())

        for func in (named, lambda: named()):
            await container(func, int, func, int)()
            self.assertEqual(log[-2:], [f"{__name__}.{func.__qualname__}"] * 2)
        await container(BackgroundTasks([BackgroundTask(named)]))()
        self.assertEqual((len(log), log[-1]), (5, "BackgroundTasks(1 tasks)"))


class Counts(AsyncTestCase):
    """What a function does to Task.cancelling() is never taken for a cancellation of the run."""

    WRAPPERS = (lambda func: func, lambda func: lambda: func(), lambda func: functools.wraps(func)(lambda: func()))

    @each(func=MISCOUNTING, wrapper=WRAPPERS, nested=("alone", "in order"))
    async def test_a_function_that_leaves_it_wrong_has_failed_no_more(self, container, log, func, wrapper, nested):
        first = self.maker(nested)(wrapper(func))
        exc = await outcome(self.go(container(first, log.sync, log.coro, fail_fast=False)))
        self.assertEqual((type(exc), len(exc.exceptions)), (ExceptionGroup, 1))
        await self.go(container(first, log.sync, log.coro, on_error=lambda task, _: log.append(task)))
        self.assertCountEqual(log, [1, 1, 1, 1, first])

    @each(mode=ONE_BY_ONE, func=(times_out_as_old_clients_do, fails_in_a_task_group))
    async def test_one_left_wrong_by_what_a_thread_brings_back_keeps_nothing_from_running(self, container, log, func):
        async def deals_with_it():
            await outcome(func())
            await outcome(asyncio.sleep(0))  # what Python 3.12 leaves behind with eager tasks

        await self.go(container(lambda: deals_with_it(), *[partial(log.sync, number) for number in range(9)]))
        self.assertEqual(log, list(range(9)))

    async def test_one_left_wrong_does_not_give_each_sync_task_behind_it_a_trip_of_its_own(self):
        async def leaves_it_wrong():
            asyncio.current_task().cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

        pool = self.pool()
        await self.go(container(leaves_it_wrong, *[int] * 50, executor=pool))
        self.assertLess(len(pool.calls), 50)


class Closed(AsyncTestCase):
    @each(fail_fast=(True, False))
    async def test_a_run_whose_coroutine_is_closed_ends_without_noise(self, container, door):
        before = asyncio.all_tasks()
        with self.silence():
            run = container(door, door)()
            while not door.begun.is_set():
                run.send(None)
                await asyncio.sleep(0)
            run.close()
            for member in asyncio.all_tasks() - before:
                member.cancel()
                await asyncio.wait({member})

    async def run_and_close(self, coroutine):
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        await asyncio.to_thread(loop.run_until_complete, coroutine)
        loop.close()

    @each(fail_fast=(True, False), interrupted=(False, True))
    async def test_threads_that_end_after_the_loop_was_closed_go_on_with_nothing(self, mode, make, gate, interrupted):
        threads = {"as a group": 40, "limited": 2}.get(mode, 1)

        async def starts():
            running = make(*[gate] * 60).start()
            while len(gate.calls) < threads:  # not a moment too long: a thread goes on for a millisecond
                await asyncio.sleep(0)
            await (cancelled(running) if interrupted else turns())  # so that each member has begun

        with self.silence():
            await self.run_and_close(starts())
            gate.open()
            await through_all_threads()
        self.assertEqual((len(gate.calls), len(gate.ends)), (threads, threads))

    async def test_what_is_still_queued_when_the_loop_is_closed_never_begins(self, container, log, gate):
        async def starts():
            container(log.sync, executor=pool).start()
            await until(lambda: len(pool.calls) == 2)

        with Pool(1) as pool:
            pool.submit(gate)
            await self.run_and_close(starts())
            gate.open()
        self.assertEqual(log, [])

    async def test_what_was_started_on_closed_loops_is_let_go(self, make, log):
        async def never_ends(argument):
            await asyncio.Event().wait()

        async def starts():
            argument = Log()
            log.append(weakref.ref(argument))
            make(BackgroundTask(never_ends, argument)).start()
            await turns()

        for _ in range(10):
            await self.run_and_close(starts())
        gc.collect()
        self.assertLessEqual(sum(argument() is not None for argument in log), 1)


Failure = type("Failure", (Exception,), {})  # of the tasks whose numbers are its arguments
OfContainer = type("OfContainer", (Failure,), {})  # raised by the handler of a container's failure
Broken = type("Broken", (BaseException,), {})  # as Failure


class Account:
    """A random tree of containers, and what becomes of each of its tasks."""

    def __init__(self, seed, loop, executors):
        self.seed, self.loop, self.executors, self.random = seed, loop, executors, random.Random(seed)
        self.numbers, self.place = itertools.count(), {}  # of each task by its number: the task and its container
        self.events, self.noticed = [], []  # as (number, what); what should not have been
        self.parents, self.dealt_with, self.requests, self.broken = {}, set(), 0, False
        self.root = self.container(3)

    async def __call__(self):
        """Run it, one of four after a cancellation, of which it leaves everything as it is."""
        self.run, in_cleanup = asyncio.current_task(), self.seed % 4 == 0
        var.set(self.seed)
        if in_cleanup:
            self.run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        try:
            await self.root()
        finally:
            if self.run.cancelling() != in_cleanup + self.requests:
                self.noticed.append(f"{self.run.cancelling()} requests instead of {in_cleanup + self.requests}")

    def container(self, depth):
        choose = self.random.choice
        container = BackgroundTasks(as_group=choose([False, True]), limit=choose([None, None, 1, 3]))
        container.fail_fast, container.executor = choose([False, True]), choose([None, None, *self.executors])
        kind = choose([None, None, "deals", "deals later", "raises", "raises another"])
        container.on_error = kind and self.handler(container, kind)
        many = self.random.random() < 0.03
        for _ in range(60 if many else self.random.randrange(9)):
            if depth and not many and self.random.random() < 0.25:
                inner = self.container(depth - 1)
                self.parents[inner] = container
                container.tasks.append(inner)
            else:
                self.add_task(container)
        return container

    def handler(self, container, kind):
        def on_error(task, exc):
            numbers = [number for leaf in leaves(exc) for number in self.named(leaf)]
            if not isinstance(task, BackgroundTasks) and [self.place[number][0] for number in numbers] != [task]:
                self.noticed.append(f"{task!r} was blamed for {exc!r}")
            if "raises" in kind:
                another = OfContainer if isinstance(task, BackgroundTasks) else Failure
                raise exc if kind == "raises" else another(*numbers)
            self.dealt_with.add((container, task))
            self.events += [(number, "handled") for number in numbers]

        return later(on_error) if "later" in kind else on_error

    def named(self, leaf):
        """The numbers of the tasks whose failure it is; its notes say the same of that of one task."""
        noted = [int(number) for note in notes(leaf) for number in re.findall(r"^raised by .*\.task (\d+)\)$", note)]
        if type(leaf) is TypeError and "generator" in str(leaf):
            return noted
        numbers = list(leaf.args) if isinstance(leaf, (Failure, Broken)) else [repr(leaf)]
        if noted != (numbers if type(leaf) is Failure else []):
            self.noticed.append(f"the failure of {numbers} was noted as one of {noted}")
        return numbers

    def cancel(self):
        self.requests += self.run.cancel()

    def add_task(self, container, generation=0):
        number = next(self.numbers)
        rng = random.Random(f"{self.seed} {number}")
        ending = rng.choices(["succeeds", "fails", "breaks", "cancels the run"], [20, 3, 0.1, 0.4])[0]
        adds = rng.choice([0, 0, 0, 1, 2]) if generation < 2 else 0
        blocks, has_a_loop, steps = rng.random() < 0.2, rng.random() < 0.01, rng.randrange(3)
        when_cancelled = rng.choices(["ends", "fails", "goes on"], [6, 2, 1])[0]

        def work():
            for _ in range(adds):
                self.add_task(container, generation + 1)
            if ending == "cancels the run":
                self.loop.call_soon_threadsafe(self.cancel)
            if ending == "breaks":
                self.broken = True
                raise Broken(number)
            if ending == "fails":
                raise Failure(number)

        def in_thread(returned=None, end="done"):
            with self.told(number, "begins", end):
                if not self.is_elsewhere(container):
                    self.look(number)
                    var.set(number)
                if blocks:
                    time.sleep(0.0005)
                if has_a_loop:
                    asyncio.run(BackgroundTasks([BackgroundTask(int)] * 3, as_group=blocks)())
                work()
                return returned and returned()

        async def on_loop(start="begins"):
            with self.told(number, start):
                self.look(number)
                if container.as_group:  # in a sequence, others may have the same context
                    var.set(number)
                try:
                    await turns(steps)
                except asyncio.CancelledError:
                    if when_cancelled == "fails":
                        raise Failure(number) from None
                    if when_cancelled == "ends":
                        raise
                work()

        def returns_awaitable():
            with self.told(number, "begins", end="returned"):
                return on_loop("goes on")

        def returns_generator():
            return in_thread(generator_function, end="failed")

        kinds = [lambda: in_thread(), on_loop, returns_awaitable, returns_generator]
        func = rng.choices(kinds, [8, 8, 4, 0.5])[0]
        func.__qualname__ = f"task {number}"
        task = rng.choice([BackgroundTask, BackgroundTask, Overridden])(func)
        self.place[number] = task, container
        container.tasks.append(task)

    def look(self, number):
        if var.get() != self.seed:
            self.noticed.append(f"task {number} sees a context of {var.get()}")
        if getattr(self.place[number][0], "state", "called") != "called":
            self.noticed.append(f"task {number} is run without its own __call__")

    def is_elsewhere(self, container):
        """Whether its executor is one to which no context comes."""
        while container.executor is None and container in self.parents:
            container = self.parents[container]
        return isinstance(container.executor, Elsewhere)

    @contextlib.contextmanager
    def told(self, number, start, end="done"):
        self.events.append((number, start))
        try:
            yield
        except BaseException as exc:
            end = "failed" if isinstance(exc, (Failure, Broken)) else "interrupted"
            raise
        finally:
            self.events.append((number, end))

    def has_failed(self, task):
        if not isinstance(task, BackgroundTasks):
            return any(what == "failed" and self.place[number][0] is task for number, what in self.events)
        return any((task, each) not in self.dealt_with and self.has_failed(each) for each in task.tasks)

    def may_have_stopped(self, container):
        """Whether its tasks, or some of them, may have been left out."""
        if self.requests or self.broken or (container.fail_fast and self.has_failed(container)):
            return True
        return container in self.parents and self.may_have_stopped(self.parents[container])

    def problems(self, raised):
        """What became of the tasks and should not have."""
        count = collections.Counter(self.events)
        if type(raised) is not asyncio.CancelledError or not self.requests:
            count.update((number, "raised") for leaf in leaves(raised) for number in self.named(leaf))
        yield from self.noticed
        for number, (_, container) in self.place.items():
            became = collections.Counter({what: times for (each, what), times in count.items() if each == number})
            if became["begins"] > 1 or became["done"] + became["failed"] + became["interrupted"] > became["begins"]:
                yield f"task {number} has run more than once: {became}"
            lost = self.broken and not became["raised"]  # what is Broken passes through a sequence as it is
            if became["failed"] != became["raised"] + became["handled"] and not lost:
                yield f"a failure of task {number} is lost, or not alone: {became}"
            if became["done"] + became["failed"] != 1 and not self.may_have_stopped(container):
                yield f"task {number} has neither ended nor failed, and nothing has stopped the run: {became}"
        running, begun = collections.Counter(), collections.defaultdict(list)
        for number, what in self.events:
            task, container = self.place[number]
            running[container] += 1 if what in ("begins", "goes on") else -(what != "handled")
            limit = container.limit if container.as_group else 1
            if limit is not None and running[container] > limit:
                yield f"{running[container]} tasks at a time, not {limit}"
            if what == "begins" and not container.as_group:
                begun[container].append(container.tasks.index(task))
        if any(running.values()):
            yield "something is still running"
        if any(order != sorted(order) for order in begun.values()):
            yield f"a sequence has begun its tasks in another order: {begun}"


class Accounting(AsyncTestCase):
    async def test_every_task_is_accounted_for(self):
        executors = [self.pool(3), self.pool(3, Elsewhere)]
        accounts = [Account(seed, self.loop, executors) for seed in range(40 + self.many // 5)]
        counts = []
        for account in accounts:
            with self.subTest(seed=account.seed):
                self.assertEqual(list(account.problems(await outcome(self.go(account)))), [])
            counts.append(len(account.events))
        self.assertGreater(sum(len(account.place) for account in accounts), 10 * len(accounts))
        self.assertEqual([len(account.events) for account in accounts], counts)


class ReadMe(unittest.TestCase):
    """The code blocks of README.md, if it has come along with this file."""

    PATH = pathlib.Path(__file__).resolve().with_name("README.md")
    TEXT = PATH.read_text(encoding="utf-8") if PATH.exists() else None

    def test_the_first_command_prints_what_stands_below_it(self):
        if self.TEXT is not None:
            code, printed = re.search(r"(?ms)^```sh\n(.*?)^```$.*?^```text\n(.*?)^```$", self.TEXT).groups()
            script = re.fullmatch(r"(?s)python3 - <<'PY'\n(.*)\nPY\n", code)[1]
            self.assertEqual(run_python("-", input=script, cwd=HERE), printed)

    def test_the_python_blocks_on_its_options_run(self):
        if self.TEXT is not None:
            section = self.TEXT.split("\n## Options\n", 1)[1].split("\n## ", 1)[0]
            codes = re.findall(r"(?ms)^```python\n(.*?)^```$", section)
            self.assertGreater(len(codes), 0)
            for code in codes:
                with self.subTest(code=code), tempfile.TemporaryDirectory() as directory:
                    script = pathlib.Path(directory) / "block.py"
                    script.write_text(code, encoding="utf-8")
                    run_python(str(script), logs=True, cwd=directory)


if __name__ == "__main__":
    unittest.main()
