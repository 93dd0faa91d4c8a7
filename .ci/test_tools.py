"""Tools that look inside of a task or stand in its place: copies, pickles, weak references, mocks, Sentry, stamina."""

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import pytest
import stamina

from background import BackgroundTask, BackgroundTasks

ran: list[object] = []


def run(coroutine: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    ran.clear()


def write(line: object, *, end: str = "") -> None:
    assert threading.current_thread() is not threading.main_thread()
    ran.append(f"{line}{end}")


async def send(to: object, *, subject: str = "") -> None:
    assert threading.current_thread() is threading.main_thread()
    ran.append(f"{to}{subject}")


def handle(task: BackgroundTask, exc: Exception) -> None:
    ran.append(exc)


def fail() -> None:
    raise LookupError


# ---- copy, deepcopy, pickle, weakref

DUPLICATORS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle protocol {protocol}": lambda task, protocol=protocol: pickle.loads(pickle.dumps(task, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}
DUPLICATED = pytest.mark.parametrize("duplicate", DUPLICATORS.values(), ids=DUPLICATORS.keys())


def full_container() -> BackgroundTasks:
    inner = BackgroundTasks([BackgroundTask(write, 2)], limit=3)
    return BackgroundTasks(
        [BackgroundTask(send, 1, subject="!"), inner, BackgroundTask(fail)],
        True,
        limit=1,
        fail_fast=False,
        on_error=handle,
    )


@DUPLICATED
@pytest.mark.parametrize(
    ("task", "line"),
    [(BackgroundTask(send, "ada", subject="!"), "ada!"), (BackgroundTask(write, "ada", end="\n"), "ada\n")],
    ids=["async", "sync"],
)
def test_a_duplicate_of_a_task_runs_like_the_task(
    duplicate: Callable[[BackgroundTask], BackgroundTask], task: BackgroundTask, line: str
) -> None:
    duplicated = duplicate(task)
    assert type(duplicated) is BackgroundTask
    assert duplicated is not task
    assert (duplicated.func, duplicated.args, duplicated.kwargs) == (task.func, task.args, task.kwargs)
    assert repr(duplicated) == repr(task)
    for each in (duplicated, task):
        ran.clear()
        run(each())
        assert ran == [line]


@DUPLICATED
def test_a_duplicate_of_a_container_runs_like_the_container(
    duplicate: Callable[[BackgroundTasks], BackgroundTasks],
) -> None:
    tasks = full_container()
    duplicated = duplicate(tasks)
    assert type(duplicated) is BackgroundTasks
    assert (duplicated.as_group, duplicated.limit, duplicated.fail_fast) == (True, 1, False)
    assert (duplicated.on_error, duplicated.executor, duplicated.args, duplicated.kwargs) == (handle, None, (), {})
    assert duplicated.func == duplicated.run_as_group
    assert duplicated.func != tasks.func
    for each in (duplicated, tasks):
        ran.clear()
        run(each())
        assert ran[:2] == ["1!", "2"]
        assert [type(failure) for failure in ran[2:]] == [LookupError]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda tasks: pickle.loads(pickle.dumps(tasks))])
def test_tasks_added_to_a_duplicate_do_not_reach_the_container(
    duplicate: Callable[[BackgroundTasks], BackgroundTasks],
) -> None:
    tasks = full_container()
    duplicated = duplicate(tasks)
    duplicated.add_task(write, 3)
    assert (len(tasks.tasks), len(duplicated.tasks)) == (3, 4)
    tasks.tasks.clear()
    assert len(duplicated.tasks) == 4


def test_a_deep_copy_of_a_container_holds_copies_of_its_tasks() -> None:
    tasks = full_container()
    duplicated = copy.deepcopy(tasks)
    assert not {id(task) for task in tasks.tasks} & {id(task) for task in duplicated.tasks}


def test_a_task_with_parts_that_do_not_pickle_is_refused_by_pickle() -> None:
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(BackgroundTask(write, threading.Lock()))


@pytest.mark.parametrize("make", [lambda: BackgroundTask(write, 1), full_container], ids=["task", "container"])
def test_a_weak_reference_to_a_task_dies_with_it_also_after_a_run(make: Callable[[], BackgroundTask]) -> None:
    task = make()
    reference = weakref.ref(task)
    assert reference() is task
    run(task())
    ran.clear()  # an exception in it refers to the run
    del task
    gc.collect()
    assert reference() is None


