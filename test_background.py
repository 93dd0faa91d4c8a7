# SPDX-License-Identifier: MIT
# Copyright (c) 2026 The background.py authors
# ruff: noqa: ASYNC110, PT009, PT027
"""The tests of background.py: copy them along with it, and run `python3 -m unittest`."""

import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import copy
import dataclasses
import faulthandler
import functools
import gc
import inspect
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
import textwrap
import threading
import time
import types
import unittest
import warnings
import weakref
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from unittest import mock

import background
from background import BackgroundTask, BackgroundTasks, drain

HERE = pathlib.Path(background.__file__).resolve().parent
SECONDS = 20  # until something counts as hanging
MODES = {"in order": {}, "as group": {"as_group": True}, "limited": {"as_group": True, "limit": 2}}
GROUPS = {name: options for name, options in MODES.items() if options}

var = contextvars.ContextVar("var", default="default")


def modes(**options):
    """Makers of containers, one for each way of running, as (name, maker)."""
    return [(name, functools.partial(BackgroundTasks, **options, **MODES[name])) for name in MODES]


class Log(list):
    """Functions that record what they are given, then raise or return it."""

    def sync(self, item, raises=None):
        self.append(item)
        if raises is not None:
            raise raises

    async def coro(self, item, raises=None):
        self.append(item)
        if raises is not None:
            raise raises

    async def waiting(self, item, raises=None):
        await asyncio.sleep(0)
        await self.coro(item, raises)


class Gate:
    """A function for a thread, which says when it has begun and waits to be let through."""

    def __init__(self):
        self.begun, self.opened = threading.Event(), threading.Event()
        self.open = self.opened.set
        self.calls = self.ends = 0

    def __call__(self, *, raises=None, returns=None):
        self.calls += 1
        self.begun.set()
        hold(self.opened)
        self.ends += 1
        if raises is not None:
            raise raises
        return returns

    async def reached(self):
        await until(self.begun.is_set)


class Door:
    """The same for the event loop; it may fail when it is cancelled, or swallow the cancellation."""

    def __init__(self, when_cancelled=None, swallow=False):
        self.begun, self.opened = asyncio.Event(), asyncio.Event()
        self.open = self.opened.set
        self.cancelled, self.when_cancelled, self.swallow = False, when_cancelled, swallow

    async def __call__(self):
        self.begun.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            if self.when_cancelled is not None:
                raise self.when_cancelled from None
            if not self.swallow:
                raise

    async def reached(self):
        await self.begun.wait()


class Pool(ThreadPoolExecutor):
    """A pool of threads that shows what was submitted."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        call = super().submit(fn, *args, **kwargs)
        self.calls.append(call)
        return call


class Elsewhere(Executor):
    """An executor that is no pool of threads (as far as anyone can tell); it shows what was submitted."""

    def __init__(self, workers=4, cross=lambda value: value):
        self.pool, self.submitted, self.calls, self.cross = ThreadPoolExecutor(workers), [], [], cross

    def submit(self, fn, /, *args, **kwargs):
        self.submitted.append((fn, args, kwargs))
        self.calls.append(self.pool.submit(self.cross(fn), *args, **kwargs))
        return self.calls[-1]

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


def hold(event):
    """Wait in a thread, but not for ever."""
    if not event.wait(SECONDS):
        raise TimeoutError("nobody has set the event")


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


async def bounded(awaitable, seconds=SECONDS):
    async with asyncio.timeout(seconds):
        return await awaitable


async def outcome(awaitable):
    """What it raises; None if it returns."""
    try:
        await awaitable
    except BaseException as exc:
        return exc


async def cancelled(run, times=1):
    for _ in range(times):
        run.cancel()
        for _ in range(5):
            await asyncio.sleep(0)


def leaves(exc):
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in leaves(inner)]
    return [] if exc is None else [exc]


def notes(exc):
    return getattr(exc, "__notes__", [])


def spin(seconds=0.0001):
    """Compute for so long, on the clock: so many calls take at least so long on any machine."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def spin_async(seconds=0.0001):
    spin(seconds)


def run_python(*args, **options):
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, encoding="utf-8", timeout=60, env=environment, **options
    )
    if done.returncode:
        raise AssertionError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def eager_task_factory(loop, coro, *, name=None, context=None, eager_start=True):
    return asyncio.eager_task_factory(loop, coro, name=name, context=context)


class AsyncTestCase(unittest.IsolatedAsyncioTestCase):
    """Fails a test that hangs, and one that leaves something for the event loop to report."""

    def __init_subclass__(cls):
        for name, test in list(vars(cls).items()):
            if name.startswith("test") and inspect.iscoroutinefunction(test):
                setattr(cls, name, cls.bounded(test))

    @staticmethod
    def bounded(test):
        @functools.wraps(test)
        async def run(self):
            await bounded(test(self), 2 * SECONDS)

        return run

    async def asyncSetUp(self):
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True, file=sys.__stderr__)  # for what ignores cancellation
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        self.reports = []
        self.loop = asyncio.get_running_loop()
        self.loop.slow_callback_duration = SECONDS
        self.loop.set_debug(sys.flags.dev_mode or "PYTHONASYNCIODEBUG" in os.environ)  # unittest always does
        self.loop.set_exception_handler(lambda _, report: self.reports.append(report))

    async def asyncTearDown(self):
        self.assertEqual(self.reports, [])

    def gate(self):
        gate = Gate()
        self.addCleanup(gate.open)
        return gate

    def pool(self, workers=1, kind=Pool, **options):
        pool = kind(workers, **options)
        self.addCleanup(pool.shutdown, wait=False, cancel_futures=True)
        return pool

    async def full_pool(self, kind=Pool):
        """A pool whose only thread is busy until the gate is opened."""
        pool, gate = self.pool(1, kind), self.gate()
        pool.submit(gate)
        await gate.reached()
        pool.calls.clear()
        return pool, gate

    def go(self, container):
        """Run it in an asyncio task of its own."""
        return self.loop.create_task(container())

    async def ticks(self, run):
        """How often the event loop lets another task in until the run ends."""
        for ticks in itertools.count():  # noqa: B007
            if run.done():
                break
            await asyncio.sleep(0)
        await run
        return ticks


class NoWarning:
    """Nothing is left un-awaited, nor raised where nobody can catch it."""

    def __init__(self, case):
        self.case = case

    def __enter__(self):
        gc.collect()
        self.catch = warnings.catch_warnings(record=True)
        self.warnings = self.catch.__enter__()
        warnings.simplefilter("always")

    def __exit__(self, *exc):
        gc.collect()
        self.catch.__exit__(*exc)
        if exc == (None, None, None):
            self.case.assertEqual([str(warning.message) for warning in self.warnings], [])


class Names(AsyncTestCase):
    def test_three_names_are_exported(self):
        self.assertEqual(tuple(background.__all__), ("BackgroundTask", "BackgroundTasks", "drain"))

    def test_the_signatures(self):
        def text(func):
            signature = inspect.signature(func)
            parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
            return str(signature.replace(parameters=parameters, return_annotation=signature.empty))

        options = "tasks=None, as_group=False, *, limit=None, fail_fast=True, on_error=None, executor=None"
        for func, signature in [
            (BackgroundTask, "(func, *args, **kwargs)"),
            (BackgroundTask.__init__, "(self, /, func, *args, **kwargs)"),
            (BackgroundTask.__call__, "(self)"),
            (BackgroundTask.start, "(self)"),
            (BackgroundTasks, f"({options})"),
            (BackgroundTasks.__call__, "(self)"),
            (BackgroundTasks.start, "(self)"),
            (BackgroundTasks.add_task, "(self, /, func, *args, **kwargs)"),
            (BackgroundTasks.run_single, "(self)"),
            (BackgroundTasks.run_as_group, "(self)"),
            (drain, "()"),
        ]:
            with self.subTest(func.__qualname__):
                self.assertEqual(text(func), signature)

    def test_call_is_async_def_on_both_classes(self):
        for function in (BackgroundTask.__call__, BackgroundTasks.__call__, drain):
            self.assertTrue(inspect.iscoroutinefunction(function))
        self.assertIsNot(BackgroundTask.__call__, BackgroundTasks.__call__)

    def test_a_container_is_a_task(self):
        self.assertIsInstance(BackgroundTasks(), BackgroundTask)

    def test_a_task_keeps_the_function_and_its_arguments(self):
        task = BackgroundTask(print, 1, 2, sep="")
        self.assertEqual((task.func, task.args, task.kwargs), (print, (1, 2), {"sep": ""}))

    async def test_the_keywords_of_a_task_are_a_dict_of_its_own_that_can_be_changed(self):
        given = []

        async def coroutine(**kwargs):
            given.append(kwargs)

        for func in (lambda **kwargs: given.append(kwargs), coroutine):
            changed, replaced, other = task, *_ = [BackgroundTask(func) for _ in range(3)]
            self.assertEqual((task.kwargs, type(task.kwargs)), ({}, dict))
            changed.kwargs["way"] = "changed"
            replaced.kwargs = kept = {}
            self.assertIs(replaced.kwargs, kept)
            kept["way"] = "replaced"
            for mode, container in [("alone", None), *modes()]:
                for task in (changed, replaced, other):
                    await (container([task]) if container else task)()
                with self.subTest(mode):
                    self.assertEqual(given, [{"way": "changed"}, {"way": "replaced"}, {}])
                given.clear()
        tasks = BackgroundTasks()
        tasks.kwargs["way"] = "changed"
        self.assertEqual((tasks.kwargs, BackgroundTasks().kwargs), ({"way": "changed"}, {}))

    def test_the_function_may_be_given_by_keyword(self):
        self.assertIs(BackgroundTask(func=print).func, print)
        tasks = BackgroundTasks()
        tasks.add_task(func=print)
        self.assertIs(tasks.tasks[0].func, print)

    async def test_a_function_may_take_keywords_of_any_name(self):
        given = []

        def function(**kwargs):
            given.append(kwargs)

        async def coroutine(**kwargs):
            given.append(kwargs)

        kwargs = dict.fromkeys(["self", "tasks", "task", "fn", "limit", "as_group", "on_error", "executor", "name"], 1)
        tasks = BackgroundTasks()
        for func in (function, coroutine):
            await BackgroundTask(func, **kwargs)()
            tasks.add_task(func, **kwargs)
            tasks.add_task(functools.partial(func, func=1))
        await tasks()
        self.assertEqual(given, [kwargs, kwargs, kwargs, {"func": 1}, kwargs, {"func": 1}])

    async def test_keywords_reach_functions_in_every_mode(self):
        for mode, container in modes():
            with self.subTest(mode):
                log = Log()
                tasks = container()
                tasks.add_task(log.sync, item=1)
                tasks.add_task(log.coro, item=2)
                await tasks()
                self.assertEqual(sorted(log), [1, 2])

    def test_the_options_of_a_container_are_its_attributes(self):
        pool, task = self.pool(), BackgroundTask(print)
        tasks = BackgroundTasks([task], True, limit=3, fail_fast=False, on_error=print, executor=pool)
        self.assertEqual(
            (tasks.tasks, tasks.as_group, tasks.limit, tasks.fail_fast, tasks.on_error, tasks.executor),
            ([task], True, 3, False, print, pool),
        )

    def test_the_options_of_a_container_by_default(self):
        tasks = BackgroundTasks()
        self.assertEqual(
            (tasks.tasks, tasks.as_group, tasks.limit, tasks.fail_fast, tasks.on_error, tasks.executor),
            ([], False, None, True, None, None),
        )

    def test_the_func_of_a_container_is_the_method_that_runs_it(self):
        for as_group, method in [(False, "run_single"), (True, "run_as_group")]:
            tasks = BackgroundTasks([], as_group)
            self.assertEqual((tasks.func, tasks.args, tasks.kwargs), (getattr(tasks, method), (), {}))

    async def test_awaiting_returns_none(self):
        async def returns():
            return 1

        for mode, container in modes(tasks=[BackgroundTask(returns), BackgroundTask(int)]):
            with self.subTest(mode):
                tasks = container()
                for run in (tasks, tasks.run_single, tasks.run_as_group, tasks.tasks[0], tasks.tasks[1]):
                    self.assertIsNone(await run())

    def test_add_task_returns_none_and_appends_a_task(self):
        tasks = BackgroundTasks()
        self.assertIsNone(tasks.add_task(print, 1, end=""))
        (task,) = tasks.tasks
        self.assertIs(type(task), BackgroundTask)
        self.assertEqual((task.func, task.args, task.kwargs), (print, (1,), {"end": ""}))

    async def test_as_group_decides_what_awaiting_does(self):
        for as_group in (False, True):
            with self.subTest(as_group=as_group):
                doors = [Door(), Door()]
                run = self.go(BackgroundTasks(map(BackgroundTask, doors), as_group))
                await doors[0].reached()
                if as_group:
                    await doors[1].reached()
                self.assertEqual(doors[1].begun.is_set(), as_group)
                for door in doors:
                    door.open()
                await run

    async def test_run_single_keeps_the_order_whatever_as_group_says(self):
        log = Log()
        tasks = BackgroundTasks(as_group=True)
        for number in range(30):
            tasks.add_task((log.sync, log.coro, log.waiting)[number % 3], number)
        await tasks.run_single()
        self.assertEqual(log, list(range(30)))

    async def test_run_as_group_is_concurrent_whatever_as_group_says(self):
        barrier = threading.Barrier(4)
        tasks = BackgroundTasks(BackgroundTask(barrier.wait, SECONDS) for _ in range(4))
        await tasks.run_as_group()

    async def test_a_container_stands_where_a_task_can(self):
        log = Log()
        inner = BackgroundTasks([BackgroundTask(log.sync, "inner")])
        await BackgroundTasks([BackgroundTask(log.coro, "outer"), inner])()
        self.assertEqual(log, ["outer", "inner"])

    async def test_a_container_may_be_added_like_a_function(self):
        for mode, container in modes():
            with self.subTest(mode):
                log = Log()
                outer = container()
                outer.add_task(BackgroundTasks([BackgroundTask(log.sync, 1), BackgroundTask(log.coro, 2)]))
                outer.add_task(BackgroundTask(log.sync, 3))
                await outer()
                self.assertEqual(sorted(log), [1, 2, 3])

    async def test_an_overridden_call_is_the_one_seam_in_every_mode(self):
        log = Log()

        class Announced(BackgroundTask):
            async def __call__(self):
                log.append("before")
                await super().__call__()
                log.append("after")

        for mode, container in modes():
            for executor in (None, self.pool(), self.pool(kind=Elsewhere)):
                for func in (log.sync, log.coro):
                    with self.subTest(mode, executor=executor, func=func):
                        log.clear()
                        await container([Announced(func, 1)], executor=executor)()
                        self.assertEqual(log, ["before", 1, "after"])

    async def test_tasks_and_containers_can_be_pickled(self):
        for func in (spin, spin_async):
            tasks = pickle.loads(pickle.dumps(BackgroundTasks([BackgroundTask(func)], True, limit=2)))
            self.assertEqual((tasks.tasks[0].func, tasks.limit, tasks.func), (func, 2, tasks.run_as_group))
            await tasks()

    async def test_copied_tasks_run(self):
        for func in (spin, spin_async):
            for copied in (copy.copy, copy.deepcopy):
                await copied(BackgroundTask(func))()

    def test_tasks_and_containers_can_be_referenced_weakly_and_go_at_once(self):
        for make in (functools.partial(BackgroundTask, print), BackgroundTasks):
            task = make()
            reference = weakref.ref(task)
            self.assertIs(reference(), task)
            del task
            self.assertIsNone(reference())


class AsyncCall:
    async def __call__(self, log, item):
        log.append((item, threading.get_ident()))


class SyncCall:
    def __call__(self, log, item):
        log.append((item, threading.get_ident()))


class Methods:
    def sync(self, log, item):
        log.append((item, threading.get_ident()))

    async def coro(self, log, item):
        log.append((item, threading.get_ident()))

    @classmethod
    def of_class(cls, log, item):
        log.append((item, threading.get_ident()))

    @classmethod
    async def async_of_class(cls, log, item):
        log.append((item, threading.get_ident()))

    @staticmethod
    async def static(log, item):
        log.append((item, threading.get_ident()))


def function(log, item):
    log.append((item, threading.get_ident()))


async def coroutine(log, item):
    log.append((item, threading.get_ident()))


@types.coroutine
def old_coroutine(log, item):
    yield from asyncio.sleep(0).__await__()
    log.append((item, threading.get_ident()))


@functools.wraps(coroutine)
def decorated(*args):
    return coroutine(*args)


@functools.wraps(function)
async def decorated_by_async(*args):
    await asyncio.to_thread(int)
    function(*args)


class Awaitable:
    def __init__(self, log, item):
        self.log, self.item = log, item

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        function(self.log, self.item)


ASYNC_KINDS = {
    "an async function": coroutine,
    "an async method": Methods().coro,
    "an async class method": Methods.async_of_class,
    "an async static method": Methods.static,
    "a static method object": staticmethod(coroutine),
    "a partial": functools.partial(coroutine),
    "a partial of a partial": functools.partial(functools.partial(Methods().coro)),
    "an object with an async call": AsyncCall(),
    "a partial of an object with an async call": functools.partial(AsyncCall()),
    "the bound call of an object": AsyncCall().__call__,
    "a lambda over an async function": lambda *args: coroutine(*args),
    "a plain decorator": decorated,
    "an async decorator": decorated_by_async,
    "a types.coroutine function": old_coroutine,
    "a partial of a types.coroutine function": functools.partial(old_coroutine),
    "an autospec": mock.create_autospec(coroutine, side_effect=coroutine),
    "an AsyncMock": mock.AsyncMock(side_effect=coroutine),
    "a MagicMock that returns a coroutine": mock.MagicMock(side_effect=coroutine),
    "a class of awaitables": Awaitable,
}
SYNC_KINDS = {
    "a function": function,
    "a method": Methods().sync,
    "a class method": Methods.of_class,
    "a partial": functools.partial(functools.partial(function)),
    "an object with a call": SyncCall(),
    "the bound call of an object": SyncCall().__call__,
    "a static method object": staticmethod(function),
    "a lambda": lambda *args: function(*args),
    "a MagicMock": mock.MagicMock(side_effect=function),
    "a cached function": functools.cache(Methods().sync),
}


