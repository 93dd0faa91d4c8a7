"""Containers on real executors: threads, processes (forked and spawned), and a Dask cluster on this machine."""

import asyncio
import functools
import json
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from background import BackgroundTask, BackgroundTasks

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

WORKERS = 2
SECONDS_UNTIL_IT_COUNTS_AS_HANGING = 30
MODES = pytest.mark.parametrize("as_group", [False, True], ids=["in order", "as group"])
OTHER_PROCESSES = pytest.mark.parametrize("kind", ["fork", "spawn", "dask"], indirect=True, scope="module")
PROCESS_POOLS = pytest.mark.parametrize("kind", ["fork", "spawn"], indirect=True, scope="module")


def run(coroutine: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, SECONDS_UNTIL_IT_COUNTS_AS_HANGING))


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS_UNTIL_IT_COUNTS_AS_HANGING / 2
    while not condition():
        assert time.monotonic() < deadline, "this has not come about in time"
        await asyncio.sleep(0.005)


# ---- what the workers run: they import it from here


def note(path: Path, word: object) -> None:
    """Append a line; one write, so that lines of several processes do not mix."""
    with open(path, "ab", buffering=0) as file:
        file.write(f"{word}\n".encode())


def noted(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def note_process(path: Path) -> None:
    note(path, os.getpid())


def note_keywords(path: Path, **keywords: object) -> None:
    note(path, json.dumps(keywords, sort_keys=True, separators=(",", ":")))


def compute_until_all_workers_do(path: Path, number: int) -> None:
    """Keep one worker busy until others have begun as well, which proves that they run at the same time."""
    note(path, f"{os.getpid()}/{threading.get_ident()}")
    deadline = time.monotonic() + SECONDS_UNTIL_IT_COUNTS_AS_HANGING / 2
    while len(set(noted(path))) < WORKERS:
        sum(range(number))
        if time.monotonic() > deadline:
            raise TimeoutError("no other worker has begun")


def run_until_released(path: Path, number: int = 0) -> None:
    note(path, f"begun:{number}:{os.getpid()}")
    deadline = time.monotonic() + SECONDS_UNTIL_IT_COUNTS_AS_HANGING / 2
    while not path.with_suffix(".released").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody has released it")
        time.sleep(0.005)
    note(path, f"ended:{number}:{os.getpid()}")


def release(path: Path) -> None:
    path.with_suffix(".released").touch()


def begun(path: Path) -> list[str]:
    return [line for line in noted(path) if line.startswith("begun")]


def ended(path: Path) -> list[str]:
    return [line for line in noted(path) if line.startswith("ended")]


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class CannotBeUnpickled(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)


def refuse(code: int) -> None:
    raise Refused(code)


def raise_what_cannot_be_unpickled() -> None:
    raise CannotBeUnpickled(1, "its __init__ takes more than its args")


def return_a_lock() -> object:
    return threading.Lock()


def return_a_coroutine() -> Awaitable[None]:
    return asyncio.sleep(0)


def come_last() -> None:
    """Queued behind everything else: when it has run, nothing else is still to begin."""


# ---- the executors


@pytest.fixture(scope="module", params=["threads", "fork", "spawn", "dask"])
def kind(request: pytest.FixtureRequest) -> str:
    """Of the module's scope so that pytest runs one kind after the other: forking beside Dask's threads is not safe."""
    return str(request.param)


@pytest.fixture(scope="module")
def dask_client() -> Iterator[object]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
def executor(kind: str, path: Path, request: pytest.FixtureRequest) -> Iterator[Executor]:
    if kind == "dask":
        # Dask takes functions for pure unless told otherwise: of identical calls it runs one.
        yield request.getfixturevalue("dask_client").get_executor(pure=False)
    elif kind == "threads":
        with ThreadPoolExecutor(WORKERS) as pool:
            yield pool
            release(path)
    else:
        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context(kind)) as pool:
            yield pool
            release(path)


async def begin_all_workers(executor: Executor, path: Path) -> None:
    """A process pool watches a new worker from its next result on; one killed before that goes unnoticed until then."""
    tasks = [BackgroundTask(compute_until_all_workers_do, path.with_suffix(".all"), 1) for _ in range(WORKERS)]
    await BackgroundTasks(tasks, as_group=True, executor=executor)()


# ---- on every executor


def test_a_group_of_computing_functions_spreads_over_the_workers(executor: Executor, kind: str, path: Path) -> None:
    tasks = [BackgroundTask(compute_until_all_workers_do, path, number) for number in range(6)]
    run(BackgroundTasks(tasks, as_group=True, executor=executor)())
    places = noted(path)
    processes = {int(place.split("/")[0]) for place in places}
    assert len(places) == 6
    assert len(set(places)) == WORKERS
    if kind == "threads":
        assert processes == {os.getpid()}
    else:
        assert len(processes) == WORKERS
        assert os.getpid() not in processes