def test_a_started_task_that_nobody_refers_to_survives_the_garbage_collector() -> None:
    waiters: list[weakref.ref[asyncio.Future[None]]] = []
    reports: list[object] = []

    async def wait_for_what_only_this_function_knows() -> None:
        waiter = asyncio.get_running_loop().create_future()
        waiters.append(weakref.ref(waiter))
        await waiter
        ran.append("ended")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
        BackgroundTask(wait_for_what_only_this_function_knows).start()
        await asyncio.sleep(0)
        gc.collect()
        assert not reports
        waiter = waiters[0]()
        assert waiter is not None
        waiter.set_result(None)
        await asyncio.sleep(0)
        assert ran == ["ended"]

    run(main())


# ---- unittest.mock


MOCKS_OF_ASYNC_FUNCTIONS: dict[str, Callable[[], mock.Mock]] = {
    "AsyncMock": mock.AsyncMock,
    "autospec of async": lambda: mock.create_autospec(send),
}
MOCKS: dict[str, Callable[[], mock.Mock]] = {
    **MOCKS_OF_ASYNC_FUNCTIONS,
    "Mock": mock.Mock,
    "MagicMock": mock.MagicMock,
    "autospec of sync": lambda: mock.create_autospec(write),
    "Mock over sync": lambda: mock.Mock(side_effect=write),
    "Mock over async": lambda: mock.Mock(side_effect=send),
    "MagicMock over async": lambda: mock.MagicMock(side_effect=send),
}


@pytest.mark.parametrize("as_group", [False, True], ids=["in order", "as group"])
@pytest.mark.parametrize("name", MOCKS)
@pytest.mark.filterwarnings("error")
def test_a_mock_is_a_task_like_the_function_that_it_stands_for(name: str, as_group: bool) -> None:
    double = MOCKS[name]()
    tasks = BackgroundTasks([BackgroundTask(double, "ada"), BackgroundTasks([BackgroundTask(double, "ada")])], as_group)
    tasks.add_task(double, "ada")
    run(BackgroundTask(double, "ada")())
    run(tasks())
    assert double.call_args_list == [mock.call("ada")] * 4
    if name in MOCKS_OF_ASYNC_FUNCTIONS:
        assert double.await_count == 4
    if "over" in name:
        assert ran == ["ada"] * 4
    gc.collect()


@pytest.mark.parametrize("double", [mock.AsyncMock, mock.Mock, mock.MagicMock])
def test_what_a_mock_raises_is_raised_with_a_note_that_names_it(double: type[mock.Mock]) -> None:
    async def main() -> None:
        error = LookupError()
        with pytest.raises(LookupError) as caught:
            await BackgroundTask(double(side_effect=error))()
        assert caught.value is error
        assert [note for note in caught.value.__notes__ if double.__name__ in note]

    run(main())


def test_a_mock_of_a_task_can_stand_in_a_container() -> None:
    double = mock.AsyncMock(spec=BackgroundTask)
    run(BackgroundTasks([double, double])())
    assert double.await_count == 2


def test_a_patched_function_is_the_one_that_a_task_made_meanwhile_runs() -> None:
    with mock.patch(f"{__name__}.send") as double:
        run(BackgroundTask(send, "ada")())
    double.assert_awaited_once_with("ada")


# ---- Sentry and its like: BackgroundTask.__call__ is the one seam