class WhatMayBeRun(AsyncTestCase):
    async def test_async_callables_of_every_kind_run_on_the_loop(self):
        for kind, func in ASYNC_KINDS.items():
            for mode, container in [("alone", None), *modes()]:
                with self.subTest(kind, mode=mode):
                    log = Log()
                    task = BackgroundTask(func, log, 1)
                    await (task() if container is None else container([task])())
                    self.assertEqual(log, [(1, threading.get_ident())])

    async def test_other_callables_of_every_kind_run_in_a_thread(self):
        for kind, func in SYNC_KINDS.items():
            for mode, container in [("alone", None), *modes()]:
                with self.subTest(kind, mode=mode):
                    log = Log()
                    with mock.patch.object(Log, "__hash__", object.__hash__):
                        task = BackgroundTask(func, log, 1)
                        await (task() if container is None else container([task])())
                    ((item, thread),) = log
                    self.assertEqual(item, 1)
                    self.assertNotEqual(thread, threading.get_ident())

    async def test_builtins_run(self):
        log = Log()
        await BackgroundTask(log.append, 1)()
        await BackgroundTask(log.extend, [2, 3])()
        self.assertEqual(log, [1, 2, 3])

    async def test_a_function_marked_as_async_is_called_on_the_loop(self):
        calls = []

        def marked():
            calls.append(threading.get_ident())
            return asyncio.sleep(0)

        mark = getattr(inspect, "markcoroutinefunction", None)  # from Python 3.12
        if mark is not None:
            await BackgroundTask(mark(marked))()
            self.assertEqual(calls, [threading.get_ident()])

    async def test_an_async_mock_is_awaited_once_with_its_arguments(self):
        for mode, container in modes():
            with self.subTest(mode):
                func = mock.AsyncMock()
                await container([BackgroundTask(func, 1, a=2)])()
                func.assert_awaited_once_with(1, a=2)

    async def test_a_class_is_a_plain_callable_even_if_its_instances_are_async(self):
        made = []

        class Job:
            def __init__(self):
                made.append(threading.get_ident())

            async def __call__(self):
                made.append("called")

        for func in (Job, functools.partial(Job)):
            made.clear()
            await BackgroundTask(func)()
            self.assertEqual(len(made), 1)
            self.assertNotEqual(made[0], threading.get_ident())

    async def test_a_returned_asyncio_future_is_awaited(self):
        for mode, container in modes():
            with self.subTest(mode):
                future, failure = self.loop.create_future(), ValueError()
                run = self.go(container([BackgroundTask(lambda: future)]))  # noqa: B023
                await BackgroundTask(int)()
                self.assertFalse(run.done())
                future.set_exception(failure)
                self.assertEqual(leaves(await outcome(run)), [failure])

    async def test_a_returned_concurrent_future_is_left_alone(self):
        for mode, container in modes():
            with self.subTest(mode):
                await container([BackgroundTask(concurrent.futures.Future)])()

    async def test_a_returned_awaitable_that_fails_is_a_failure_of_the_task(self):
        for mode, container in modes():
            with self.subTest(mode):
                failure = ValueError()
                run = container([BackgroundTask(lambda log: log.coro(1, failure), Log())])()  # noqa: B023
                self.assertEqual(leaves(await outcome(run)), [failure])

    async def test_nothing_is_left_unawaited(self):
        with NoWarning(self):
            for container in (BackgroundTasks, functools.partial(BackgroundTasks, as_group=True)):
                for func in (lambda: asyncio.sleep(0), asyncio.sleep, mock.AsyncMock()):
                    args = (0,) if func is asyncio.sleep else ()
                    await container([BackgroundTask(func, *args)] * 3)()

    async def test_one_instance_runs_a_thousand_times_concurrently(self):
        for mode, container in [("alone", None), *modes()]:
            with self.subTest(mode):
                log = Log()
                tasks = [BackgroundTask(log.sync, 1), BackgroundTask(log.waiting, 1)]
                times = 1000 if container is None else 200
                for task in tasks if container is None else [container(tasks)]:
                    await asyncio.gather(*(task() for _ in range(times)))
                self.assertEqual(len(log), 2 * times)

    async def test_one_instance_runs_again_and_again(self):
        for mode, container in modes():
            with self.subTest(mode):
                log = Log()
                tasks = container([BackgroundTask(log.sync, 1), BackgroundTask(log.coro, 1)])
                for _ in range(50):
                    await tasks()
                self.assertEqual(len(log), 100)

    async def test_a_container_runs_again_after_a_failure_and_after_a_cancellation(self):
        for mode, container in modes():
            with self.subTest(mode):
                log, door = Log(), Door()
                tasks = container([BackgroundTask(door), BackgroundTask(log.sync, 1, ValueError())])
                run = self.go(tasks)
                await door.reached()
                run.cancel()
                await asyncio.wait({run})
                door.open()
                for _ in range(2):
                    self.assertIsNotNone(await outcome(tasks()))
                del tasks.tasks[1]
                await tasks()
                run.cancelled() or run.exception()

    def test_one_instance_runs_on_several_event_loops_in_turn(self):
        for mode, container in modes():
            with self.subTest(mode):
                log = Log()
                tasks = container([BackgroundTask(log.sync, 1), BackgroundTask(log.waiting, 1)])
                for _ in range(3):
                    asyncio.run(bounded(tasks()), debug=False)
                self.assertEqual(len(log), 6)

    def test_one_instance_runs_on_the_event_loops_of_several_threads_at_once(self):
        log, barrier = Log(), threading.Barrier(8)

        async def many(tasks):
            barrier.wait(SECONDS)
            for _ in range(5):
                await tasks()

        for mode, container in modes():
            with self.subTest(mode), ThreadPoolExecutor(8) as pool:
                log.clear()
                tasks = container([BackgroundTask(log.sync, 1), BackgroundTask(log.waiting, 1)] * 5)
                for run in [pool.submit(asyncio.run, bounded(many(tasks)), debug=False) for _ in range(8)]:
                    run.result(SECONDS)
                self.assertEqual(len(log), 8 * 5 * 10)

    def test_tasks_may_be_any_iterable(self):
        task = BackgroundTask(print)
        for iterable in ([task], (task,), {task}, {task: 1}, iter([task]), (each for each in [task])):
            self.assertEqual(BackgroundTasks(iterable).tasks, [task])

    def test_the_given_list_is_copied(self):
        given = [BackgroundTask(print)]
        tasks = BackgroundTasks(given)
        tasks.add_task(print)
        given.clear()
        self.assertEqual(len(tasks.tasks), 2)

    async def test_an_empty_container_does_nothing(self):
        for mode, container in modes():
            with self.subTest(mode):
                self.assertIsNone(await container()())
                self.assertIsNone(await container(fail_fast=False, on_error=print, executor=self.pool())())


def generator_function():
    yield


async def async_generator_function():
    yield


class GeneratorCall:
    def __call__(self):
        yield


class AsyncGeneratorCall:
    async def __call__(self):
        yield


class Refusals(AsyncTestCase):
    def refused(self, *args, message):
        """Refused by the constructor and by add_task, when the task is made."""
        tasks = BackgroundTasks()
        for make in (BackgroundTask, tasks.add_task):
            with self.assertRaisesRegex(TypeError, message):
                make(*args)
        self.assertEqual(tasks.tasks, [])

    def test_what_is_not_callable_is_refused_by_its_type(self):
        for value in (None, 42, "secret", b"secret", ["secret"], object()):
            with self.subTest(type(value)):
                self.refused(value, message=rf"(?s)callable.*{type(value).__name__}.*function")
                with self.assertRaises(TypeError) as caught:
                    BackgroundTask(value)
                self.assertNotIn("secret", str(caught.exception))

    def test_a_coroutine_object_is_refused_and_closed(self):
        for make in (BackgroundTask, BackgroundTasks().add_task):
            with NoWarning(self):
                given = asyncio.sleep(0)
                with self.assertRaisesRegex(TypeError, r"coroutine.*function and its arguments.*\(send, 1\)"):
                    make(given)
                self.assertEqual(inspect.getcoroutinestate(given), inspect.CORO_CLOSED)

    def test_generator_functions_of_every_kind_are_refused(self):
        class Methods:
            def generator(self):
                yield

            async def async_generator(self):
                yield

        for func in (
            generator_function,
            async_generator_function,
            Methods().generator,
            Methods().async_generator,
            functools.partial(generator_function),
            functools.partial(functools.partial(async_generator_function)),
            GeneratorCall(),
            AsyncGeneratorCall(),
            functools.partial(GeneratorCall()),
        ):
            with self.subTest(func):
                self.refused(func, message=r"generator function.*(enerator|Call).*runs nothing")

    async def test_a_class_whose_instances_have_a_generator_as_call_is_a_plain_callable(self):
        await BackgroundTask(GeneratorCall)()

    def test_an_item_that_is_no_task_is_refused(self):
        for item in (print, None, 1, ("secret",)):
            with self.subTest(item), self.assertRaisesRegex(TypeError, rf"{type(item).__name__}.*wrap it") as caught:
                BackgroundTasks([BackgroundTask(print), item])
            self.assertNotIn("secret", str(caught.exception))

    def test_a_limit_below_one_is_refused(self):
        for limit in (0, -1):
            with self.assertRaisesRegex(ValueError, f"at least 1.*None.*{limit}"):
                BackgroundTasks(limit=limit)

    def test_a_limit_that_is_no_int_is_refused(self):
        for limit in (1.0, "2", [3]):
            with self.assertRaisesRegex(TypeError, f"int.*None.*{type(limit).__name__}"):
                BackgroundTasks(limit=limit)

    def test_an_on_error_that_cannot_be_called_is_refused(self):
        for on_error in (True, "print", 0):
            with self.assertRaisesRegex(TypeError, rf"on_error\(task, exception\).*{type(on_error).__name__}"):
                BackgroundTasks(on_error=on_error)


class Context(AsyncTestCase):
    def setUp(self):
        self.seen = []

    def sees(self):
        self.seen.append(var.get())

    async def sees_async(self):
        self.seen.append(var.get())

    def sets(self, raises=None):
        var.set("set in a thread")
        if raises is not None:
            raise raises

    async def test_a_task_sees_the_variables_of_whoever_awaits_it(self):
        for executor in (None, self.pool()):
            for mode, container in [("alone", None), *modes(executor=executor)]:
                for func in (self.sees, self.sees_async, lambda: self.sees_async()):
                    with self.subTest(mode, executor=executor):
                        self.seen.clear()
                        var.set(mode)
                        task = BackgroundTask(func)
                        await (task() if container is None else container([task])())
                        self.assertEqual(self.seen, [mode])

    async def test_a_task_sees_the_variables_of_whoever_started_it(self):
        for mode, container in modes():
            with self.subTest(mode):
                self.seen.clear()
                var.set(mode)
                started = container([BackgroundTask(self.sees), BackgroundTask(self.sees_async)]).start()
                var.set("later")
                await started
                self.assertEqual(self.seen, [mode, mode])

    async def test_what_a_thread_sets_does_not_reach_the_caller(self):
        for executor in (None, self.pool()):
            for mode, container in [("alone", None), *modes(executor=executor)]:
                with self.subTest(mode, executor=executor):
                    var.set("caller")
                    task = BackgroundTask(self.sets)
                    await (task() if container is None else container([task])())
                    self.assertEqual(var.get(), "caller")

    async def test_what_a_thread_sets_does_not_reach_the_next_task(self):
        for executor in (None, self.pool(1)):
            for mode, container in modes(executor=executor):
                with self.subTest(mode, executor=executor):
                    self.seen.clear()
                    var.set("caller")
                    tasks = container()
                    for func in (self.sets, self.sees, self.sees_async):
                        tasks.add_task(func)
                    await tasks()
                    self.assertEqual(self.seen, ["caller", "caller"])

    async def test_what_a_thread_sets_does_not_reach_the_next_user_of_the_thread(self):
        pool = self.pool(1)
        for mode, container in modes():
            with self.subTest(mode):
                await container([BackgroundTask(self.sets)], executor=pool)()
                self.assertEqual(await asyncio.wrap_future(pool.submit(var.get)), "default")

    async def test_what_a_thread_sets_does_not_reach_an_error_handler(self):
        for mode, container in modes(on_error=lambda *_: self.sees()):
            with self.subTest(mode):
                self.seen.clear()
                var.set("caller")
                await container([BackgroundTask(self.sets, ValueError())])()
                self.assertEqual(self.seen, ["caller"])

    async def test_the_tasks_of_a_group_have_contexts_of_their_own(self):
        async def sets(barrier, value):
            var.set(value)
            await barrier.wait()
            self.seen.append(var.get())

        barrier = asyncio.Barrier(2)
        await BackgroundTasks([BackgroundTask(sets, barrier, value) for value in "ab"], as_group=True)()
        self.assertEqual(sorted(self.seen), ["a", "b"])
        self.assertEqual(var.get(), "default")