def test_async_functions_stay_on_the_event_loop(executor: Executor, path: Path) -> None:
    threads = []

    async def note_thread() -> None:
        threads.append(threading.current_thread())

    tasks = [BackgroundTask(note_process, path), BackgroundTask(note_thread)]
    for as_group in (False, True):
        run(BackgroundTasks(tasks, as_group, executor=executor)())
    assert threads == [threading.current_thread()] * 2
    assert len(noted(path)) == 2


@OTHER_PROCESSES
@MODES
def test_functions_of_nested_containers_run_there_too(executor: Executor, path: Path, as_group: bool) -> None:
    inner = BackgroundTasks([BackgroundTask(note_process, path)], as_group)
    run(BackgroundTasks([inner, BackgroundTasks([inner])], as_group, executor=executor)())
    assert len(noted(path)) == 2
    assert str(os.getpid()) not in noted(path)


@MODES
def test_a_failure_comes_back_as_its_own_type(executor: Executor, as_group: bool) -> None:
    async def main() -> None:
        tasks = BackgroundTasks([BackgroundTask(refuse, 7)], as_group, executor=executor)
        with pytest.raises(ExceptionGroup if as_group else Refused) as caught:
            await tasks()
        (failure,) = caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else [caught.value]
        assert type(failure) is Refused
        assert failure.code == 7
        assert [line for line in failure.__notes__ if f"{__name__}.refuse" in line]

    run(main())


@MODES
def test_without_fail_fast_every_failure_is_reported_beside_the_others(
    executor: Executor, path: Path, as_group: bool
) -> None:
    async def main() -> None:
        tasks = [BackgroundTask(refuse, 1), BackgroundTask(note_process, path), BackgroundTask(refuse, 2)]
        with pytest.raises(ExceptionGroup) as caught:
            await BackgroundTasks([*tasks, *tasks], as_group, fail_fast=False, executor=executor)()
        assert sorted(failure.code for failure in caught.value.exceptions) == [1, 1, 2, 2]  # type: ignore[union-attr]
        assert len(noted(path)) == 2

    run(main())


def test_keywords_named_like_options_of_submit_reach_the_function(executor: Executor, path: Path) -> None:
    names = (
        *("actor", "actors", "allow_other_workers", "fifo_timeout", "key", "priority", "pure", "resources", "retries"),
        *("workers", "args", "chunksize", "executor", "fn", "kwargs", "limit", "self", "tasks", "timeout"),
    )
    keywords = {name: f"my_{name}" for name in names}
    tasks = BackgroundTasks(executor=executor)
    tasks.add_task(note_keywords, path, **keywords)
    tasks.add_task(functools.partial(note_keywords, func="my_func"), path, **keywords)
    run(tasks())
    assert [json.loads(line) for line in noted(path)] == [keywords, {**keywords, "func": "my_func"}]


@MODES
def test_each_of_many_identical_tasks_runs_in_each_run(executor: Executor, path: Path, as_group: bool) -> None:
    tasks = BackgroundTasks([BackgroundTask(note_process, path) for _ in range(5)], as_group, executor=executor)

    async def main() -> None:
        await tasks()
        assert len(noted(path)) == 5
        await tasks()
        assert len(noted(path)) == 10

    run(main())


def test_calls_that_a_shut_down_executor_drops_are_runtime_errors(executor: Executor, kind: str, path: Path) -> None:
    async def main() -> None:
        tasks = [BackgroundTask(run_until_released, path, number) for number in range(12)]
        running = BackgroundTasks(tasks, as_group=True, fail_fast=False, executor=executor).start()
        await until(lambda: len(begun(path)) == WORKERS)
        if kind == "dask":
            executor.shutdown(wait=False)
        else:
            executor.shutdown(wait=False, cancel_futures=True)
        release(path)
        with pytest.raises(ExceptionGroup) as caught:
            await running
        assert {type(failure) for failure in caught.value.exceptions} == {RuntimeError}
        await until(lambda: len(ended(path)) == len(begun(path)))
        assert len(begun(path)) < len(tasks)
        with pytest.raises(RuntimeError):
            await BackgroundTasks([tasks[0]], executor=executor)()

    run(main())


# ---- on those of other processes


@OTHER_PROCESSES
@MODES
def test_an_argument_that_cannot_be_pickled_raises_its_error_and_spares_the_others(
    executor: Executor, path: Path, as_group: bool
) -> None:
    async def main() -> None:
        good = BackgroundTask(note_process, path)
        bad = BackgroundTask(note, path, threading.Lock())
        with pytest.raises(ExceptionGroup) as caught:
            await BackgroundTasks([good, bad, good], as_group, fail_fast=False, executor=executor)()
        assert [type(failure) for failure in caught.value.exceptions] == [TypeError]
        await BackgroundTasks([good], executor=executor)()
        assert len(noted(path)) == 3

    run(main())