class Seam:
    """Records which function's task runs through `BackgroundTask.__call__`, as Sentry's integrations wrap it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def wrap(self, call: Callable[[BackgroundTask], Coroutine[Any, Any, None]]) -> Any:
        async def wrapped(task: BackgroundTask) -> None:
            self.names.append(getattr(task.func, "__name__", "other"))
            try:
                await call(task)
            except Exception as exc:
                self.names.append(type(exc).__name__)
                raise

        return wrapped


@pytest.fixture
def seam(monkeypatch: pytest.MonkeyPatch) -> Seam:
    """`Task`, which the tests make their tasks of, is a subclass with a `__call__` of its own."""
    seam = Seam()
    traced = type("Traced", (BackgroundTask,), {"__call__": seam.wrap(BackgroundTask.__call__)})
    monkeypatch.setattr(seam, "Task", traced, raising=False)
    return seam


SHAPES: dict[str, Callable[[list[BackgroundTask]], BackgroundTasks]] = {
    "in order": lambda tasks: BackgroundTasks(tasks),
    "as group": lambda tasks: BackgroundTasks(tasks, as_group=True),
    "limited group": lambda tasks: BackgroundTasks(tasks, as_group=True, limit=2),
    "group that isolates": lambda tasks: BackgroundTasks(tasks, as_group=True, fail_fast=False),
    "with a handler": lambda tasks: BackgroundTasks(tasks, on_error=handle),
    "sequence in a group": lambda tasks: BackgroundTasks([BackgroundTasks(tasks)], as_group=True),
    "group in a sequence": lambda tasks: BackgroundTasks([BackgroundTasks(tasks, as_group=True, limit=1)]),
    "a group in each of two": lambda tasks: BackgroundTasks(
        [BackgroundTasks(tasks[:3], as_group=True), BackgroundTasks(tasks[3:], as_group=True)], as_group=True
    ),
}
SHAPED = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@SHAPED
def test_every_task_of_a_container_runs_through_the_seam(
    seam: Any, shape: Callable[[list[BackgroundTask]], BackgroundTasks]
) -> None:
    tasks = shape([seam.Task(send if number % 2 else write, number) for number in range(7)])
    for _ in range(2):
        ran.clear()
        seam.names.clear()
        run(tasks())
        assert sorted(map(str, ran)) == list("0123456")
        assert sorted(seam.names) == ["send"] * 3 + ["write"] * 4


@pytest.mark.parametrize("shape", [SHAPES["group that isolates"], SHAPES["in order"], SHAPES["limited group"]])
def test_failures_pass_through_the_seam(seam: Any, shape: Callable[[list[BackgroundTask]], BackgroundTasks]) -> None:
    async def fail_later() -> None:
        raise LookupError

    for func in (fail, fail_later):
        seam.names.clear()

        async def main(func: Callable[[], object] = func) -> None:
            with pytest.raises((LookupError, ExceptionGroup)):
                await shape([seam.Task(func)])()

        run(main())
        assert seam.names == [func.__name__, "LookupError"]


def test_started_tasks_run_through_the_seam(seam: Any) -> None:
    async def main() -> None:
        await asyncio.gather(seam.Task(send, 1).start(), BackgroundTasks([seam.Task(write, 2)]).start())

    run(main())
    assert sorted(seam.names) == ["send", "write"]


def test_the_seam_of_the_container_is_its_own_call(monkeypatch: pytest.MonkeyPatch) -> None:
    seam = Seam()
    monkeypatch.setattr(BackgroundTasks, "__call__", seam.wrap(BackgroundTasks.__call__))
    run(BackgroundTasks([BackgroundTasks([BackgroundTask(write, 1)], as_group=True)])())
    assert seam.names == ["run_single", "run_as_group"]


# ---- stamina


class Flaky(Exception):
    pass


def fail_at_first(line: object) -> None:
    ran.append(line)
    if ran.count(line) < 3:
        raise Flaky


@stamina.retry(on=Flaky, attempts=3, wait_initial=0.001, wait_max=0.002)
def write_in_the_end(line: object) -> None:
    assert threading.current_thread() is not threading.main_thread()
    fail_at_first(line)


@stamina.retry(on=Flaky, attempts=3, wait_initial=0.001, wait_max=0.002)
async def send_in_the_end(line: object) -> None:
    assert threading.current_thread() is threading.main_thread()
    fail_at_first(line)


@stamina.retry(on=Flaky, attempts=2, wait_initial=0.001, wait_max=0.002)
def write_never() -> None:
    fail_at_first("never")


@stamina.retry(on=Flaky, attempts=2, wait_initial=0.001, wait_max=0.002)
async def send_never() -> None:
    fail_at_first("never")


@SHAPED
def test_stamina_retries_a_task_until_it_succeeds(
    shape: Callable[[list[BackgroundTask]], BackgroundTasks],
) -> None:
    functions = [write_in_the_end, send_in_the_end] * 3
    run(shape([BackgroundTask(func, number) for number, func in enumerate(functions)])())
    assert sorted(map(str, ran)) == sorted("012345" * 3)


@pytest.mark.parametrize("func", [write_never, send_never])
def test_what_stamina_raises_in_the_end_is_the_tasks_failure(func: Callable[[], object]) -> None:
    async def main() -> None:
        with pytest.raises(Flaky) as caught:
            await BackgroundTask(func)()
        assert [note for note in caught.value.__notes__ if f"{__name__}.{func.__name__}" in note]

    run(main())
    assert ran == ["never"] * 2


def test_a_cancelled_task_is_not_retried() -> None:
    begun = asyncio.Event()

    @stamina.retry(on=Exception, attempts=5, wait_initial=0.001)
    async def wait_for_ever() -> None:
        ran.append("begun")
        begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        started = BackgroundTasks([BackgroundTask(wait_for_ever)], as_group=True).start()
        await begun.wait()
        started.cancel()
        await asyncio.wait({started}, timeout=10)
        assert started.cancelled()

    run(main())
    assert ran == ["begun"]