class FrozenError(Exception):
    """Takes no attributes, and so no notes."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


class NotelessError(Exception):
    def add_note(self, note):
        raise RuntimeError("no notes")


@dataclasses.dataclass(frozen=True)
class DataError(Exception):
    number: int = 0


def with_notes(value):
    exc = ValueError()
    exc.__notes__ = value
    return exc


class StopSubclass(StopIteration):
    pass


class CustomBase(BaseException):
    pass


def fails():
    raise ValueError("failed")


async def fails_async():
    raise ValueError("failed")


# What run_in_executor would replace: it must come out as the same object.
CONCURRENT_ERRORS = (
    concurrent.futures.CancelledError,
    concurrent.futures.TimeoutError,
    concurrent.futures.InvalidStateError,
    concurrent.futures.BrokenExecutor,
)
UNRAISABLE = (StopIteration, StopSubclass, asyncio.CancelledError)


class Failures(AsyncTestCase):
    def failing(self, exc):
        """Tasks that fail with it: in a thread, on the loop, and in what a thread has returned."""
        log = Log()
        return [
            BackgroundTask(log.sync, 1, exc),
            BackgroundTask(log.coro, 1, exc),
            BackgroundTask(log.waiting, 1, exc),
            BackgroundTask(lambda: log.coro(1, exc)),
        ]

    async def test_a_failure_is_raised_as_the_same_object(self):
        failure = ValueError()
        for task in self.failing(failure):
            self.assertIs(await outcome(task()), failure)

    async def test_a_failure_has_a_note_that_names_the_function(self):
        for func in (fails, fails_async, lambda: fails_async()):
            for mode, container in [("alone", None), *modes()]:
                with self.subTest(mode, func=func):
                    task = BackgroundTask(func)
                    (failure,) = leaves(await outcome(task() if container is None else container([task])()))
                    (note,) = notes(failure)
                    self.assertIn(f"{__name__}.{func.__qualname__}", note)

    async def test_the_same_note_is_never_added_twice(self):
        failure = ValueError()
        for mode, container in [("alone", None), *modes(fail_fast=False)]:
            with self.subTest(mode):
                failure.__notes__ = ["mine"]
                for func in (Log().sync, Log().coro):
                    failure.__notes__ = ["mine"]
                    task = BackgroundTask(func, 1, failure)
                    for run in [task] * 2 if container is None else [container([task] * 2)]:
                        self.assertEqual(set(leaves(await outcome(run()))), {failure})
                    self.assertEqual(len(failure.__notes__), 2)

    async def test_an_exception_raised_by_two_functions_has_two_notes(self):
        failure = ValueError()
        await outcome(BackgroundTasks(self.failing(failure)[:2], fail_fast=False)())
        self.assertEqual(len(notes(failure)), 2)

    async def test_containers_add_no_notes(self):
        for mode, container in modes():
            with self.subTest(mode):
                failure = await outcome(container([container([container([BackgroundTask(fails)])])])())
                while isinstance(failure, ExceptionGroup):
                    self.assertEqual(notes(failure), [])
                    (failure,) = failure.exceptions
                self.assertEqual(len(notes(failure)), 1)

    async def test_an_exception_that_refuses_notes_is_raised_without(self):
        for failure in (FrozenError(), NotelessError(), DataError(), with_notes(None), with_notes(5)):
            for mode, container in [("alone", None), *modes()]:
                with self.subTest(mode, failure=failure):
                    for task in self.failing(failure):
                        run = task() if container is None else container([task])()
                        self.assertEqual([id(leaf) for leaf in leaves(await outcome(run))], [id(failure)])
                    self.assertNotIsInstance(notes(failure), list if notes(failure) else ())

    async def test_only_exceptions_get_notes(self):
        for failure in (CustomBase(), GeneratorExit(), KeyboardInterrupt(), SystemExit()):
            for task in self.failing(failure):
                self.assertIs(await outcome(task()), failure)
                self.assertIs(await outcome(BackgroundTasks([task])()), failure)
            self.assertEqual(notes(failure), [])

    async def test_a_failure_stops_the_rest_of_a_sequence(self):
        failure = ValueError()
        for failing in self.failing(failure):
            for rest in (Log().sync, Log().coro):
                tasks = BackgroundTasks([BackgroundTask(rest, 1), failing, BackgroundTask(rest, 2)])
                self.assertIs(await outcome(tasks()), failure)
                self.assertEqual(rest.__self__, [1])

    async def test_a_failure_cancels_the_others_of_a_group(self):
        failure = ValueError()
        for failing in self.failing(failure):
            doors = [Door(), Door()]
            group = await outcome(BackgroundTasks([*map(BackgroundTask, doors), failing], as_group=True)())
            self.assertIs(type(group), ExceptionGroup)
            self.assertEqual(group.exceptions, (failure,))
            self.assertTrue(doors[0].cancelled and doors[1].cancelled)

    async def test_all_failures_of_a_group_are_raised_together(self):
        first, second, third = ValueError(), KeyError(), OSError()
        gate = self.gate()

        async def fails_when_all_have_begun():
            await gate.reached()
            self.loop.call_soon(self.loop.call_soon, self.loop.call_soon, gate.open)
            raise first

        tasks = BackgroundTasks(
            [
                BackgroundTask(gate, raises=third),
                BackgroundTask(Door(when_cancelled=second)),
                BackgroundTask(fails_when_all_have_begun),
            ],
            as_group=True,
        )
        group = await outcome(tasks())
        self.assertIs(type(group), ExceptionGroup)
        self.assertEqual(set(group.exceptions), {first, second, third})

    async def test_a_failure_begins_no_more_of_a_limited_group(self):
        for failing in self.failing(ValueError()):
            for rest in (Log().sync, Log().coro):
                tasks = BackgroundTasks([failing, *(BackgroundTask(rest, 1) for _ in range(50))], True, limit=1)
                self.assertEqual(len(leaves(await outcome(tasks()))), 1)
                self.assertEqual(rest.__self__, [])

    async def test_without_fail_fast_no_failure_stops_another_task(self):
        for mode, container in modes(fail_fast=False):
            with self.subTest(mode):
                failures, log = [ValueError(), KeyError(), OSError()], Log()
                tasks = container()
                for failure in failures:
                    tasks.add_task(log.sync, 1, failure)
                    tasks.add_task(log.sync, 2)
                    tasks.add_task(log.waiting, 2)
                    tasks.add_task(log.coro, 1, failure)
                group = await outcome(tasks())
                self.assertIs(type(group), ExceptionGroup)
                self.assertEqual(sorted(map(id, group.exceptions)), sorted(map(id, failures * 2)))
                self.assertEqual(sorted(log), [1] * 6 + [2] * 6)

    async def test_without_fail_fast_the_failures_of_a_sequence_are_in_order(self):
        failures = [ValueError(), KeyError(), OSError()]
        tasks = BackgroundTasks([self.failing(failure)[0] for failure in failures], fail_fast=False)
        self.assertEqual((await outcome(tasks())).exceptions, tuple(failures))

    async def test_without_fail_fast_a_single_failure_is_in_a_group_too(self):
        for mode, container in modes(fail_fast=False):
            for failing in self.failing(ValueError()):
                with self.subTest(mode):
                    group = await outcome(container([failing])())
                    self.assertIs(type(group), ExceptionGroup)
                    self.assertEqual(len(group.exceptions), 1)

    async def test_without_fail_fast_failures_are_raised_when_all_have_ended(self):
        for mode, container in modes(fail_fast=False):
            with self.subTest(mode):
                door, gate = Door(), self.gate()
                run = self.go(container([BackgroundTask(fails), BackgroundTask(door), BackgroundTask(gate)]))
                await door.reached()
                door.open()
                await gate.reached()
                self.assertFalse(run.done())
                gate.open()
                self.assertIsInstance(await outcome(run), ExceptionGroup)
                self.assertEqual(gate.ends, 1)

    async def test_each_nested_container_decides_by_its_own_fail_fast(self):
        log = Log()
        rest = BackgroundTask(log.sync, 1)
        stops = BackgroundTasks([BackgroundTask(fails), BackgroundTask(log.sync, 2)])
        goes_on = BackgroundTasks([BackgroundTask(fails), BackgroundTask(log.sync, 3)], fail_fast=False)
        group = await outcome(BackgroundTasks([stops, goes_on, rest], fail_fast=False)())
        self.assertEqual(log, [3, 1])
        self.assertEqual([type(exc) for exc in group.exceptions], [ValueError, ExceptionGroup])

    async def test_a_failed_nested_group_is_a_failure_like_any_other(self):
        for func in (fails, fails_async, lambda: fails_async()):
            for option in ({"fail_fast": False}, {"on_error": lambda *_: None}):
                for mode, container in modes(**option):
                    for limit in (None, 1):
                        with self.subTest(mode, option=option, limit=limit):
                            log = Log()
                            inner = BackgroundTasks([BackgroundTask(func), BackgroundTask(int)], True, limit=limit)
                            tasks = [inner, BackgroundTask(log.sync, 1), inner, BackgroundTask(log.sync, 2)]
                            raised = await outcome(container(tasks)())
                            self.assertEqual(len(leaves(raised)), 2 if "fail_fast" in option else 0)
                            self.assertEqual(sorted(log), [1, 2])

    async def test_a_group_that_has_failed_leaves_no_cancellation_behind(self):
        for func in (fails, fails_async, Log().waiting):
            args = () if func in (fails, fails_async) else (1, ValueError())
            tasks = BackgroundTasks([BackgroundTask(func, *args), BackgroundTask(Door())], as_group=True)
            self.assertIsInstance(await outcome(tasks()), ExceptionGroup)
            self.assertEqual(asyncio.current_task().cancelling(), 0)
            await asyncio.sleep(0)

    async def test_what_a_thread_raises_comes_out_as_the_same_object(self):
        for kind in CONCURRENT_ERRORS:
            for executor in (None, self.pool(), self.pool(kind=Elsewhere)):
                for mode, container in [("alone", None), *modes(executor=executor)]:
                    with self.subTest(kind, mode=mode, executor=executor):
                        failure = kind()
                        task = BackgroundTask(Log().sync, 1, failure)
                        raised = await outcome(bounded(task() if container is None else container([task])()))
                        self.assertEqual(leaves(raised), [failure])

    async def test_what_cannot_leave_a_coroutine_comes_out_as_a_runtime_error_from_it(self):
        for kind in UNRAISABLE:
            for executor in (None, self.pool(), self.pool(kind=Elsewhere)):
                for mode, container in [("alone", None), *modes(executor=executor)]:
                    with self.subTest(kind, mode=mode, executor=executor):
                        cause = kind()
                        task = BackgroundTask(Log().sync, 1, cause)
                        raised = await outcome(bounded(task() if container is None else container([task])()))
                        (failure,) = leaves(raised)
                        self.assertIs(type(failure), RuntimeError)
                        self.assertIs(failure.__cause__, cause)
                        self.assertIn("sync", "".join(notes(failure)))

    async def test_what_cannot_leave_a_coroutine_is_a_failure_like_any_other(self):
        for mode, container in modes():
            for kind in UNRAISABLE:
                with self.subTest(mode, kind=kind):
                    log, handled = Log(), []
                    tasks = [BackgroundTask(log.sync, 1, kind()), BackgroundTask(log.sync, 2)]
                    await container(tasks, on_error=lambda _, exc: handled.append(exc))()  # noqa: B023
                    self.assertEqual(sorted(log), [1, 2])
                    self.assertEqual([type(exc) for exc in handled], [RuntimeError])

    async def test_other_base_exceptions_pass_through_a_sequence(self):
        for kind in (CustomBase, GeneratorExit, KeyboardInterrupt, SystemExit):
            for failure in [kind()] * 2:
                for failing in self.failing(failure):
                    with self.subTest(kind):
                        log = Log()
                        tasks = BackgroundTasks([failing, BackgroundTask(log.sync, 1)], fail_fast=False, on_error=print)
                        self.assertIs(await outcome(tasks()), failure)
                        self.assertEqual(log, [])

    async def test_other_base_exceptions_pass_through_a_group_in_a_base_exception_group(self):
        for kind in (CustomBase, GeneratorExit):
            for limit in (None, 1):
                for failing in self.failing(kind()):
                    with self.subTest(kind):
                        log = Log()
                        tasks = BackgroundTasks([failing], True, limit=limit, on_error=log.append)
                        group = await outcome(tasks())
                        self.assertIs(type(group), BaseExceptionGroup)
                        self.assertEqual([type(exc) for exc in group.exceptions], [kind])
                        self.assertEqual(log, [])

    def test_an_interrupt_passes_through_a_group_as_itself(self):
        for kind in (KeyboardInterrupt, SystemExit):
            for failing in self.failing(kind()):
                with self.subTest(kind), asyncio.Runner(debug=False) as runner:
                    loop = runner.get_loop()
                    tasks = BackgroundTasks([failing, BackgroundTask(asyncio.sleep, SECONDS)], True, on_error=print)
                    run = loop.create_task(outcome(bounded(tasks())))
                    try:
                        raised = loop.run_until_complete(run)
                    except kind:  # asyncio stops the loop for it
                        raised = loop.run_until_complete(run)
                    self.assertIs(type(raised), kind)

    async def test_an_async_function_that_raises_cancelled_error_counts_as_cancelled(self):
        for func in (Log().coro, Log().waiting):
            task = BackgroundTask(func, 1, asyncio.CancelledError())
            self.assertIs(type(await outcome(task())), asyncio.CancelledError)
            log = Log()
            tasks = BackgroundTasks([task, BackgroundTask(log.sync, 1)], fail_fast=False, on_error=print)
            self.assertIs(type(await outcome(tasks())), asyncio.CancelledError)
            self.assertEqual(log, [])
            for limit in (None, 1):
                log = Log()
                rest = [BackgroundTask(log.sync, 1), BackgroundTask(log.coro, 1)]
                await BackgroundTasks([task, *rest], True, limit=limit, on_error=print)()
                self.assertEqual(log, [1, 1])

    async def test_no_base_exception_loses_the_failures_collected_before(self):
        for failure in (CustomBase(), asyncio.CancelledError()):
            tasks = BackgroundTasks([BackgroundTask(fails), BackgroundTask(Log().coro, 1, failure)], fail_fast=False)
            raised = await outcome(tasks())
            if isinstance(failure, CustomBase):
                self.assertIs(raised, failure)
            else:
                self.assertEqual([type(leaf) for leaf in leaves(raised)], [ValueError])


class OnError(AsyncTestCase):
    async def test_it_is_called_with_the_task_and_its_exception(self):
        for mode, container in modes():
            for func in (Log().sync, Log().coro):
                for is_async in (False, True):
                    with self.subTest(mode, is_async=is_async):
                        handled, failure = [], ValueError()

                        async def on_error(task, exc):
                            await asyncio.sleep(0)
                            handled.append((task, exc))  # noqa: B023

                        def plain(task, exc):
                            handled.append((task, exc))  # noqa: B023

                        tasks = container([BackgroundTask(func, 1, failure)], on_error=on_error if is_async else plain)
                        await tasks()
                        self.assertEqual(handled, [(tasks.tasks[0], failure)])

    async def test_it_runs_on_the_loop(self):
        threads = []
        for mode, container in modes(on_error=lambda *_: threads.append(threading.get_ident())):
            with self.subTest(mode):
                await container([BackgroundTask(fails), BackgroundTask(fails_async)])()
        self.assertEqual(threads, [threading.get_ident()] * 6)

    async def test_it_is_called_as_the_failure_happens(self):
        log = Log()
        for func in (log.sync, log.coro):
            log.clear()
            tasks = [BackgroundTask(func, 1, ValueError()), BackgroundTask(func, 2)]
            await BackgroundTasks(tasks, on_error=lambda *_: log.append("handled"))()
            self.assertEqual(log, [1, "handled", 2])

    async def test_it_is_called_while_other_tasks_of_a_group_still_run(self):
        for limit in (None, 2):
            for failing in (fails, fails_async):
                gate, handled = self.gate(), asyncio.Event()
                tasks = [BackgroundTask(gate), BackgroundTask(failing)]
                run = self.go(BackgroundTasks(tasks, True, limit=limit, on_error=lambda *_: handled.set()))  # noqa: B023
                await handled.wait()
                self.assertFalse(run.done())
                gate.open()
                await run

    async def test_a_failure_that_it_has_dealt_with_stops_nothing_and_is_not_raised(self):
        for fail_fast in (False, True):
            for mode, container in modes(fail_fast=fail_fast, on_error=lambda *_: None):
                with self.subTest(mode, fail_fast=fail_fast):
                    log = Log()
                    tasks = container()
                    for func in (log.sync, log.coro, log.waiting):
                        tasks.add_task(func, 1, ValueError())
                        tasks.add_task(func, 1)
                    await tasks()
                    self.assertEqual(log, [1] * 6)

    async def test_what_it_raises_is_the_failure_instead(self):
        for fail_fast in (False, True):
            for mode, container in modes(fail_fast=fail_fast):
                for is_async in (False, True):
                    with self.subTest(mode, fail_fast=fail_fast, is_async=is_async):
                        log, instead = Log(), OSError()

                        def on_error(task, exc):
                            raise instead  # noqa: B023

                        async def on_error_async(task, exc):
                            raise instead  # noqa: B023

                        tasks = container([BackgroundTask(fails), BackgroundTask(log.sync, 1)])
                        tasks.on_error = on_error_async if is_async else on_error
                        self.assertEqual(leaves(await outcome(tasks())), [instead])
                        if not fail_fast or mode == "in order":
                            self.assertEqual(log, [] if fail_fast else [1])

    async def test_it_may_raise_what_it_was_given(self):
        def on_error(task, exc):
            raise exc

        for mode, container in modes(on_error=on_error):
            with self.subTest(mode):
                failure = ValueError()
                raised = await outcome(container([BackgroundTask(Log().coro, 1, failure)])())
                self.assertEqual(leaves(raised), [failure])

    async def test_a_base_exception_that_it_raises_passes_through(self):
        def on_error(task, exc):
            raise CustomBase

        for mode, container in modes(on_error=on_error, fail_fast=False):
            with self.subTest(mode):
                log = Log()
                raised = await outcome(container([BackgroundTask(fails), BackgroundTask(log.sync, 1)])())
                self.assertIn(CustomBase, [type(leaf) for leaf in leaves(raised)])

    async def test_a_handler_that_raises_cancelled_error_has_not_dealt_with_the_failure(self):
        def on_error(task, exc):
            raise asyncio.CancelledError

        for fail_fast in (False, True):
            for mode, container in modes(on_error=on_error, fail_fast=fail_fast):
                with self.subTest(mode):
                    raised = await outcome(container([BackgroundTask(fails)])())
                    self.assertEqual([type(leaf) for leaf in leaves(raised)], [ValueError])

    async def test_a_handler_that_is_cancelled_has_not_dealt_with_the_failure(self):
        for fail_fast in (False, True):
            for mode, container in modes(fail_fast=fail_fast):
                with self.subTest(mode, fail_fast=fail_fast):
                    door, log = Door(), Log()
                    tasks = [BackgroundTask(fails), BackgroundTask(log.sync, 1)]
                    run = self.go(container(tasks, on_error=lambda *_: door()))  # noqa: B023
                    await door.reached()
                    await cancelled(run)
                    self.assertEqual([type(leaf) for leaf in leaves(await outcome(run))], [ValueError])
                    if mode == "in order":
                        self.assertEqual(log, [])

    async def test_it_is_not_called_in_a_run_that_is_being_cancelled(self):
        for mode, container in modes():
            with self.subTest(mode):
                gate, handled, failure = self.gate(), [], ValueError()
                on_error = lambda task, exc: handled.append(exc)  # noqa: B023, E731
                run = self.go(container([BackgroundTask(gate, raises=failure)], on_error=on_error))
                await gate.reached()
                await cancelled(run)
                gate.open()
                self.assertEqual(leaves(await outcome(run)), [failure])
                self.assertEqual(handled, [])

    async def test_it_is_given_a_nested_container_with_its_failure(self):
        for mode, container in modes():
            with self.subTest(mode):
                handled, inner = [], BackgroundTasks([BackgroundTask(fails)])
                await container([inner], on_error=lambda task, exc: handled.append((task, type(exc))))()  # noqa: B023
                self.assertEqual(handled, [(inner, ValueError)])

    async def test_the_handler_of_a_nested_container_comes_first(self):
        log = Log()
        inner = BackgroundTasks([BackgroundTask(fails)], on_error=lambda *_: log.append("inner"))
        await BackgroundTasks([inner], on_error=lambda *_: log.append("outer"))()
        self.assertEqual(log, ["inner"])

    async def test_an_awaitable_that_it_returns_is_awaited(self):
        log = Log()
        for on_error in (lambda *_: Awaitable(log, 1), mock.AsyncMock(side_effect=lambda *_: log.append(1))):
            log.clear()
            await BackgroundTasks([BackgroundTask(fails)], on_error=on_error)()
            self.assertEqual(len(log), 1)


class Single(BackgroundTask):
    """Run by its container through `__call__`."""


class Cancellation(AsyncTestCase):
    async def assert_cancelled(self, run):
        self.assertIs(type(await outcome(bounded(run))), asyncio.CancelledError)

    async def test_an_async_function_is_cancelled(self):
        for mode, container in [("alone", None), *modes()]:
            with self.subTest(mode):
                door = Door()
                task = BackgroundTask(door)
                run = self.go(task if container is None else container([task]))
                await door.reached()
                await cancelled(run)
                await self.assert_cancelled(run)
                self.assertTrue(door.cancelled)

    async def test_a_cancelled_await_ends_when_the_function_in_a_thread_has_ended(self):
        for executor in (None, self.pool(), self.pool(kind=Elsewhere)):
            for kind in (BackgroundTask, Single):
                for mode, container in [("alone", None), *modes(executor=executor)]:
                    for times in (1, 3):
                        with self.subTest(mode, times=times, executor=executor, kind=kind):
                            gate = self.gate()
                            task = kind(gate)
                            run = self.go(task if container is None else container([task]))
                            await gate.reached()
                            await cancelled(run, times)
                            self.assertFalse(run.done())
                            gate.open()
                            await self.assert_cancelled(run)
                            self.assertEqual(gate.ends, 1)

    async def test_a_function_still_queued_for_a_thread_never_begins(self):
        for pool_kind in (Pool, Elsewhere):
            for kind in (BackgroundTask, Single):
                for mode, container in modes():
                    with self.subTest(mode, kind=kind, pool=pool_kind):
                        log = Log()
                        pool, gate = await self.full_pool(pool_kind)
                        run = self.go(container([kind(log.sync, 1), kind(log.sync, 2)], executor=pool))
                        await until(lambda: pool.calls)  # noqa: B023
                        await cancelled(run)
                        await self.assert_cancelled(run)
                        self.assertEqual(gate.ends, 0)
                        gate.open()
                        await asyncio.wrap_future(pool.submit(int))
                        self.assertEqual(log, [])

    async def test_a_task_still_queued_for_the_pool_of_the_module_never_begins(self):
        gates, log = [self.gate() for _ in range(40)], Log()
        busy = self.go(BackgroundTasks(map(BackgroundTask, gates), as_group=True))
        for gate in gates:
            await gate.reached()
        run = self.go(BackgroundTask(log.sync, 1))
        await asyncio.sleep(0)
        await cancelled(run)
        await self.assert_cancelled(run)
        for gate in gates:
            gate.open()
        await busy
        await BackgroundTask(int)()
        self.assertEqual(log, [])

    async def test_the_rest_of_a_sequence_never_begins(self):
        for rest in (Log().sync, Log().coro):
            for blocking in (Door(), self.gate()):
                run = self.go(BackgroundTasks([BackgroundTask(blocking), BackgroundTask(rest, 1)], fail_fast=False))
                await blocking.reached()
                await cancelled(run)
                blocking.open()
                await self.assert_cancelled(run)
                self.assertEqual(rest.__self__, [])

    async def test_the_rest_of_a_limited_group_never_begins(self):
        for rest in (Log().sync, Log().coro):
            for blocking in (Door(), self.gate()):
                tasks = [BackgroundTask(blocking), *(BackgroundTask(rest, 1) for _ in range(20))]
                run = self.go(BackgroundTasks(tasks, as_group=True, limit=1, fail_fast=False))
                await blocking.reached()
                await cancelled(run)
                blocking.open()
                await self.assert_cancelled(run)
                self.assertEqual(rest.__self__, [])

    async def test_the_rest_of_a_large_group_never_begins(self):
        for func in (Log().sync, Log().coro):
            log = func.__self__
            tasks = [BackgroundTask(func, 1) for _ in range(20_000)]
            run = self.go(BackgroundTasks(tasks, as_group=True))
            while not log:
                await asyncio.sleep(0)
            await cancelled(run)
            await self.assert_cancelled(run)
            begun = len(log)
            self.assertLess(begun, 20_000)
            await BackgroundTasks([BackgroundTask(int)] * 40, as_group=True)()
            self.assertEqual(len(log), begun)

    async def test_an_awaitable_returned_after_the_cancellation_is_closed(self):
        for executor in (None, self.pool(), self.pool(kind=Elsewhere)):
            for mode, container in [("alone", None), *modes(executor=executor)]:
                with self.subTest(mode, executor=executor), NoWarning(self):
                    gate, log = self.gate(), Log()
                    coroutine = log.coro(1)
                    task = BackgroundTask(gate, returns=coroutine)
                    run = self.go(task if container is None else container([task]))
                    await gate.reached()
                    await cancelled(run)
                    gate.open()
                    await self.assert_cancelled(run)
                    self.assertEqual(inspect.getcoroutinestate(coroutine), inspect.CORO_CLOSED)
                    self.assertEqual(log, [])

    async def test_a_future_returned_after_the_cancellation_is_cancelled(self):
        gate, future = self.gate(), self.loop.create_future()
        run = self.go(BackgroundTask(gate, returns=future))
        await gate.reached()
        await cancelled(run)
        gate.open()
        await self.assert_cancelled(run)
        self.assertTrue(future.cancelled())

    async def test_another_awaitable_returned_after_the_cancellation_is_not_run(self):
        gate, log = self.gate(), Log()
        run = self.go(BackgroundTask(gate, returns=Awaitable(log, 1)))
        await gate.reached()
        await cancelled(run)
        gate.open()
        await self.assert_cancelled(run)
        self.assertEqual(log, [])

    async def test_a_failure_after_the_cancellation_is_raised(self):
        options = ({}, {"fail_fast": False}, {"on_error": print}, {"executor": self.pool()})
        for option in (*options, {"executor": self.pool(kind=Elsewhere)}):
            for mode, container in [("alone", None), *modes(**option)]:
                for make in (self.gate, Door):
                    with self.subTest(mode, option=option, make=make):
                        failure, log = ValueError(), Log()
                        blocking = make()
                        if isinstance(blocking, Door):
                            blocking.when_cancelled = failure
                            task = BackgroundTask(blocking)
                        else:
                            task = BackgroundTask(blocking, raises=failure)
                        run = self.go(task if container is None else container([task, BackgroundTask(log.sync, 1)]))
                        await blocking.reached()
                        await cancelled(run)
                        blocking.open()
                        self.assertEqual(leaves(await outcome(run)), [failure])
                        if mode == "in order":
                            self.assertEqual(log, [])

    async def test_failures_collected_before_the_cancellation_are_raised(self):
        for mode, container in modes(fail_fast=False):
            for blocking in (Door(), self.gate()):
                with self.subTest(mode):
                    failure, log = ValueError(), Log()
                    failing = [BackgroundTask(log.coro, 1, failure), BackgroundTask(log.sync, 1, failure)]
                    run = self.go(container([*failing, BackgroundTask(blocking), BackgroundTask(log.sync, 2)]))
                    await blocking.reached()
                    await until(lambda: log.count(1) == 2)  # noqa: B023
                    for _ in range(3):
                        await BackgroundTask(int)()
                    await cancelled(run)
                    blocking.open()
                    self.assertEqual(leaves(await outcome(run)), [failure, failure])

    async def test_failures_before_and_after_the_cancellation_are_raised_in_one_exception_group(self):
        for mode, container in modes(fail_fast=False):
            with self.subTest(mode):
                before, after = ValueError(), KeyError()
                door = Door(when_cancelled=after)
                run = self.go(container([BackgroundTask(Log().coro, 1, before), BackgroundTask(door)]))
                await door.reached()
                await cancelled(run)
                raised = await outcome(run)
                self.assertIs(type(raised), ExceptionGroup)
                self.assertEqual(raised.exceptions, (before, after))

    async def test_a_task_cancelled_before_its_first_step_never_begins(self):
        self.loop.set_task_factory(None)
        for mode, container in [("alone", None), *modes()]:
            for func in (Log().sync, Log().coro):
                with self.subTest(mode):
                    task = BackgroundTask(func, 1)
                    run = self.go(task if container is None else container([task]))
                    run.cancel()
                    await self.assert_cancelled(run)
                    self.assertEqual(func.__self__, [])

    async def test_a_function_for_a_thread_never_begins_once_its_caller_is_cancelled(self):
        for executor in (None, self.pool(), self.pool(kind=Elsewhere)):
            for mode, container in [("alone", None), *modes(executor=executor)]:
                with self.subTest(mode, executor=executor):
                    log = Log()
                    task = BackgroundTask(log.sync, 1)

                    async def cancel_and_run():
                        asyncio.current_task().cancel()
                        await (task if container is None else container([task]))()  # noqa: B023

                    await self.assert_cancelled(self.go(cancel_and_run))
                    self.assertEqual(log, [])

    async def test_a_timeout_ends_when_the_function_in_a_thread_has_ended(self):
        for mode, container in [("alone", None), *modes()]:
            with self.subTest(mode):
                gate, log = self.gate(), Log()
                task = BackgroundTask(gate)
                timeout = asyncio.timeout(None)

                async def run_out():
                    await gate.reached()  # noqa: B023
                    timeout.reschedule(self.loop.time())  # noqa: B023
                    await until(timeout.expired)  # noqa: B023
                    log.append(gate.ends)  # noqa: B023
                    gate.open()  # noqa: B023

                running_out = self.go(run_out)
                with self.assertRaises(TimeoutError):
                    async with timeout:
                        await (task if container is None else container([task]))()
                self.assertEqual((log, gate.ends), ([0], 1))
                await running_out

    async def test_waiting_for_a_started_task_may_stop_without_stopping_the_work(self):
        gate = self.gate()
        started = BackgroundTask(gate).start()
        await gate.reached()
        done, pending = await asyncio.wait({started}, timeout=0)
        self.assertEqual((done, pending), (set(), {started}))
        gate.open()
        await started
        self.assertEqual(gate.ends, 1)

    async def test_a_function_that_swallows_the_cancellation_ends_it(self):
        for rest in (Log().sync, Log().coro):
            door = Door(swallow=True)
            run = self.go(BackgroundTasks([BackgroundTask(door), BackgroundTask(rest, 1)]))
            await door.reached()
            await cancelled(run)
            self.assertIsNone(await outcome(run))
            self.assertEqual(rest.__self__, [1])

    async def test_a_run_that_goes_on_after_a_swallowed_cancellation_can_be_cancelled_again(self):
        for blocking in (Door(), self.gate()):
            door, log = Door(swallow=True), Log()
            run = self.go(BackgroundTasks([*map(BackgroundTask, (door, blocking)), BackgroundTask(log.sync, 1)]))
            await door.reached()
            await cancelled(run)
            await blocking.reached()
            await cancelled(run)
            blocking.open()
            await self.assert_cancelled(run)
            self.assertEqual(log, [])

    async def children(self, func):
        """The asyncio tasks of a function in a group, as soon as there are any: before their first steps."""
        name = f"{__name__}.{func.__qualname__}"
        while not (children := [task for task in asyncio.all_tasks() if task.get_name() == name]):
            await asyncio.sleep(0)
        return children

    async def test_a_child_of_a_group_cancelled_before_its_first_step_loses_no_other(self):
        self.loop.set_task_factory(None)
        for limit in (None, 1, 2, 10):
            for func in (Log().sync, Log().coro):
                log = func.__self__
                tasks = [BackgroundTask(log.coro, "cancelled"), *(BackgroundTask(func, number) for number in range(20))]
                run = self.go(BackgroundTasks(tasks, as_group=True, limit=limit))
                (await self.children(log.coro))[0].cancel()
                await bounded(run)
                self.assertEqual(len(log), 20)

    async def test_a_limited_group_whose_children_are_cancelled_before_their_first_steps_does_not_hang(self):
        self.loop.set_task_factory(None)
        for limit in (1, 2):
            log = Log()
            run = self.go(BackgroundTasks([BackgroundTask(log.coro, number) for number in range(9)], True, limit=limit))
            children = await self.children(log.coro)
            for child in children:
                child.cancel()
            await bounded(run)
            self.assertEqual(log, list(range(len(children), 9)))

    async def test_a_running_child_cancelled_from_outside_counts_as_cancelled(self):
        for limit in (None, 1):
            door, log, children = Door(), Log(), []

            async def child():
                children.append(asyncio.current_task())  # noqa: B023
                await door()  # noqa: B023

            run = self.go(BackgroundTasks([BackgroundTask(child), BackgroundTask(log.sync, 1)], True, limit=limit))
            await door.reached()
            children[0].cancel()
            await bounded(run)
            self.assertEqual((door.cancelled, log), (True, [1]))

    async def test_nothing_of_a_failed_group_runs_any_more(self):
        gate = self.gate()

        async def fails_when_the_thread_runs():
            await gate.reached()
            self.loop.call_later(0.01, gate.open)
            raise ValueError

        tasks = BackgroundTasks([BackgroundTask(gate), BackgroundTask(fails_when_the_thread_runs)], as_group=True)
        self.assertEqual([type(leaf) for leaf in leaves(await outcome(tasks()))], [ValueError])
        self.assertEqual(gate.ends, 1)


class FalsyTask(BackgroundTask):
    def __bool__(self):
        return False


class Argument:
    """Something that can be weakly referenced."""


class NothingIsLost(AsyncTestCase):
    async def test_a_pool_whose_initializer_fails_is_the_failure_of_its_tasks(self):
        def broken():
            raise LookupError

        with self.assertLogs("concurrent.futures", "CRITICAL"):
            for mode, container in modes(fail_fast=False, executor=self.pool(initializer=broken)):
                with self.subTest(mode):
                    log, handled = Log(), Log()
                    run = container([BackgroundTask(log.sync, item) for item in range(3)])
                    run.on_error = lambda task, exc, handled=handled: handled.append((task.args, type(exc)))
                    await run()
                    broken_pool = concurrent.futures.thread.BrokenThreadPool
                    self.assertEqual((log, sorted(handled, key=str)), ([], [((i,), broken_pool) for i in range(3)]))

    async def test_a_task_that_is_falsy_runs(self):
        log = Log()
        await FalsyTask(log.sync, "alone")()
        for mode, container in modes():
            await container([BackgroundTask(log.sync, mode), FalsyTask(log.sync, mode), FalsyTask(log.coro, mode)])()
        self.assertEqual(collections.Counter(log), {"alone": 1} | dict.fromkeys(MODES, 3))

    async def test_a_member_of_a_limited_group_that_is_cancelled_on_its_own_gives_up_its_place(self):
        door = Door()

        async def cancels_itself():
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        async def opens():
            door.open()

        tasks = [BackgroundTask(cancels_itself), BackgroundTask(door), BackgroundTask(opens)]
        await BackgroundTasks(tasks, True, limit=2)()

    async def test_threads_whose_asyncio_tasks_are_cancelled_on_their_own_drop_nothing_that_waits(self):
        log, gate = Log(), self.gate()
        begun = Log()

        def waits(item):
            begun.sync(item)
            gate()
            log.sync(item)

        run = self.go(BackgroundTasks([BackgroundTask(waits, item) for item in range(60)], as_group=True))
        await until(lambda: len(begun) == 40)
        name = f"{__name__}.{waits.__qualname__}"
        children = [task for task in asyncio.all_tasks() if task.get_name() == name]
        for child in children:
            child.cancel()
        gate.open()
        await run
        self.assertGreaterEqual(len(log), 100 - len(children))  # a child that waits for a thread may be among them

    async def test_a_group_whose_members_are_cancelled_before_their_first_steps_keeps_to_its_limit(self):
        self.loop.set_task_factory(None)
        gate = self.gate()

        def waits():
            gate()

        run = self.go(BackgroundTasks([BackgroundTask(waits) for _ in range(12)], as_group=True, limit=2))
        name = f"{__name__}.{waits.__qualname__}"
        while not (children := [task for task in asyncio.all_tasks() if task.get_name() == name]):
            await asyncio.sleep(0)
        for child in children:
            child.cancel()
        await until(lambda: gate.calls >= 2)
        for _ in range(3):  # through the same threads, behind whatever is on its way to them
            await BackgroundTask(int)()
        self.assertEqual(gate.calls, 2)
        gate.open()
        await run
        self.assertEqual(gate.calls, 12 - len(children))

    async def test_a_task_factory_that_knows_of_no_context_serves_a_group(self):
        def factory(loop, coro, context=None, **_):  # uvloop says always that there is none
            contexts.add(context)
            return asyncio.Task(coro, loop=loop)

        contexts = {None}
        for mode, container in modes():
            with self.subTest(mode):
                log = Log()
                tasks = [BackgroundTask(func, item) for item in range(9) for func in (log.sync, log.coro)]
                self.loop.set_task_factory(factory)
                try:
                    await container(tasks)()
                finally:
                    self.loop.set_task_factory(None)
                self.assertEqual((contexts, sorted(log)), ({None}, sorted([*range(9), *range(9)])))

    async def test_a_task_without_a_function_but_with_a_call_of_its_own_runs(self):
        class Tick(BackgroundTask):
            def __init__(self, log):
                self.func, self.args, self.kwargs, self.log = None, (), {}, log

            async def __call__(self):
                self.log.append("tick")

        for mode, container in modes():
            with self.subTest(mode):
                log = Log()
                await container([Tick(log), Tick(log)])()
                self.assertEqual(log, ["tick", "tick"])

    async def test_a_failure_after_the_cancellation_leaves_no_cycle(self):
        self.addCleanup(gc.enable)
        for container in (None, BackgroundTasks):
            gate, argument = self.gate(), Argument()
            kept = weakref.ref(argument)

            def fails_late(argument, gate=gate):
                gate()
                raise ValueError

            task = BackgroundTask(fails_late, argument)
            run = self.go(task if container is None else container([task]))
            del argument, task
            await gate.reached()
            run.cancel()
            await asyncio.sleep(0)
            gc.collect()
            gc.disable()
            gate.open()
            with contextlib.suppress(ValueError):
                await run
            del run
            meet = BackgroundTask(threading.Barrier(40).wait)  # a thread may hold on to it until it runs again
            await BackgroundTasks([meet] * 40, as_group=True)()
            with contextlib.suppress(TimeoutError):  # a thread may hold on to it for a moment
                await bounded(until(lambda: kept() is None), 0.5)  # noqa: B023
            self.assertIsNone(kept())
            gc.enable()

    async def test_a_task_group_that_fails_inside_a_function_stops_no_other_task(self):
        async def fails_later():  # an eager child that fails at once leaves a stray cancellation on 3.12
            await asyncio.sleep(0)
            raise ValueError

        async def fails_in_a_group():
            async with asyncio.TaskGroup() as group:
                group.create_task(fails_later())

        for mode, container in modes():
            with self.subTest(mode):
                log, handled = Log(), Log()
                run = container(
                    [BackgroundTask(fails_in_a_group), BackgroundTask(log.coro, 1), BackgroundTask(log.sync, 2)]
                )
                run.on_error = lambda task, exc, handled=handled: handled.append(type(exc))
                await run()
                self.assertEqual((sorted(log), handled), ([1, 2], [ExceptionGroup]))

    async def test_an_exception_group_after_the_cancellation_does_not_hide_it(self):
        for mode, container in modes(fail_fast=False):
            with self.subTest(mode):
                gate, log = self.gate(), Log()
                failing = BackgroundTask(gate, raises=ExceptionGroup("two", [ValueError(), ValueError()]))
                tasks = container([failing, BackgroundTasks([BackgroundTask(log.sync, 1)])])
                tasks.limit = 1
                run = self.go(tasks)
                await gate.reached()
                run.cancel()
                await asyncio.sleep(0)
                gate.open()
                self.assertIsInstance(await outcome(run), ExceptionGroup)
                self.assertEqual(log, [])

    async def test_a_member_of_a_group_that_is_cancelled_on_its_own_and_fails_stops_no_other(self):
        log, failing = Log(), asyncio.Event()

        async def fails_when_cancelled():
            asyncio.current_task().cancel()
            try:
                await asyncio.sleep(0)
            finally:
                failing.set()
                raise ValueError

        async def goes_on():
            await failing.wait()
            for item in range(5):
                await log.waiting(item)

        tasks = BackgroundTasks([BackgroundTask(fails_when_cancelled), BackgroundTask(goes_on)], True, fail_fast=False)
        raised = await outcome(tasks())
        self.assertEqual(([type(leaf) for leaf in leaves(raised)], log), ([ValueError], list(range(5))))

    async def test_sync_and_async_tasks_of_a_limited_group_begin_in_order(self):
        log = Log()
        await BackgroundTasks(
            [BackgroundTask(log.coro if i // 5 % 2 else log.sync, i) for i in range(20)], True, limit=1
        ).run_as_group()
        self.assertEqual(log, list(range(20)))

    async def test_the_arguments_are_not_kept_after_the_run(self):
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for executor in (None, self.pool(kind=ThreadPoolExecutor)):
            for mode, container in [("alone", None), *modes(executor=executor)]:
                with self.subTest(mode, executor=executor):
                    argument = Argument()
                    kept = weakref.ref(argument)
                    gate = self.gate()
                    task = BackgroundTask(lambda argument, gate: gate(), argument, gate)
                    running = self.go(task if container is None else container([task]))
                    await gate.reached()
                    gate.open()
                    await running
                    del argument, task, running
                    await until(lambda: kept() is None)  # noqa: B023

    async def test_a_task_that_cannot_be_named_leaves_nothing_behind(self):
        class Unmade(BackgroundTask):
            def __init__(self):
                pass

        with NoWarning(self), self.assertRaises(AttributeError):
            Unmade().start()
        await drain()


class Growing(AsyncTestCase):
    async def test_tasks_added_by_a_task_run_in_the_same_run(self):
        for mode, container in modes():
            for limit in (None, 1) if mode == "limited" else (None,):
                with self.subTest(mode, limit=limit):
                    log, tasks = Log(), container()
                    tasks.limit = limit or tasks.limit

                    def add(number):
                        log.append(number)  # noqa: B023
                        for func in (add, add_async, lambda number: add_async(number)) if number else ():
                            tasks.add_task(func, number - 1)  # noqa: B023

                    async def add_async(number):
                        add(number)

                    tasks.add_task(add, 3)
                    tasks.add_task(add_async, 3)
                    await bounded(tasks())
                    self.assertEqual(sorted(log, reverse=True), [3] * 2 + [2] * 6 + [1] * 18 + [0] * 54)
                    self.assertEqual(len(tasks.tasks), 80)

    async def test_tasks_added_to_a_sequence_run_in_order(self):
        log = Log()
        tasks = BackgroundTasks()
        tasks.add_task(lambda: tasks.add_task(log.sync, 2))
        tasks.add_task(log.sync, 1)
        await tasks()
        self.assertEqual(log, [1, 2])

    async def test_tasks_added_to_a_group_start_as_soon_as_one_of_its_tasks_ends(self):
        for limit in (None, 2):
            for blocking in (Door, self.gate):
                for added in (Door, self.gate):
                    for by_thread in (False, True):
                        with self.subTest(limit=limit, blocking=blocking, added=added, by_thread=by_thread):
                            still_blocking, late = blocking(), added()
                            tasks = BackgroundTasks([BackgroundTask(still_blocking)], True, limit=limit)

                            async def add_on_the_loop():
                                tasks.add_task(late)  # noqa: B023

                            add_in_a_thread = functools.partial(tasks.add_task, late)
                            tasks.add_task(add_in_a_thread if by_thread else add_on_the_loop)
                            run = self.go(tasks)
                            await bounded(late.reached())
                            self.assertFalse(run.done())
                            late.open()
                            still_blocking.open()
                            await run

    async def test_a_task_added_by_the_last_task_of_a_group_runs(self):
        for limit in (None, 1):
            log = Log()
            tasks = BackgroundTasks(as_group=True, limit=limit)

            async def last():
                for _ in range(5):
                    await asyncio.sleep(0)
                tasks.add_task(log.sync, 1)  # noqa: B023

            tasks.add_task(last)
            await tasks()
            self.assertEqual(log, [1])

    async def test_a_failing_task_may_have_added_tasks(self):
        for mode, container in modes(fail_fast=False):
            with self.subTest(mode):
                log, tasks = Log(), container()

                async def add():
                    tasks.add_task(log.sync, 1)  # noqa: B023
                    raise ValueError

                tasks.add_task(add)
                self.assertEqual(len(leaves(await outcome(tasks()))), 1)
                self.assertEqual(log, [1])

    async def test_an_error_handler_may_add_tasks(self):
        for mode, container in modes():
            with self.subTest(mode):
                log, tasks = Log(), container([BackgroundTask(fails), BackgroundTask(fails_async)])
                tasks.on_error = lambda *_: tasks.add_task(log.sync, 1)  # noqa: B023
                await tasks()
                self.assertEqual(log, [1, 1])

    async def test_a_group_of_sequences(self):
        logs = [Log(), Log()]
        doors = [Door(), Door()]
        sequences = [
            BackgroundTasks([BackgroundTask(log.sync, 1), BackgroundTask(door), BackgroundTask(log.coro, 2)])
            for log, door in zip(logs, doors, strict=True)
        ]
        run = self.go(BackgroundTasks(sequences, as_group=True))
        for door in doors:
            await door.reached()
        self.assertEqual(logs, [[1], [1]])
        for door in doors:
            door.open()
        await run
        self.assertEqual(logs, [[1, 2], [1, 2]])

    async def test_a_sequence_of_groups(self):
        doors, log = [Door(), Door()], Log()
        groups = [
            BackgroundTasks(map(BackgroundTask, doors), as_group=True),
            BackgroundTasks([BackgroundTask(log.coro, 1), BackgroundTask(log.coro, 1)], as_group=True),
        ]
        run = self.go(BackgroundTasks(groups))
        for door in doors:
            await door.reached()
            self.assertEqual(log, [])
        for door in doors:
            door.open()
        await run
        self.assertEqual(log, [1, 1])

    async def test_nested_containers_keep_their_own_options(self):
        log = Log()
        handles = BackgroundTasks([BackgroundTask(fails), BackgroundTask(log.sync, 1)], on_error=lambda *_: None)
        collects = BackgroundTasks([BackgroundTask(fails), BackgroundTask(log.sync, 2)], True, fail_fast=False, limit=1)
        raised = await outcome(BackgroundTasks([handles, collects, BackgroundTask(log.sync, 3)])())
        self.assertEqual([type(leaf) for leaf in leaves(raised)], [ValueError])
        self.assertEqual(log, [1, 2])


class Limits(AsyncTestCase):
    async def test_at_most_that_many_tasks_run_at_a_time(self):
        for limit in (1, 2, 5):
            for is_async in (False, True):
                with self.subTest(limit=limit, is_async=is_async):
                    running, seen, lock = [], [], threading.Lock()

                    def work():
                        with lock:  # noqa: B023
                            running.append(1)  # noqa: B023
                            seen.append(len(running))  # noqa: B023
                        time.sleep(0.001)
                        with lock:  # noqa: B023
                            running.pop()  # noqa: B023

                    async def work_async():
                        running.append(1)  # noqa: B023
                        seen.append(len(running))  # noqa: B023
                        await asyncio.sleep(0)
                        running.pop()  # noqa: B023

                    func = work_async if is_async else work
                    await BackgroundTasks([BackgroundTask(func) for _ in range(50)], True, limit=limit)()
                    self.assertEqual(len(seen), 50)
                    self.assertLessEqual(max(seen), limit)

    async def test_a_mix_of_sync_and_async_tasks_shares_the_limit(self):
        for first, second in itertools.permutations([Door, self.gate]):
            running, waiting, third = first(), second(), Door()
            run = self.go(BackgroundTasks(map(BackgroundTask, (running, waiting, third)), True, limit=2))
            await running.reached()
            await waiting.reached()
            for _ in range(3):
                await BackgroundTask(int)()
            self.assertFalse(third.begun.is_set())
            running.open()
            await third.reached()
            third.open()
            waiting.open()
            await run

    async def test_that_many_tasks_do_run_at_a_time(self):
        for limit in (1, 2, 7):
            await bounded(
                BackgroundTasks(
                    [BackgroundTask(threading.Barrier(limit).wait, SECONDS)] * limit * 3, as_group=True, limit=limit
                )()
            )
            barrier = asyncio.Barrier(limit)
            await bounded(BackgroundTasks([BackgroundTask(barrier.wait)] * limit * 3, as_group=True, limit=limit)())

    async def test_tasks_start_in_order(self):
        for limit in (1, 3, None):
            for func in (Log().coro, Log().waiting, *([Log().sync] if limit == 1 else [])):
                tasks = [BackgroundTask(func, number) for number in range(50)]
                await BackgroundTasks(tasks, as_group=True, limit=limit)()
                self.assertEqual([number for number in func.__self__ if number in range(50)], list(range(50)))

    async def test_a_large_group_holds_no_more_asyncio_tasks_than_its_limit(self):
        seen = []

        async def counts():
            await asyncio.sleep(0)
            seen.append(len(asyncio.all_tasks()))

        before = len(asyncio.all_tasks())
        tasks = [BackgroundTask(func) for func in (counts, int) for _ in range(1000)]
        await BackgroundTasks(tasks, as_group=True, limit=10)()
        self.assertEqual(len(seen), 1000)
        self.assertLessEqual(max(seen), before + 1 + 10)

    async def test_a_nested_container_counts_as_one(self):
        doors = [Door(), Door(), Door()]
        inner = BackgroundTasks(map(BackgroundTask, doors[:2]), as_group=True)
        run = self.go(BackgroundTasks([inner, BackgroundTask(doors[2])], as_group=True, limit=1))
        await doors[0].reached()
        await doors[1].reached()
        self.assertFalse(doors[2].begun.is_set())
        for door in doors:
            door.open()
        await run

    async def test_a_limit_means_nothing_to_a_sequence(self):
        log = Log()
        await BackgroundTasks([BackgroundTask(log.sync, number) for number in range(9)], limit=5)()
        self.assertEqual(log, list(range(9)))


def in_process(name, log=None, raises=None, **kwargs):
    if log is not None:
        with open(log, "a") as file:
            file.write(name)
    if raises is not None:
        raise raises


def meet(directory, name, others):
    """Wait in this process until the others have come."""
    (pathlib.Path(directory) / name).touch()
    end = time.monotonic() + SECONDS
    while len(list(pathlib.Path(directory).iterdir())) < others:
        if time.monotonic() > end:
            raise TimeoutError("the others have not come")
        time.sleep(0.001)


class UnpicklableArgument:
    def __reduce__(self):
        raise pickle.PicklingError("cannot be pickled")


class Executors(AsyncTestCase):
    def thread(self):
        self.threads.append(threading.current_thread().name)

    async def thread_async(self):
        self.threads.append(threading.current_thread().name)

    def setUp(self):
        self.threads = []

    def assert_ran_in(self, *prefixes):
        self.assertEqual([name.rpartition("_")[0] for name in self.threads], list(prefixes))
        self.threads.clear()

    async def test_the_sync_functions_of_a_container_run_in_its_executor(self):
        for mode, container in modes(executor=self.pool(thread_name_prefix="own")):
            for kind in (BackgroundTask, Single):
                with self.subTest(mode, kind=kind):
                    await container([kind(self.thread), kind(lambda: self.thread_async()), kind(self.thread)])()
                    loop_thread = threading.current_thread().name
                    self.assertEqual(self.threads.count(loop_thread), 1)
                    self.threads.remove(loop_thread)
                    self.assert_ran_in("own", "own")

    async def test_the_executor_is_that_of_nested_containers_without_one(self):
        own, inner = self.pool(thread_name_prefix="own"), self.pool(thread_name_prefix="inner")
        for mode, container in modes():
            for inner_mode, inner_container in modes():
                with self.subTest(mode, inner_mode=inner_mode):
                    nested = inner_container([inner_container([BackgroundTask(self.thread)])])
                    await container([nested], executor=own)()
                    self.assert_ran_in("own")
                    added = container(executor=own)
                    added.add_task(nested)
                    await added()
                    self.assert_ran_in("own")
                    nested.executor = inner
                    await container([nested], executor=own)()
                    self.assert_ran_in("inner")

    async def test_the_executor_is_not_that_of_the_same_task_elsewhere(self):
        for mode, container in modes(executor=self.pool(thread_name_prefix="own")):
            for task in (BackgroundTask(self.thread), Single(self.thread), BackgroundTasks([Single(self.thread)])):
                with self.subTest(mode, task=task):
                    await container([task])()
                    await task()
                    self.assert_ran_in("own", "background")

    async def test_other_executors_get_only_the_function_and_its_arguments(self):
        for mode, container in modes():
            for kind in (BackgroundTask, Single):
                with self.subTest(mode, kind=kind):
                    executor = self.pool(kind=Elsewhere)
                    log = Log()
                    await container([kind(log.sync, 1), kind(log.sync, item=2)], executor=executor)()
                    (first, args, kwargs), (second, *arguments) = executor.submitted
                    self.assertEqual((first, args, kwargs), (log.sync, (1,), {}))
                    if isinstance(second, functools.partial):
                        self.assertEqual((second.func, second.args, second.keywords), (log.sync, (), {"item": 2}))
                        self.assertEqual(arguments, [(), {}])
                    else:
                        self.assertEqual((second, *arguments), (log.sync, (), {"item": 2}))

    async def test_other_executors_get_no_context(self):
        var.set("caller")
        seen = []
        for mode, container in modes(executor=self.pool(kind=Elsewhere)):
            with self.subTest(mode):
                seen.clear()
                await container([BackgroundTask(lambda: seen.append(var.get()))])()
                self.assertEqual(seen, ["default"])

    async def test_other_executors_get_one_task_per_call(self):
        barrier = threading.Barrier(4)
        executor = self.pool(4, Elsewhere)
        for options in GROUPS.values():
            limit = options.get("limit") and 4
            tasks = [BackgroundTask(barrier.wait, SECONDS) for _ in range(8)]
            await bounded(BackgroundTasks(tasks, as_group=True, limit=limit, executor=executor)())
        self.assertEqual(len(executor.submitted), 16)

    async def test_an_awaitable_from_another_executor_is_awaited(self):
        for mode, container in modes(executor=self.pool(kind=Elsewhere)):
            with self.subTest(mode):
                log = Log()
                await container([BackgroundTask(lambda: log.coro(1)), BackgroundTask(log.sync, 2)])()  # noqa: B023
                self.assertEqual(sorted(log), [1, 2])

    async def test_an_executor_that_was_shut_down_is_a_runtime_error(self):
        for pool_kind in (Pool, Elsewhere):
            for kind in (BackgroundTask, Single):
                for fail_fast in (True, False):
                    for mode, container in modes(fail_fast=fail_fast):
                        with self.subTest(mode, kind=kind, pool=pool_kind, fail_fast=fail_fast):
                            pool, log = self.pool(kind=pool_kind), Log()
                            pool.shutdown()
                            tasks = container([kind(log.sync, 1) for _ in range(5)], executor=pool)
                            raised = leaves(await outcome(bounded(tasks())))
                            self.assertEqual({type(exc) for exc in raised}, {RuntimeError})
                            if not fail_fast:
                                self.assertEqual(len(raised), 5)
                            self.assertEqual(log, [])

    async def test_calls_that_an_executor_drops_while_they_are_queued_are_runtime_errors(self):
        for pool_kind in (Pool, Elsewhere):
            for kind in (BackgroundTask, Single):
                for fail_fast in (True, False):
                    for mode, container in modes(fail_fast=fail_fast):
                        with self.subTest(mode, kind=kind, pool=pool_kind, fail_fast=fail_fast):
                            pool, gate = await self.full_pool(pool_kind)
                            log = Log()
                            run = self.go(container([kind(log.sync, 1) for _ in range(5)], executor=pool))
                            await until(lambda: pool.calls)  # noqa: B023
                            pool.shutdown(wait=False, cancel_futures=True)
                            raised = leaves(await outcome(bounded(run)))
                            self.assertEqual({type(exc) for exc in raised}, {RuntimeError})
                            if not fail_fast:
                                self.assertEqual(len(raised), 5)
                            self.assertEqual(log, [])
                            gate.open()

    async def test_each_dropped_call_is_handed_to_on_error(self):
        for mode, container in modes():
            with self.subTest(mode):
                pool, handled = self.pool(), []
                pool.shutdown()
                tasks = [BackgroundTask(int) for _ in range(5)]
                await container(tasks, executor=pool, on_error=lambda task, _: handled.append(task))()  # noqa: B023
                self.assertEqual(sorted(map(id, handled)), sorted(map(id, tasks)))

    async def test_however_many_calls_an_executor_refuses_one_upon_another(self):
        pool = self.pool()
        pool.shutdown()
        for mode, container in modes(fail_fast=False, executor=pool):
            with self.subTest(mode):
                raised = await outcome(container([BackgroundTask(int) for _ in range(1000)])())
                self.assertEqual({type(exc) for exc in leaves(raised)}, {RuntimeError})
                self.assertEqual(len(leaves(raised)), 1000)

    async def test_the_pool_of_the_module_runs_forty_functions_at_once(self):
        barrier = threading.Barrier(40)

        def meets():
            barrier.wait(SECONDS)
            self.thread()

        await bounded(BackgroundTasks([BackgroundTask(meets) for _ in range(200)], as_group=True)())
        self.assertEqual(set(self.threads), {f"background_{number}" for number in range(40)})

    async def test_forty_tasks_on_their_own_run_at_once(self):
        task = BackgroundTask(threading.Barrier(40).wait, SECONDS)
        await bounded(asyncio.gather(*(task() for _ in range(40))))

    async def test_forty_functions_of_a_group_run_at_once_after_others_have_only_computed(self):
        barrier = threading.Barrier(40)
        tasks = [BackgroundTask(int)] * 100 + [BackgroundTask(barrier.wait, SECONDS)] * 40
        await bounded(BackgroundTasks(tasks, as_group=True)())

    async def test_background_work_does_not_starve_the_default_executor_of_the_loop(self):
        gates = [self.gate() for _ in range(40)]
        run = self.go(BackgroundTasks(map(BackgroundTask, gates), as_group=True))
        for gate in gates:
            await gate.reached()
        self.assertEqual(await bounded(self.loop.run_in_executor(None, int)), 0)
        for gate in gates:
            gate.open()
        await run

    async def test_background_work_does_not_wait_behind_the_default_executor_of_the_loop(self):
        gate = self.gate()
        self.loop.set_default_executor(ThreadPoolExecutor(1))
        busy = self.loop.run_in_executor(None, gate)
        await gate.reached()
        for mode, container in [("alone", None), *modes()]:
            with self.subTest(mode):
                task = BackgroundTask(int)
                await bounded(task() if container is None else container([task])())
        gate.open()
        await busy

    def test_the_pool_is_made_when_the_first_sync_function_needs_it(self):
        script = """
            import asyncio, threading
            from background import BackgroundTask, BackgroundTasks, drain

            def threads():
                return sum(thread.name.startswith("background_") for thread in threading.enumerate())

            async def main():
                await BackgroundTasks([BackgroundTask(asyncio.sleep, 0)])()
                await BackgroundTasks([BackgroundTask(asyncio.sleep, 0)], as_group=True)()
                print(threading.active_count())
                await BackgroundTask(int)()
                print(threads())

            print(threading.active_count())
            asyncio.run(main())
        """
        self.assertEqual(run_python("-c", inspect.cleandoc(script)).split(), ["1", "1", "1"])

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork on this platform")
    def test_a_forked_child_makes_its_own_pool(self):
        script = """
            import asyncio, os, signal, threading
            from background import BackgroundTask, BackgroundTasks

            task = BackgroundTask(lambda: os.write(1, f"{threading.current_thread().name}\\n".encode()))
            barrier = threading.Barrier(40)
            asyncio.run(BackgroundTasks([BackgroundTask(barrier.wait, 60) for _ in range(40)], as_group=True)())
            child = os.fork()
            signal.alarm(30)  # which no child inherits
            for as_group in (False, True):
                asyncio.run(BackgroundTasks([task], as_group)())
            if child:
                assert os.waitpid(child, 0)[1] == 0
        """
        # From 3.12 on Python warns of a fork beside threads.
        lines = run_python("-W", "ignore", "-c", inspect.cleandoc(script)).split()
        self.assertEqual([line.rpartition("_")[0] for line in lines], ["background"] * 4)


class Processes(AsyncTestCase):
    @classmethod
    def setUpClass(cls):
        cls.executor = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        cls.addClassCleanup(cls.executor.shutdown)

    def modes(self, **options):
        return modes(executor=self.executor, **options)

    async def test_functions_run_in_other_processes_with_their_arguments(self):
        for mode, container in self.modes():
            for kind in (BackgroundTask, Single):
                with self.subTest(mode, kind=kind), tempfile.TemporaryDirectory() as directory:
                    log = pathlib.Path(directory) / "log"
                    await container([kind(in_process, "a", log), kind(in_process, name="b", log=log)])()
                    self.assertEqual(sorted(log.read_text()), ["a", "b"])

    async def test_the_workers_share_the_tasks(self):
        for limit in (None, 2):
            with tempfile.TemporaryDirectory() as directory:
                tasks = [BackgroundTask(meet, directory, name, 2) for name in "ab"]
                await bounded(BackgroundTasks(tasks, as_group=True, limit=limit, executor=self.executor)())

    async def test_the_exception_is_a_copy(self):
        for mode, container in self.modes():
            with self.subTest(mode):
                failure = ValueError("text")
                (raised,) = leaves(await outcome(container([BackgroundTask(in_process, "", raises=failure)])()))
                self.assertEqual((type(raised), raised.args), (ValueError, failure.args))
                self.assertIsNot(raised, failure)
                self.assertIn("in_process", "".join(notes(raised)))

    async def test_what_cannot_leave_a_coroutine_comes_out_as_a_runtime_error(self):
        for kind in UNRAISABLE:
            for mode, container in self.modes():
                with self.subTest(mode, kind=kind):
                    run = container([BackgroundTask(in_process, "", raises=kind())])()
                    self.assertEqual([type(leaf) for leaf in leaves(await outcome(bounded(run)))], [RuntimeError])

    async def test_what_cannot_be_pickled_raises_its_error(self):
        for mode, container in self.modes(fail_fast=False):
            for func, args in [(lambda: None, ()), (print, (threading.Lock(),)), (print, (UnpicklableArgument(),))]:
                with self.subTest(mode, func=func, args=args):
                    tasks = container([BackgroundTask(func, *args), BackgroundTask(int)])
                    (raised,) = leaves(await outcome(bounded(tasks())))
                    self.assertIsInstance(raised, (pickle.PicklingError, AttributeError, TypeError))

    async def test_an_executor_of_processes_that_was_shut_down_is_a_runtime_error(self):
        executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        executor.shutdown()
        for mode, container in modes(executor=executor):
            with self.subTest(mode):
                raised = leaves(await outcome(container([BackgroundTask(int)])()))
                self.assertEqual([type(exc) for exc in raised], [RuntimeError])

    async def test_what_no_process_has_fetched_never_begins_after_a_cancellation(self):
        for mode in GROUPS:
            with self.subTest(mode), tempfile.TemporaryDirectory() as directory:
                others, log = pathlib.Path(directory, "others"), pathlib.Path(directory, "log")
                await asyncio.to_thread(others.mkdir)
                tasks = [BackgroundTask(meet, others, str(number), 3) for number in range(2)]
                tasks += [BackgroundTask(in_process, "x", log) for _ in range(50)]
                run = self.go(BackgroundTasks(tasks, executor=self.executor, **MODES[mode]))
                await until(lambda: len(list(others.iterdir())) == 2)  # noqa: B023
                await cancelled(run)
                self.assertFalse(run.done())
                (others / "the last").touch()
                self.assertIs(type(await outcome(bounded(run))), asyncio.CancelledError)
                begun = await asyncio.to_thread(lambda: len(log.read_text()) if log.exists() else 0)  # noqa: B023
                self.assertLess(begun, 10)


class Foreground(AsyncTestCase):
    """What other tasks of the event loop notice of background work."""

    async def test_handing_over_thousands_of_tasks_lets_the_loop_in(self):
        for func in (int, asyncio.sleep):
            tasks = [BackgroundTask(func, 0) for _ in range(1000 if self.loop.get_debug() else 10_000)]
            run = self.go(BackgroundTasks(tasks, as_group=True))
            self.assertGreater(await self.ticks(run), 5)

    async def test_a_sequence_of_async_tasks_that_never_wait_lets_the_loop_in(self):
        for kind in (BackgroundTask, Single):
            # A thousand times a tenth of a millisecond: a hundred turns, on any machine.
            run = self.go(BackgroundTasks([kind(spin_async) for _ in range(1000)]))
            self.assertGreater(await self.ticks(run), 30)

    async def test_a_group_of_async_tasks_that_never_wait_lets_the_loop_in(self):
        run = self.go(BackgroundTasks([BackgroundTask(spin_async) for _ in range(1000)], as_group=True))
        self.assertGreater(await self.ticks(run), 15)

    async def test_a_sequence_that_turns_heavy_lets_the_loop_in_soon(self):
        async def light():
            pass

        tasks = [BackgroundTask(light) for _ in range(500)] + [BackgroundTask(spin_async, 0.002) for _ in range(50)]
        run = self.go(BackgroundTasks(tasks))
        self.assertGreater(await self.ticks(run), 30)

    async def test_sync_tasks_that_end_one_upon_another_let_the_loop_in(self):
        for mode, container in modes():
            with self.subTest(mode):
                run = self.go(container([BackgroundTask(spin) for _ in range(1000)]))
                self.assertGreater(await self.ticks(run), 5)

    async def test_failures_that_are_dealt_with_let_the_loop_in(self):
        run = self.go(BackgroundTasks([BackgroundTask(fails_async) for _ in range(5000)], on_error=lambda *_: spin()))
        self.assertGreater(await self.ticks(run), 30)


class Starting(AsyncTestCase):
    async def test_start_returns_an_asyncio_task_that_runs_it(self):
        for mode, container in [("alone", None), *modes()]:
            for func in (Log().sync, Log().coro):
                with self.subTest(mode):
                    task = BackgroundTask(func, 1)
                    started = (task if container is None else container([task])).start()
                    self.assertIsInstance(started, asyncio.Task)
                    self.assertIsNone(await started)
                    self.assertEqual(func.__self__, [1])

    async def test_a_started_task_is_named_after_the_function(self):
        for func in (fails, spin_async, functools.partial(functools.partial(spin))):
            started = BackgroundTask(func).start()
            self.assertEqual(started.get_name(), f"{__name__}.{inspect.unwrap(getattr(func, 'func', func)).__name__}")
            await outcome(started)

    async def test_a_started_container_is_named_after_its_class_and_length(self):
        started = BackgroundTasks([BackgroundTask(int), BackgroundTask(int)]).start()
        self.assertRegex(started.get_name(), r"^BackgroundTasks\b.*\b2\b")
        await started

    async def test_start_runs_beside_the_caller(self):
        door = Door()
        started = BackgroundTask(door).start()
        await door.reached()
        self.assertFalse(started.done())
        door.open()
        await started

    async def test_a_task_may_be_started_many_times(self):
        for func in (Log().sync, Log().waiting):
            task = BackgroundTask(func, 1)
            await asyncio.gather(*(task.start() for _ in range(100)))
            self.assertEqual(len(func.__self__), 100)

    async def test_the_garbage_collector_cannot_take_a_started_task(self):
        async def waits(futures):
            future = self.loop.create_future()
            futures.add(future)
            await future

        for mode, container in [("alone", None), *modes()]:
            with self.subTest(mode):
                futures = weakref.WeakSet()  # else only the asyncio task and its future know of each other
                task = BackgroundTask(waits, futures)
                (task if container is None else container([task])).start()
                await until(lambda: futures)  # noqa: B023
                gc.collect()
                self.assertEqual(len(futures), 1)
                futures.pop().set_result(None)
                await drain()

    async def test_a_started_task_that_has_ended_is_not_kept(self):
        started = weakref.ref(BackgroundTask(asyncio.sleep, 0).start())
        await drain()
        await asyncio.sleep(0)
        gc.collect()
        self.assertIsNone(started())

    def test_start_without_a_running_loop_is_a_runtime_error(self):
        for mode, container in modes():
            with self.subTest(mode), NoWarning(self):
                for task in (BackgroundTask(spin_async), container([BackgroundTask(spin_async)])):
                    with self.assertRaisesRegex(RuntimeError, "no running event loop"):
                        task.start()

    async def test_a_failure_that_nobody_awaits_is_reported_by_asyncio(self):
        for func in (fails, fails_async):
            for mode, container in [("alone", None), *modes()]:
                with self.subTest(mode, func=func):
                    task = BackgroundTask(func)
                    (task if container is None else container([task])).start()
                    await drain()
                    await asyncio.sleep(0)
                    gc.collect()
                    (report,) = self.reports
                    self.reports.clear()
                    self.assertIn("exception was never retrieved", report["message"])
                    self.assertEqual([type(leaf) for leaf in leaves(report["exception"])], [ValueError])

    async def test_the_failure_of_a_task_or_sequence_is_reported_without_the_garbage_collector(self):
        def raises_another(task, exc):
            raise LookupError

        async def fails_later():  # an eager task that fails at once is a cycle by itself
            await asyncio.sleep(0)
            raise ValueError

        gc.collect()
        self.addCleanup(gc.enable)
        gc.disable()
        runs = [BackgroundTask(fails), BackgroundTask(fails_later), BackgroundTasks([BackgroundTask(fails)])]
        for options in ({}, {"fail_fast": False}, {"on_error": raises_another}):
            runs.append(BackgroundTasks([BackgroundTask(fails), BackgroundTask(fails_later)], **options))
            runs.append(BackgroundTasks([BackgroundTask(fails_later), BackgroundTask(fails)], **options))
        for run in runs:
            with self.subTest(run=run):
                run.start()
                await drain()
                with contextlib.suppress(TimeoutError):  # a thread may hold on to it for a moment
                    await bounded(until(lambda: self.reports), 0.5)
                self.assertEqual(len(self.reports), 1)
                self.reports.clear()

    async def test_a_failure_that_somebody_awaits_is_not_reported(self):
        for func in (fails, fails_async):
            self.assertIsInstance(await outcome(BackgroundTask(func).start()), ValueError)
        gc.collect()

    async def test_a_started_task_is_cancelled_by_its_asyncio_task(self):
        door = Door()
        started = BackgroundTask(door).start()
        await door.reached()
        started.cancel()
        self.assertIsInstance(await outcome(started), asyncio.CancelledError)
        self.assertTrue(door.cancelled)
        await drain()


class Draining(AsyncTestCase):
    async def test_drain_waits_for_everything_started(self):
        log = Log()
        for func in (log.sync, log.coro, log.waiting):
            BackgroundTask(func, 1).start()
            for _, container in modes():
                container([BackgroundTask(func, 1)]).start()
        await drain()
        self.assertEqual(log, [1] * 12)

    async def test_drain_waits_while_anything_runs(self):
        for blocking in (Door(), self.gate()):
            BackgroundTask(blocking).start()
            draining = self.go(drain)
            await blocking.reached()
            for _ in range(3):
                await BackgroundTask(int)()
            self.assertFalse(draining.done())
            blocking.open()
            await draining

    async def test_drain_returns_if_nothing_was_started(self):
        self.assertIsNone(await drain())

    async def test_drain_waits_for_tasks_started_meanwhile(self):
        doors = [Door() for _ in range(3)]

        async def chain(index=0):
            await doors[index]()
            if index < 2:
                BackgroundTask(chain, index + 1).start()

        BackgroundTask(chain).start()
        draining = self.go(drain)
        for door in doors:
            await door.reached()
            await asyncio.sleep(0)
            self.assertFalse(draining.done())
            door.open()
        await draining

    async def test_drain_waits_for_tasks_started_by_others_meanwhile(self):
        first, second = Door(), Door()
        BackgroundTask(first).start()
        draining = self.go(drain)
        await first.reached()
        BackgroundTask(second).start()
        first.open()
        await second.reached()
        for _ in range(5):
            await asyncio.sleep(0)
        self.assertFalse(draining.done())
        second.open()
        await draining

    async def test_drain_raises_none_of_their_errors(self):
        for func in (fails, fails_async):
            BackgroundTask(func).start()
        BackgroundTask(asyncio.Event().wait).start().cancel()
        self.assertIsNone(await drain())
        await asyncio.sleep(0)
        gc.collect()
        self.assertEqual([type(report["exception"]) for report in self.reports], [ValueError] * 2)
        self.reports.clear()

    async def test_drain_is_bounded_by_a_timeout_that_stops_no_task(self):
        door = Door()
        started = BackgroundTask(door).start()
        with self.assertRaises(TimeoutError):
            async with asyncio.timeout(0):
                await drain()
        await asyncio.sleep(0)
        self.assertFalse(started.done())
        door.open()
        await drain()
        self.assertTrue(started.done())
        self.assertFalse(door.cancelled)

    async def test_drain_waits_only_for_the_running_loop(self):
        gate, begun = self.gate(), threading.Event()

        async def other():
            started = BackgroundTask(gate).start()
            begun.set()
            await started

        other_loop = self.loop.run_in_executor(None, asyncio.run, other())
        await gate.reached()
        await bounded(drain())
        self.assertFalse(other_loop.done())
        gate.open()
        await other_loop

    async def test_drain_does_not_wait_for_the_started_task_that_calls_it(self):
        for mode, container in [("alone", None), *modes()]:
            with self.subTest(mode):
                task = BackgroundTask(drain)
                await bounded((task if container is None else container([task])).start())

    async def test_drain_from_inside_a_started_task_waits_for_the_others(self):
        door, log = Door(), Log()

        async def drains():
            await drain()
            log.append("drained")

        BackgroundTask(door).start()
        started = BackgroundTask(drains).start()
        await door.reached()
        for _ in range(5):
            await asyncio.sleep(0)
        self.assertEqual(log, [])
        door.open()
        await bounded(started)

    async def test_drain_from_deep_inside_a_started_task_does_not_wait_for_it(self):
        def from_a_thread():
            asyncio.run_coroutine_threadsafe(drain(), self.loop).result(SECONDS)

        async def from_a_child():
            async with asyncio.TaskGroup() as group:
                group.create_task(drain())

        async def from_a_task_of_its_own():
            await BackgroundTask(drain)()

        for func in (from_a_thread, from_a_child, from_a_task_of_its_own, lambda: drain()):
            for mode, container in [("alone", None), *modes()]:
                with self.subTest(mode, func=func):
                    task = BackgroundTask(func)
                    nested = task if container is None else BackgroundTasks([container([task, task])], as_group=True)
                    await bounded(nested.start())

    async def test_drain_from_a_task_started_by_a_started_task_waits_for_neither(self):
        async def starts():
            await BackgroundTask(drain).start()

        await bounded(BackgroundTask(starts).start())

    async def test_two_started_tasks_that_both_drain_do_not_wait_for_each_other(self):
        door, log = Door(), Log()

        async def drains():
            await drain()
            log.append(1)

        BackgroundTask(door).start()
        for _ in range(2):
            BackgroundTask(drains).start()
        await door.reached()
        for _ in range(5):
            await asyncio.sleep(0)
        self.assertEqual(log, [])
        door.open()
        await bounded(drain())
        self.assertEqual(log, [1, 1])

    async def test_drain_waits_for_the_end_of_tasks_that_have_drained(self):
        for drain_first in (False, True):
            with self.subTest(drain_first=drain_first):
                door, log = Door(), Log()

                async def drains():
                    await drain()
                    for _ in range(10):
                        await asyncio.sleep(0)
                    log.append(1)  # noqa: B023

                early = self.go(drain) if drain_first else None
                BackgroundTask(door).start()
                BackgroundTask(drains).start()
                await door.reached()
                await asyncio.sleep(0)
                draining = self.go(drain)
                await asyncio.sleep(0)
                door.open()
                await bounded(draining)
                self.assertEqual(log, [1])
                if early is not None:
                    await early

    async def test_a_cancelled_drain_inside_a_started_task_leaves_it_to_be_waited_for(self):
        door, after = Door(), Door()

        async def gives_up():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await drain()
            await after()

        BackgroundTask(door).start()
        BackgroundTask(gives_up).start()
        await after.reached()
        draining = self.go(drain)
        door.open()
        for _ in range(5):
            await asyncio.sleep(0)
        self.assertFalse(draining.done())
        after.open()
        await draining

    async def test_two_drains_side_by_side_both_wait(self):
        door = Door()
        BackgroundTask(door).start()
        draining = [self.go(drain), self.go(drain)]
        await door.reached()
        await asyncio.sleep(0)
        self.assertFalse(draining[0].done() or draining[1].done())
        door.open()
        await asyncio.gather(*draining)


class Shown(AsyncTestCase):
    def names(self):
        """What to call functions of every kind, as (function, name)."""
        here = __name__
        return [
            (fails, f"{here}.fails"),
            (fails_async, f"{here}.fails_async"),
            (Methods().sync, f"{here}.Methods.sync"),
            (Methods.static, f"{here}.Methods.static"),
            (functools.partial(functools.partial(fails), "secret"), f"{here}.fails"),
            (AsyncCall(), f"{here}.AsyncCall"),
            (functools.partial(SyncCall()), f"{here}.SyncCall"),
            (Methods, f"{here}.Methods"),
            (print, "builtins.print"),
            (decorated, f"{here}.coroutine"),
            ([].append, "list.append"),
        ]

    def test_repr_names_the_function(self):
        for func, name in self.names():
            with self.subTest(name):
                self.assertEqual(repr(BackgroundTask(func)), f"BackgroundTask({name})")

    def test_repr_names_a_lambda(self):
        self.assertRegex(repr(BackgroundTask(lambda: None)), r"^BackgroundTask\(\w+.*<lambda>\)$")

    def test_repr_names_the_class_of_a_task(self):
        self.assertEqual(repr(Single(print)), "Single(builtins.print)")

    def test_repr_never_shows_arguments(self):
        class Secretive:
            def __repr__(self):
                return "secret"

            def __call__(self):
                pass

        for func in (print, functools.partial(print, "secret", end="secret"), Secretive(), mock.Mock(name="secret")):
            task = BackgroundTask(func, "secret", sep="secret")
            for shown in (task, BackgroundTasks([task]), BackgroundTasks([BackgroundTasks([task])], True)):
                self.assertNotIn("secret", repr(shown) + str(shown) + f"{shown}")

    async def test_no_name_nor_note_shows_arguments(self):
        names = []

        async def shy(value):
            await asyncio.sleep(0)
            names.append(asyncio.current_task().get_name())
            raise ValueError

        for func in (shy, lambda value: shy(value)):
            for make in (BackgroundTask, lambda *args: BackgroundTasks([BackgroundTask(*args)], as_group=True)):
                started = make(func, "hidden").start()
                names.append(started.get_name())
                (raised,) = leaves(await outcome(started))
                self.assertIs(type(raised), ValueError)
                names.extend(notes(raised))
        self.assertNotIn("hidden", "".join(names))

    def test_repr_of_a_container_shows_its_class_and_length(self):
        class Jobs(BackgroundTasks):
            pass

        for kind in (BackgroundTasks, Jobs):
            for length in (0, 1, 12):
                shown = repr(kind([BackgroundTask(print)] * length))
                self.assertRegex(shown, rf"^{kind.__name__}\b.*\b{length}\b")

    async def test_the_asyncio_tasks_of_a_group_carry_the_dotted_name(self):
        names = []

        async def named():
            await asyncio.sleep(0)  # an eager task may have no name in its first step
            names.append(asyncio.current_task().get_name())

        for limit in (None, 1):
            for func in (named, lambda: named()):
                names.clear()
                tasks = [BackgroundTask(each) for each in (func, int, func, int)]
                await BackgroundTasks(tasks, as_group=True, limit=limit)()
                self.assertEqual(names, [f"{__name__}.{func.__qualname__}"] * 2)

    async def test_the_asyncio_task_of_a_nested_container_carries_its_name(self):
        names = []

        async def named():
            await asyncio.sleep(0)  # an eager task may have no name in its first step
            names.append(asyncio.current_task().get_name())

        await BackgroundTasks([BackgroundTasks([BackgroundTask(named)])], as_group=True)()
        self.assertRegex(names[0], r"^BackgroundTasks\b.*\b1\b")


if hasattr(asyncio, "eager_task_factory"):  # from Python 3.12 on

    class EagerLoop(AsyncTestCase):
        """The eager task factory runs the first step of an asyncio task before create_task returns."""

        async def asyncSetUp(self):
            await super().asyncSetUp()
            self.loop.set_task_factory(eager_task_factory)

    class EagerFailures(EagerLoop, Failures):
        pass

    class EagerOnError(EagerLoop, OnError):
        pass

    class EagerCancellation(EagerLoop, Cancellation):
        pass

    class EagerGrowing(EagerLoop, Growing):
        pass

    class EagerExecutors(EagerLoop, Executors):
        pass

    class EagerDraining(EagerLoop, Draining):
        pass

    class Eager(EagerLoop):
        async def assert_not_cancelled(self):
            self.assertEqual(asyncio.current_task().cancelling(), 0)
            await asyncio.sleep(0)

        async def test_tasks_of_every_mode_run(self):
            for mode, container in modes():
                with self.subTest(mode):
                    log = Log()
                    for _ in range(5):
                        await container(BackgroundTask(func, 1) for func in (log.coro, log.sync, log.waiting))()
                    self.assertEqual(log, [1] * 15)

        async def test_a_failure_in_the_first_step_is_raised_in_an_exception_group(self):
            for limit in (None, 1):
                for func in (Log().coro, Log().waiting, Log().sync):
                    failure = ValueError()
                    tasks = [BackgroundTask(int), BackgroundTask(func, 1, failure), BackgroundTask(Door())]
                    group = await outcome(BackgroundTasks(tasks, as_group=True, limit=limit)())
                    self.assertEqual((type(group), leaves(group)), (ExceptionGroup, [failure]))
                    await self.assert_not_cancelled()

        async def test_a_failure_in_the_first_step_begins_no_more_of_a_limited_group(self):
            log = Log()
            tasks = [BackgroundTask(fails_async), *(BackgroundTask(log.coro, 1) for _ in range(20))]
            group = await outcome(BackgroundTasks(tasks, as_group=True, limit=1)())
            self.assertEqual([type(leaf) for leaf in leaves(group)], [ValueError])
            self.assertEqual(log, [])
            await self.assert_not_cancelled()

        async def test_failures_in_first_steps_are_isolated(self):
            for options in GROUPS.values():
                log = Log()
                tasks = [BackgroundTask(func, 1, ValueError()) for func in (log.coro, log.sync, log.coro, log.waiting)]
                group = await outcome(BackgroundTasks(tasks, fail_fast=False, **options)())
                self.assertEqual([type(leaf) for leaf in group.exceptions], [ValueError] * 4)
                await BackgroundTasks(tasks, on_error=lambda *_: None, **options)()
                self.assertEqual(log, [1] * 8)
                await self.assert_not_cancelled()

        async def test_a_failing_handler_in_the_first_step_fails_the_group(self):
            def on_error(task, exc):
                raise OSError

            group = await outcome(BackgroundTasks([BackgroundTask(fails_async)], as_group=True, on_error=on_error)())
            self.assertEqual([type(leaf) for leaf in leaves(group)], [OSError])
            await self.assert_not_cancelled()

        async def test_a_large_limited_group_does_not_nest_its_tasks(self):
            log = Log()
            await BackgroundTasks([BackgroundTask(log.coro, 1) for _ in range(3000)], as_group=True, limit=1)()
            self.assertEqual(len(log), 3000)

        async def test_a_cancelled_group_ends(self):
            for limit in (None, 2):
                doors = [Door(), Door()]
                tasks = [*map(BackgroundTask, doors), *(BackgroundTask(spin_async) for _ in range(10))]
                run = self.go(BackgroundTasks(tasks, as_group=True, limit=limit))
                for door in doors:
                    await door.reached()
                await cancelled(run)
                self.assertIsInstance(await outcome(bounded(run)), asyncio.CancelledError)

        async def test_a_started_task_that_drains_in_its_first_step_does_not_wait_for_itself(self):
            for func in (drain, lambda: drain()):
                await bounded(BackgroundTask(func).start())

        async def test_tasks_can_be_started(self):
            log = Log()
            for func in (log.sync, log.coro, log.waiting):
                await BackgroundTask(func, 1).start()
                BackgroundTask(func, 1).start()
            await drain()
            self.assertEqual(log, [1] * 6)


def fails_in_a_task_group():
    """Functions that leave Task.cancelling() one too high (the first two before Python 3.13), and fail."""

    async def in_group():
        async with asyncio.TaskGroup() as group:
            group.create_task(fails_async())

    async def raises_the_only_one():
        try:
            await in_group()
        except ExceptionGroup as group:
            failure = group.exceptions[0]
        raise failure

    async def raises_another():
        try:
            await in_group()
        except* ValueError:
            pass
        raise KeyError

    async def times_out_as_old_clients_do():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise TimeoutError from None

    return in_group, raises_the_only_one, raises_another, times_out_as_old_clients_do


class Counts(AsyncTestCase):
    """What a function does to Task.cancelling() is never taken for a cancellation of the run."""

    async def test_a_function_that_leaves_the_count_wrong_has_failed_no_more(self):
        wrappers = (lambda func: func, lambda func: lambda: func(), lambda func: functools.wraps(func)(lambda: func()))
        for func, wrap, nested in itertools.product(fails_in_a_task_group(), wrappers, (False, True)):
            for mode, container in modes():
                with self.subTest(mode, func=func, nested=nested):
                    log, seen = Log(), []
                    failing = BackgroundTask(wrap(func))
                    tasks = [BackgroundTasks([failing]) if nested else failing]
                    tasks += [BackgroundTask(log.sync, 1), BackgroundTask(log.coro, 1)]
                    raised = await outcome(self.go(container(tasks, fail_fast=False)))
                    self.assertEqual((type(raised), len(raised.exceptions)), (ExceptionGroup, 1))
                    await self.go(container(tasks, on_error=lambda task, exc: seen.append(task)))  # noqa: B023
                    self.assertEqual((seen, log), ([tasks[0]], [1] * 4))

    async def test_a_run_cancelled_while_its_handler_works_begins_no_more(self):
        async def in_group():
            async with asyncio.TaskGroup() as group:
                group.create_task(fails_async())

        failing = (BackgroundTask(in_group), BackgroundTasks([BackgroundTask(fails)], as_group=True))
        for first, options in itertools.product(failing, ({}, {"as_group": True, "limit": 1})):
            with self.subTest(first=first, options=options):
                door, log = Door(), Log()

                async def handler(task, exc, door=door):
                    await door()

                tasks = [first, *(BackgroundTask(log.coro, item) for item in range(5))]
                run = self.go(BackgroundTasks(tasks, fail_fast=False, on_error=handler, **options))
                await door.reached()
                await cancelled(run)
                self.assertIsInstance(await outcome(run), ExceptionGroup)
                self.assertEqual(log, [])

    async def test_a_run_in_a_finally_after_a_cancellation_isolates_and_eats_nothing(self):
        for mode, container in modes(fail_fast=False):
            with self.subTest(mode):
                log, door = Log(), Door()

                async def cleans_up():
                    try:
                        await door()  # noqa: B023
                    finally:
                        tasks = [fails, lambda: fails_async(), functools.partial(log.sync, 1)]  # noqa: B023
                        raised = await outcome(container(map(BackgroundTask, tasks))())  # noqa: B023
                        log.append(len(raised.exceptions))  # noqa: B023
                        log.append(asyncio.current_task().cancelling())  # noqa: B023

                run = self.loop.create_task(cleans_up())
                await door.reached()
                run.cancel()
                self.assertIsInstance(await outcome(run), asyncio.CancelledError)
                self.assertEqual(log, [1, 2, 1])


class Generators(AsyncTestCase):
    async def test_a_call_that_returns_a_generator_is_a_failure_and_the_generator_closed(self):
        made = []

        def keeps(func):
            @functools.wraps(func)
            def wrapper():
                made.append(func())
                return made[-1]

            return wrapper

        for func, wrap in itertools.product(
            (generator_function, async_generator_function), (keeps, lambda f: keeps(f))
        ):
            alone = [("alone", lambda tasks: tasks[0])]
            for mode, container in alone + modes() + modes(executor=self.pool()):
                with self.subTest(mode, func=func):
                    log = Log()
                    task = container([BackgroundTask(wrap(func)), BackgroundTask(log.sync, 1)])
                    (raised,) = leaves(await outcome(task()))
                    self.assertRegex(str(raised), "generator.*nothing of it has run")
                    self.assertIsInstance(raised, TypeError)
                    frame = "gi_frame" if func is generator_function else "ag_frame"
                    self.assertIsNone(getattr(made[-1], frame))


class NeverBegan(AsyncTestCase):
    async def notes(self, container):
        return [note for note in notes(await outcome(container())) if "began" in note]

    async def test_a_failure_says_how_many_tasks_never_began(self):
        tasks = [BackgroundTask(func) for func in (int, spin_async, fails, *[int, spin_async] * 3, int)]
        note = "7 tasks of BackgroundTasks(10 tasks) never began"
        raising = mock.Mock(side_effect=KeyError)
        for options in ({}, {"on_error": raising}, {"as_group": True, "limit": 1}):
            with self.subTest(options):
                self.assertEqual(await self.notes(BackgroundTasks(tasks, **options)), [note])
        self.assertEqual(
            await self.notes(BackgroundTasks(tasks[:4])), ["1 task of BackgroundTasks(4 tasks) never began"]
        )

    async def test_where_all_have_begun_nothing_is_said(self):
        for mode, container in modes():
            with self.subTest(mode):
                self.assertEqual(await self.notes(container([BackgroundTask(fails)])), [])
                self.assertEqual(await self.notes(container([BackgroundTask(fails)] * 5, fail_fast=False)), [])

    async def test_a_nested_run_and_the_one_around_it_each_say_theirs(self):
        inner = BackgroundTasks([BackgroundTask(fails), BackgroundTask(int)])
        outer = BackgroundTasks([inner, BackgroundTask(int), BackgroundTask(int)])
        expected = [
            f"{count} of BackgroundTasks({n} tasks) never began" for count, n in (("1 task", 2), ("2 tasks", 3))
        ]
        self.assertEqual(await self.notes(outer), expected)

    async def test_what_waits_for_a_thread_or_was_taken_back_from_its_queue_never_began(self):
        pool, gate = await self.full_pool()
        tasks = [BackgroundTask(int) for _ in range(20)]
        door = Door(when_cancelled=KeyError())
        run = self.go(BackgroundTasks([*tasks, BackgroundTask(door)], as_group=True, executor=pool))
        await door.reached()
        await until(lambda: pool.calls)
        await cancelled(run)
        raised = await outcome(run)
        gate.open()
        self.assertIn("20 tasks of BackgroundTasks(21 tasks) never began", notes(raised))


class Options(AsyncTestCase):
    WRONG = (
        ("tasks", BackgroundTask(print), TypeError, r"background\.BackgroundTask.*pass a list"),
        ("tasks", print, TypeError, "builtin_function_or_method.*pass a list"),
        ("tasks", 5, TypeError, "int.*pass a list"),
        ("tasks", [BackgroundTask(print), print], TypeError, "wrap it in one"),
        ("tasks", [BackgroundTask], TypeError, "wrap it in one"),
        ("as_group", BackgroundTask(print), TypeError, r"background\.BackgroundTask.*one list"),
        ("as_group", 1, TypeError, "int"),
        ("fail_fast", None, TypeError, "NoneType"),
        ("limit", True, TypeError, "bool"),
        ("limit", 2.0, TypeError, "float"),
        ("limit", 0, ValueError, "at least 1"),
        ("on_error", "print", TypeError, "str"),
        ("executor", ThreadPoolExecutor, TypeError, "Executor"),
        ("executor", "threads", TypeError, "str"),
    )

    def test_each_wrong_option_is_refused_when_a_container_is_made(self):
        for option, value, kind, message in self.WRONG:
            with self.subTest(option, value=value), self.assertRaisesRegex(kind, f"(?s){option}.*{message}"):
                BackgroundTasks(**{option: value})

    async def test_each_is_refused_when_a_run_begins_before_any_task(self):
        for (option, value, kind, message), (mode, container) in itertools.product(self.WRONG, modes()):
            with self.subTest(mode, option=option, value=value):
                log = Log()
                tasks = container([BackgroundTask(log.sync, 1)])
                if option == "tasks" and isinstance(value, list):
                    value = [BackgroundTask(log.sync, 1), *value]
                setattr(tasks, option, value)
                raised = await outcome(bounded(tasks.run_as_group() if mode != "in order" else tasks.run_single()))
                self.assertIsInstance(raised, kind)
                self.assertRegex(str(raised), message)
                self.assertEqual(log, [])

    def test_a_foreign_class_of_the_same_name_is_named_in_full(self):
        foreign = type("BackgroundTask", (), {"__module__": "starlette.background"})
        with self.assertRaisesRegex(TypeError, r"starlette\.background\.BackgroundTask.*wrap it"):
            BackgroundTasks([foreign()])

    def test_coroutine_objects_among_the_tasks_are_closed(self):
        with NoWarning(self):
            for given in ([asyncio.sleep(0), asyncio.sleep(0)], asyncio.sleep(0)):
                with self.assertRaisesRegex(TypeError, "coroutine.*function and its arguments"):
                    BackgroundTasks(given)


class HandlersAndNotes(AsyncTestCase):
    async def test_what_a_handler_raises_has_the_note_of_the_task(self):
        for mode, container in modes():
            for options in ({}, {"fail_fast": False}):
                with self.subTest(mode, options=options):
                    tasks = container([BackgroundTask(fails)], on_error=mock.Mock(side_effect=KeyError), **options)
                    (raised,) = leaves(await outcome(tasks()))
                    self.assertIsInstance(raised, KeyError)
                    self.assertIn(f"raised by BackgroundTask({__name__}.fails)", notes(raised))

    def test_start_without_a_loop_says_where_to_start(self):
        with NoWarning(self), self.assertRaises(RuntimeError) as caught:
            BackgroundTask(spin_async).start()
        self.assertRegex(notes(caught.exception)[0], "event loop.*response")

    async def test_of_a_batch_in_one_thread_the_task_that_failed_is_blamed(self):
        log = Log()
        tasks = [BackgroundTask(log.sync, 1), BackgroundTask(log.sync, 2, KeyError()), BackgroundTask(fails)]
        for mode, container in modes(executor=self.pool()):
            with self.subTest(mode):
                blamed = []
                await container(tasks, on_error=lambda task, exc: blamed.append((task, type(exc))))()  # noqa: B023
                self.assertCountEqual(blamed, [(tasks[1], KeyError), (tasks[2], ValueError)])

    async def test_a_base_exception_in_a_group_does_not_lose_a_failure_collected_before(self):
        tasks = [BackgroundTask(fails), BackgroundTask(Log().coro, 1, CustomBase())]
        raised = await outcome(BackgroundTasks(tasks, as_group=True, limit=1, fail_fast=False)())
        self.assertEqual([type(leaf) for leaf in leaves(raised)], [ValueError, CustomBase])


class Threads(AsyncTestCase):
    async def test_a_sequence_of_blocking_tasks_gives_its_thread_back_between_them(self):
        for as_group in (False, True):
            with self.subTest(as_group=as_group):
                log, gate, pool = Log(), self.gate(), self.pool(kind=ThreadPoolExecutor)

                def blocks(item):
                    log.sync(item)  # noqa: B023
                    gate()  # noqa: B023
                    time.sleep(0.002)

                tasks = BackgroundTasks([BackgroundTask(blocks, item) for item in range(3)], as_group, limit=1)
                tasks.executor = pool
                run = self.go(tasks)
                await gate.reached()
                other = pool.submit(log.sync, "other")
                gate.open()
                await run
                other.result()
                self.assertEqual(log, [0, "other", 1, 2])

    async def test_small_sync_tasks_share_few_trips(self):
        for mode, options in (MODES | {"one at a time": {"as_group": True, "limit": 1}}).items():
            with self.subTest(mode):
                pool, log = self.pool(4), Log()
                tasks = [BackgroundTask(log.sync, item) for item in range(1000)]
                await BackgroundTasks(tasks, executor=pool, **options)()
                self.assertCountEqual(log, range(1000))
                self.assertLess(len(pool.calls), 250)

    async def test_a_group_that_computes_uses_few_threads(self):
        pool, idents = self.pool(40), set()

        def computes():
            spin(0.00005)
            idents.add(threading.get_ident())

        await BackgroundTasks([BackgroundTask(computes) for _ in range(1000)], as_group=True, executor=pool)()
        self.assertLess(len(idents), 30)

    def test_loops_run_in_threads_have_threads_of_their_own(self):
        code = """
            import asyncio
            from background import BackgroundTask, BackgroundTasks

            def runs_a_loop(depth):
                inner = BackgroundTask(runs_a_loop, depth - 1) if depth else BackgroundTask(int)
                asyncio.run(BackgroundTasks([BackgroundTask(int), inner])())

            asyncio.run(BackgroundTasks([BackgroundTask(runs_a_loop, 2) for _ in range(45)], as_group=True)())
            print("ended")
        """
        self.assertEqual(run_python("-c", textwrap.dedent(code)), "ended\n")

    async def test_the_executor_of_a_run_is_that_of_what_is_awaited_in_it_not_of_what_is_started(self):
        names = Log()

        def where():
            names.append(threading.current_thread().name.split("_")[0])

        async def awaits():
            await BackgroundTask(where)()
            await BackgroundTasks([BackgroundTask(where)], as_group=True)()
            await BackgroundTask(where).start()
            await BackgroundTasks([BackgroundTask(where)]).start()

        for mode, container in modes(executor=self.pool(thread_name_prefix="own")):
            with self.subTest(mode):
                names.clear()
                await container([BackgroundTask(awaits)])()
                await BackgroundTask(where)()
                self.assertEqual(names, ["own", "own", "background", "background", "background"])

    def test_a_loop_run_in_a_thread_inherits_no_executor(self):
        def runs_a_loop():
            asyncio.run(bounded(BackgroundTask(int)()))

        with ThreadPoolExecutor(1) as pool:
            asyncio.run(bounded(BackgroundTasks([BackgroundTask(runs_a_loop)], executor=pool)()))


class ClosedCoroutines(AsyncTestCase):
    async def test_a_run_whose_coroutine_is_closed_ends_without_noise(self):
        for mode, container in modes() + modes(fail_fast=False):
            with self.subTest(mode), NoWarning(self):
                door = Door()
                before = asyncio.all_tasks()
                run = container([BackgroundTask(door), BackgroundTask(door)])()
                while not door.begun.is_set():
                    run.send(None)
                    await asyncio.sleep(0)
                run.close()
                for member in asyncio.all_tasks() - before:
                    member.cancel()
                    await asyncio.wait({member})

    def test_a_mock_of_a_task_can_stand_in_a_container(self):
        task = mock.AsyncMock(spec=BackgroundTask)
        asyncio.run(BackgroundTasks([task, BackgroundTask(int)])())
        self.assertEqual(task.await_count, 1)


class ClosedLoops(unittest.TestCase):
    def test_threads_that_end_after_the_loop_was_closed_say_nothing_and_begin_no_more(self):
        code = """
            import asyncio, os, sys, threading, time
            from background import BackgroundTask, BackgroundTasks

            log, ended, opened = [], [], threading.Event()

            def waits():
                log.append(1)
                opened.wait()
                ended.append(1)

            async def main():
                tasks = [BackgroundTask(waits) for _ in range(60)]
                global kept
                kept = (tasks[0] if mode == "alone" else BackgroundTasks(tasks, **options)).start()
                while len(log) < threads:
                    await asyncio.sleep(0.001)

            mode, options, threads = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3])
            loop = asyncio.new_event_loop()
            loop.run_until_complete(main())
            loop.stop()
            loop.close()
            opened.set()
            while len(ended) < threads:
                time.sleep(0.001)
            time.sleep(0.1)
            print(len(log) - threads, flush=True)
            os._exit(0)
        """
        others = {"alone": {}, "isolated": {"fail_fast": False}, "one at a time": {"as_group": True, "limit": 1}}
        for mode, options in (MODES | others).items():
            with self.subTest(mode):
                threads = {"as group": 40, "limited": 2}.get(mode, 1)
                done = subprocess.run(
                    [sys.executable, "-c", textwrap.dedent(code), mode, repr(options), str(threads)],
                    capture_output=True,
                    encoding="utf-8",
                    timeout=60,
                    env={**os.environ, "PYTHONPATH": str(HERE)},
                )
                self.assertEqual((done.stdout, done.stderr), ("0\n", ""))

    def test_what_is_still_queued_when_the_loop_is_closed_never_begins(self):
        async def starts():
            tasks.start()
            await until(lambda: len(pool.calls) == 2)

        gate, log = Gate(), Log()
        with Pool(1) as pool:
            pool.submit(gate)
            tasks = BackgroundTasks([BackgroundTask(log.sync, 1)], executor=pool)
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)
            loop.run_until_complete(starts())
            loop.close()
            gate.open()
        self.assertEqual(log, [])

    def test_what_was_started_on_closed_loops_is_let_go(self):
        kept = []

        async def starts():
            argument = Argument()
            kept.append(weakref.ref(argument))

            async def never_ends(argument):
                await asyncio.Event().wait()

            BackgroundTask(never_ends, argument).start()
            await asyncio.sleep(0)

        for _ in range(10):
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)
            loop.run_until_complete(starts())
            loop.close()
        gc.collect()
        self.assertLessEqual(sum(argument() is not None for argument in kept), 1)


class Failure(Exception):
    """Of the task or tasks whose numbers are its arguments."""


class Account:
    """A random tree of containers, and what becomes of each of its tasks."""

    def __init__(self, seed, loop, executors):
        self.seed, self.loop, self.executors = seed, loop, executors
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        self.place = {}  # of each task by its number: the task and its container
        self.begun, self.done, self.failed, self.interrupted, self.handled = (collections.Counter() for _ in range(5))
        self.running, self.most = collections.Counter(), collections.Counter()  # by container
        self.order = []
        self.dealt_with = set()
        self.parents = {}
        self.cancelled = False
        self.random = random.Random(seed)
        self.root = self.container(3)

    def container(self, depth):
        choose = self.random.choice
        container = BackgroundTasks(
            as_group=choose([False, True]),
            limit=choose([None, None, 1, 3]),
            fail_fast=choose([False, True]),
            executor=choose([None, None, *self.executors]),
        )
        kind = choose([None, None, "deals", "deals later", "raises", "raises another"])
        container.on_error = kind and self.handler(container, kind)
        for _ in range(self.random.randrange(9)):
            if depth and self.random.random() < 0.25:
                inner = self.container(depth - 1)
                self.parents[inner] = container
                container.tasks.append(inner)
            else:
                self.add_task(container)
        return container

    def handler(self, container, kind):
        def on_error(task, exc):
            numbers = [number for leaf in leaves(exc) for number in leaf.args]
            if kind == "raises":
                raise exc
            if kind == "raises another":
                raise Failure(*numbers)
            self.dealt_with.add((container, task))
            self.handled.update(numbers)

        async def on_error_later(task, exc):
            await asyncio.sleep(0)
            on_error(task, exc)

        return on_error_later if "later" in kind else on_error

    def add_task(self, container, generation=0):
        number = next(self.numbers)
        rng = random.Random(f"{self.seed} {number}")
        ending = rng.choices(["succeeds", "fails", "cancels the run"], [20, 3, 0.4])[0]
        adds = rng.choice([0, 0, 0, 1, 2]) if generation < 2 else 0
        blocks = rng.random() < 0.2
        when_cancelled = rng.choices(["ends", "fails", "goes on"], [6, 2, 1])[0]
        steps = rng.randrange(3)

        def work():
            for _ in range(adds):
                self.add_task(container, generation + 1)
            if ending == "cancels the run":
                self.cancelled = True
                self.loop.call_soon_threadsafe(self.run.cancel)
            if ending == "fails":
                raise Failure(number)

        def in_thread():
            with self.counted(container, number, begins=True):
                if blocks:
                    time.sleep(0.0005)
                work()

        async def on_loop(begins=True):
            with self.counted(container, number, begins):
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                except asyncio.CancelledError:
                    if when_cancelled == "fails":
                        raise Failure(number) from None
                    if when_cancelled == "ends":
                        raise
                work()

        def returns_awaitable():
            with self.counted(container, number, begins=True, ends=False):
                return on_loop(begins=False)

        task = BackgroundTask(rng.choice([in_thread, in_thread, on_loop, on_loop, returns_awaitable]))
        self.place[number] = task, container
        container.tasks.append(task)

    @contextlib.contextmanager
    def counted(self, container, number, begins, ends=True):
        with self.lock:
            if begins:
                self.begun[number] += 1
                self.order.append(number)
            self.running[container] += 1
            self.most[container] = max(self.most[container], self.running[container])
        outcome = self.done if ends else collections.Counter()
        try:
            yield
        except BaseException as exc:
            outcome = self.failed if isinstance(exc, Failure) else self.interrupted
            raise
        finally:
            with self.lock:
                outcome[number] += 1
                self.running[container] -= 1

    def has_failed(self, task):
        """Whether a task of a container has failed, or a container."""
        if not isinstance(task, BackgroundTasks):
            return any(self.failed[number] for number, (each, _) in self.place.items() if each is task)
        return any((task, each) not in self.dealt_with and self.has_failed(each) for each in task.tasks)

    def may_have_stopped(self, container):
        """Whether its tasks, or some of them, may have been left out."""
        if self.cancelled or (container.fail_fast and self.has_failed(container)):
            return True
        return container in self.parents and self.may_have_stopped(self.parents[container])

    def problems(self, raised):
        """What became of the tasks and should not have."""
        reported = collections.Counter()
        if type(raised) is asyncio.CancelledError:
            if not self.cancelled:
                yield "cancelled by nobody"
        else:
            for leaf in leaves(raised):
                if type(leaf) is Failure:
                    reported.update(leaf.args)
                else:
                    yield f"raised {leaf!r}"
        for number, (task, container) in self.place.items():
            if self.begun[number] > 1:
                yield f"task {number} has begun {self.begun[number]} times"
            if self.failed[number] != reported[number] + self.handled[number]:
                yield (
                    f"task {number} has failed {self.failed[number]} times, was raised {reported[number]} times "
                    f"and handled {self.handled[number]} times"
                )
            if self.done[number] + self.failed[number] != 1 and not self.may_have_stopped(container):
                yield f"{task!r} {number} has neither ended nor failed, and nothing has stopped the run"
            if self.done[number] + self.failed[number] + self.interrupted[number] > self.begun[number]:
                yield f"task {number} has ended more than once"
        for container, most in self.most.items():
            limit = 1 if not container.as_group else container.limit
            if limit is not None and most > limit:
                yield f"{most} tasks at a time, not {limit}"
            numbers = [number for number in self.order if self.place[number][1] is container]
            if not container.as_group:
                index = {id(task): index for index, task in enumerate(container.tasks)}
                begun = [index[id(self.place[number][0])] for number in numbers]
                if begun != sorted(begun):
                    yield f"a sequence has begun its tasks in the order {begun}"
        if any(self.running.values()):
            yield "something is still running"


class Accounting(AsyncTestCase):
    async def test_every_task_is_accounted_for(self):
        executors = [self.pool(3), self.pool(3, Elsewhere)]
        accounts, eager = [], hasattr(asyncio, "eager_task_factory")
        seeds = 150 if self.loop.get_debug() else 500
        for seed in range(seeds):
            with self.subTest(seed=seed):
                if eager:
                    self.loop.set_task_factory(eager_task_factory if seed % 3 == 0 else None)
                account = Account(seed, self.loop, executors)
                root = account.root

                async def run():
                    account.run = asyncio.current_task()  # noqa: B023
                    await root()  # noqa: B023

                raised = await outcome(bounded(self.go(run)))
                begun = account.begun.total()
                self.assertEqual(list(account.problems(raised)), [])
                accounts.append((account, begun))
        self.assertGreater(sum(len(account.place) for account, _ in accounts), 10 * seeds)
        for account, begun in accounts:
            self.assertEqual(account.begun.total(), begun)


class ReadMe(unittest.TestCase):
    """The code blocks of README.md, if it has come along with this file."""

    def setUp(self):
        path = pathlib.Path(__file__).resolve().parent / "README.md"
        self.text = path.read_text(encoding="utf-8") if path.exists() else None

    def blocks(self, text):
        """As (language, code, what follows)."""
        return [(match[1], match[2], text[match.end() :]) for match in re.finditer(r"(?ms)^```(\w+)\n(.*?)^```$", text)]

    def test_the_first_command_prints_what_stands_below_it(self):
        if self.text is not None:
            code, rest = next((code, rest) for language, code, rest in self.blocks(self.text) if language == "sh")
            printed = next(text for language, text, _ in self.blocks(rest) if language == "text")
            script = re.fullmatch(r"(?s)python3 - <<'PY'\n(.*)\nPY\n", code)[1]
            self.assertEqual(run_python("-", input=script, cwd=HERE), printed)

    def test_the_python_blocks_on_its_options_run(self):
        if self.text is not None:
            section = self.text.split("\n## Options\n", 1)[1].split("\n## ", 1)[0]
            codes = [code for language, code, _ in self.blocks(section) if language == "python"]
            self.assertGreater(len(codes), 0)
            for number, code in enumerate(codes, 1):
                with self.subTest(number, code=code), tempfile.TemporaryDirectory() as directory:
                    script = pathlib.Path(directory) / "block.py"
                    script.write_text(code, encoding="utf-8")
                    run_python(str(script), cwd=directory)


if __name__ == "__main__":
    unittest.main()