@PROCESS_POOLS
def test_a_function_that_cannot_be_pickled_raises_its_error(executor: Executor) -> None:
    async def main() -> None:
        with pytest.raises((pickle.PicklingError, AttributeError), match="pickle"):
            await BackgroundTasks([BackgroundTask(lambda: None)], executor=executor)()

    run(main())


@PROCESS_POOLS
@pytest.mark.parametrize("func", [return_a_lock, return_a_coroutine])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_result_that_cannot_be_pickled_raises_its_error(executor: Executor, func: Callable[[], object]) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="pickle"):
            await BackgroundTasks([BackgroundTask(func)], executor=executor)()

    run(main())


@PROCESS_POOLS
@MODES
def test_an_exception_that_cannot_cross_gives_an_error_and_no_hang(executor: Executor, as_group: bool) -> None:
    async def main() -> None:
        tasks = [BackgroundTask(raise_what_cannot_be_unpickled), BackgroundTask(refuse, 1)]
        with pytest.raises(ExceptionGroup) as caught:
            await BackgroundTasks(tasks, as_group, fail_fast=False, executor=executor)()
        failures = caught.value.exceptions
        assert len(failures) == 2
        assert any(isinstance(failure, BrokenProcessPool) for failure in failures)

    run(main())


@PROCESS_POOLS
def test_a_worker_killed_while_it_runs_is_an_error_beside_the_others(executor: Executor, path: Path) -> None:
    async def main() -> None:
        tasks = [
            BackgroundTask(refuse, 1),
            BackgroundTask(run_until_released, path),
            BackgroundTask(note_process, path),
        ]
        running = BackgroundTasks(tasks, fail_fast=False, executor=executor).start()
        await until(lambda: begun(path))
        os.kill(int(begun(path)[0].split(":")[2]), signal.SIGKILL)
        with pytest.raises(ExceptionGroup) as caught:
            await running
        assert [type(failure) for failure in caught.value.exceptions] == [Refused, BrokenProcessPool, BrokenProcessPool]
        assert len(noted(path)) == 1

    run(main())


# Before 3.12 a ProcessPoolExecutor that breaks while somebody cancels a queued call leaves its other workers running.
BREAKS_CLEANLY = sys.version_info >= (3, 12)


@PROCESS_POOLS
@pytest.mark.parametrize(
    ("limit", "fail_fast"), [(2, True), (2, False), (None, False)] + [(None, True)] * BREAKS_CLEANLY
)
def test_a_group_ends_when_a_worker_is_killed(
    executor: Executor, path: Path, limit: int | None, fail_fast: bool
) -> None:
    async def main() -> None:
        await begin_all_workers(executor, path)
        tasks = [BackgroundTask(run_until_released, path, number) for number in range(6)]
        running = BackgroundTasks(tasks, True, limit=limit, fail_fast=fail_fast, executor=executor).start()
        await until(lambda: len(begun(path)) == WORKERS)
        os.kill(int(begun(path)[0].split(":")[2]), signal.SIGKILL)
        with pytest.raises(ExceptionGroup) as caught:
            await running
        failures = caught.value.exceptions
        assert {type(failure) for failure in failures} == {BrokenProcessPool}
        assert fail_fast or len(failures) == len(tasks)
        assert not ended(path)

    run(main())


@pytest.mark.parametrize("kind", ["threads", "fork", "spawn"], indirect=True, scope="module")
@pytest.mark.parametrize("limit", [None, 3])
@MODES
def test_a_cancelled_run_waits_for_the_calls_that_run_and_begins_no_other(
    executor: Executor, path: Path, as_group: bool, limit: int | None
) -> None:
    async def main() -> None:
        tasks = [BackgroundTask(run_until_released, path, number) for number in range(20)]
        running = BackgroundTasks(tasks, as_group, limit=limit, executor=executor).start()
        await until(lambda: len(begun(path)) == (WORKERS if as_group else 1))
        for _ in range(3):
            running.cancel()
            await asyncio.wait({running}, timeout=0.02)
        assert not running.done(), "it has ended before the functions that are running"
        release(path)
        await asyncio.wait({running}, timeout=SECONDS_UNTIL_IT_COUNTS_AS_HANGING / 2)
        assert running.cancelled()
        at_the_end = noted(path)
        assert len(begun(path)) == len(ended(path))
        # A process pool fetches one call more than it has workers, and what it has fetched counts as begun.
        fetched = 0 if isinstance(executor, ThreadPoolExecutor) else WORKERS + 1
        assert len(begun(path)) <= (WORKERS + fetched if as_group else 1)
        await asyncio.wrap_future(executor.submit(come_last))
        assert noted(path) == at_the_end

    run(main())
