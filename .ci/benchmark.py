"""What background.py costs beside its peers and beside asyncio used by hand. Run by hand, never as a test.

    python .ci/benchmark.py --quick                    # a minute or two
    python .ci/benchmark.py --write                    # all of it, about ten minutes, into BENCHMARK.md and the README
    python .ci/benchmark.py --only "in a group" --subjects ours
    python .ci/benchmark.py --only . --module ../older/background.py    # another background.py beside this one

Everything runs in one process, in rounds: in each round every subject is measured once, in an order that rotates. Only
ratios to the bare limit within one round are compared: what disturbs the machine then disturbs both. The bare limit is
what a person would write by hand with asyncio alone. Tasks and containers are made outside of what is measured, except
where the line says that it is the making. It fails where ours misses a floor. Needs the packages of the `dev` group.
"""

import argparse
import asyncio
import gc
import inspect
import itertools
import multiprocessing
import os
import platform
import re
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import timeit
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import import_module, metadata, util
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

Func = Callable[..., Any]
Run = Callable[[], Awaitable[object]]

# ---- the work


def nothing() -> None:
    pass


async def nothing_async() -> None:
    pass


async def sleep_0() -> None:
    await asyncio.sleep(0)


async def sleep_1ms() -> None:
    await asyncio.sleep(0.001)


def sleep_2ms() -> None:
    time.sleep(0.002)


def spin(loops: int) -> None:
    for _ in range(loops):
        pass


@cache
def loops_of_50us() -> int:
    return round(50e-6 / min(timeit.repeat(partial(spin, 10_000), number=1, repeat=50)) * 10_000)


def busy() -> None:
    spin(loops_of_50us())


async def busy_async() -> None:
    spin(loops_of_50us())


# ---- the subjects: each library in its best documented way; None stands for what it does not offer


class Library:
    """One with tasks and a container; a group that it has no option for is the user's own TaskGroup."""

    def __init__(
        self, name: str, module: str, task: str = "BackgroundTask", container: str = "BackgroundTasks", group: str = ""
    ) -> None:
        self.name = name
        self.source = module, ROOT  # to import it from
        self.make: Any = getattr(import_module(module), task, None)
        self.container: Any = getattr(import_module(module), container, None)
        self.group_option = group

    def fill(self, n: int, func: Func, *args: object, **kwargs: object) -> Any:
        tasks = self.container()
        for _ in range(n):
            tasks.add_task(func, *args, **kwargs)
        return tasks

    def fill_ten(self, func: Func, arg: object) -> Any:
        """Spelled out, so that nothing but the library is measured."""
        tasks = self.container()
        for _ in range(10):
            tasks.add_task(func, arg)
        return tasks

    def one(self, func: Func) -> Any:
        return self.make(func) if self.make else self.fill(1, func)

    def sequence(self, func: Func, n: int) -> Any:
        return self.fill(n, func)

    def group(self, func: Func, n: int, limit: int | None = None) -> Any:
        async def in_task_group() -> None:
            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(task())

        if limit:
            return None
        tasks = self.fill(n, func).tasks
        return self.container(tasks, **{self.group_option: True}) if self.group_option else in_task_group

    def groups(self, func: Func, *sizes: int) -> list[Any]:
        return [self.group(func, n) for n in sizes]

    def gather(self, func: Func, n: int) -> Any:
        return self.group(func, n)

    def limited(self, func: Func, n: int, limit: int) -> Any:
        return self.group(func, n, limit)

    computing: list[Run] | None = None


class Ours(Library):
    def __init__(self, name: str = "ours", module: str = "background") -> None:
        super().__init__(name, module)

    def group(self, func: Func, n: int, limit: int | None = None) -> Any:
        return self.container((self.make(func) for _ in range(n)), as_group=True, limit=limit)

    @cached_property
    def computing(self) -> list[Run]:  # type: ignore[override]
        """The same group in two processes and in threads."""
        tasks = [self.make(spin, 400 * loops_of_50us()) for _ in range(8)]  # 20 ms each
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        return [self.container(tasks, as_group=True, executor=executor) for executor in (pool, None)]


def another(path: Path) -> Library:
    """The module of another file, under a name of its own, so that both can be loaded."""
    spec = util.spec_from_file_location(path.stem + "_first", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python module")
    module = sys.modules[spec.name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    subject = Ours("first", spec.name)
    subject.source = path.stem, path.resolve().parent
    return subject


class Litestar(Library):
    """Its container takes a list and has no `add_task`."""

    def fill(self, n: int, func: Func, *args: object, **kwargs: object) -> Any:
        return self.container([self.make(func, *args, **kwargs) for _ in range(n)])

    def fill_ten(self, func: Func, arg: object) -> Any:
        make = self.make
        return self.container([make(func, arg) for _ in range(10)])


class Aiojobs(Library):
    """Spawns at once: it has nothing that keeps a task for later."""

    fill = fill_ten = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__("aiojobs", "aiojobs")
        self.scheduler = partial(import_module("aiojobs").Scheduler, wait_timeout=None)
        self.for_one = self.scheduler(limit=None)

    def one(self, func: Func) -> Any:
        async def run() -> None:
            job = await self.for_one.spawn(coroutine())
            await job.wait()

        coroutine = func if inspect.iscoroutinefunction(func) else partial(asyncio.to_thread, func)
        return run

    def sequence(self, func: Func, n: int) -> Any:
        return self.group(func, n, limit=1)

    def group(self, func: Func, n: int, limit: int | None = None) -> Any:
        async def run() -> None:
            async with self.scheduler(limit=limit) as scheduler:
                for _ in range(n):
                    await scheduler.spawn(coroutine())

        coroutine = func if inspect.iscoroutinefunction(func) else partial(asyncio.to_thread, func)
        return run


class Bare(Library):
    """What a person would write by hand with asyncio alone."""

    def __init__(self) -> None:
        super().__init__("bare", "asyncio")
        self.make = partial

    def fill(self, n: int, func: Func, *args: object, **kwargs: object) -> Any:
        return [partial(func, *args, **kwargs) for _ in range(n)]

    def fill_ten(self, func: Func, arg: object) -> Any:
        return [partial(func, arg) for _ in range(10)]

    def one(self, func: Func) -> Any:
        if inspect.iscoroutinefunction(func):
            return func
        return partial(asyncio.get_running_loop().run_in_executor, None, func)

    def sequence(self, func: Func, n: int) -> Any:
        async def run() -> None:
            for _ in range(n):
                await one()

        one = self.one(func)
        return run

    def group(self, func: Func, n: int, limit: int | None = None) -> Any:
        async def in_thread() -> None:
            await one()

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(n):
                    group.create_task(coroutine())

        one = self.one(func)
        coroutine = func if one is func else in_thread
        return run

    def gather(self, func: Func, n: int) -> Any:
        async def run() -> None:
            await asyncio.gather(*(one() for _ in range(n)))

        one = self.one(func)
        return run

    def limited(self, func: Func, n: int, limit: int) -> Any:
        async def one(semaphore: asyncio.Semaphore) -> None:
            async with semaphore:
                await asyncio.to_thread(func)

        async def run() -> None:
            semaphore = asyncio.Semaphore(limit)
            async with asyncio.TaskGroup() as group:
                for _ in range(n):
                    group.create_task(one(semaphore))

        return run


SUBJECTS: dict[str, Callable[[], Library]] = {
    "bare": Bare,
    "ours": Ours,
    "Starlette": partial(Library, "Starlette", "starlette.background"),
    "FastAPI": partial(Library, "FastAPI", "fastapi"),  # has the container only: one task is a container of one
    "Lilya": partial(Library, "Lilya", "lilya.background", "Task", "Tasks", group="as_group"),
    "Litestar": partial(Litestar, "Litestar", "litestar.background_tasks", group="run_in_task_group"),
    "aiojobs": Aiojobs,
}

# ---- the measures: what the thing that a subject has built costs


async def timed(run: Run, repeat: int = 1) -> float:
    """Seconds."""
    gc.collect()
    start = perf_counter()
    for _ in range(repeat):
        await run()
    return (perf_counter() - start) / repeat


timed_5, timed_100 = partial(timed, repeat=5), partial(timed, repeat=100)


async def timed_by_ten(run: Run) -> float:
    """Seconds; ten awaits a step, for `await func()` takes hardly longer than the step of a loop."""
    gc.collect()
    start = perf_counter()
    for _ in range(100):
        await run(), await run(), await run(), await run(), await run()
        await run(), await run(), await run(), await run(), await run()
    return (perf_counter() - start) / 1_000


async def timed_over(runs: Sequence[Run]) -> float:
    """How many times as long the one takes as the other."""
    return await timed(runs[0]) / await timed(runs[1])


async def growth(runs: Sequence[Run], big: int) -> float:
    """How many times as long a task takes in a group of `big` as in one of 1,000."""
    return await timed(runs[0]) / big / (await timed(runs[1], repeat=10) / 1_000)


async def lag(run: Run) -> float:
    """Seconds by which a task that sleeps for a millisecond again and again wakes up late, at worst."""

    async def tick() -> None:
        nonlocal worst
        while True:
            start = perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, perf_counter() - start - 0.001)

    worst = 0.0
    gc.collect()
    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    worst = 0.0
    await run()
    await asyncio.sleep(0.002)  # the tick that the end of the work has held up
    ticker.cancel()
    return worst


async def making(call: Func, func: Func, number: int) -> float:
    """Seconds for one call; what it makes is dropped at once, so that timeit stops the collector is no matter."""
    return timeit.timeit("call(func, 1)", globals={"call": call, "func": func}, number=number) / number


async def queued_bytes(fill: Func, args: Sequence[object] = (), **kwargs: object) -> float:
    """Bytes for each of 10,000 tasks in a container."""
    with traced() as memory:
        container = fill(10_000, nothing_async, *args, **kwargs)
        used, _ = memory()
    del container
    return used / 10_000


async def peak_bytes(run: Run) -> float:
    """Bytes in use while the work runs, at most, above those in use before."""
    with traced() as memory:
        await run()
        _, peak = memory()
    return peak


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    gc.collect()
    tracemalloc.start()
    try:
        yield tracemalloc.get_traced_memory
    finally:
        tracemalloc.stop()


async def importing(source: tuple[str, Path]) -> float:
    """Seconds of CPU time, the least of three: there is one thread only, and what disturbs it only adds."""
    module, folder = source
    code = f"import sys, time; sys.path.insert(0, {str(folder)!r}); t = time.process_time(); __import__({module!r}); "
    command = [sys.executable, "-I", "-c", code + "print(time.process_time() - t)"]
    return min(float(output_of(command)) for _ in range(3))


def output_of(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# ---- the lines of the table

NONE, TRIP = "\N{EN DASH}", "`run_in_executor`"


@dataclass(frozen=True)
class Line:
    text: str
    bare: str
    floor: float | None  # the ratio that ours has to reach; none: a figure only
    measure: Func
    build: tuple[Any, ...]  # an attribute of the subject or a call of its method: what is to be measured
    unit: str = "s"  # none where the measure is a ratio already
    pinned: bool = False  # to one CPU, marked †: the way to a thread and back depends on which CPU the kernel picks
    heavy: bool = False  # no round for warming up
    felt: bool = False  # in the README, too


def lines(big: int) -> list[Line]:
    worst_lag, limited = "worst loop lag, 1 ms ticker", f"{big:,} `sleep(0)` tasks with `limit=100`"
    group, unlimited, trips, over = "`TaskGroup`", "`TaskGroup`, no limit", f"{TRIP} each", f"`TaskGroup` over {TRIP}"
    default, a_partial, by_hand = "default executor", "`functools.partial`", "`Semaphore` and `to_thread`"
    ten, partials = "list of 10 partials", "list of partials"
    make, make_sync = partial(making, func=nothing_async, number=1_000), partial(making, func=nothing, number=1_000)
    fill, fill_sync = partial(making, func=nothing_async, number=100), partial(making, func=nothing, number=100)
    bytes_1, bytes_1_key = partial(queued_bytes, args=(1,)), partial(queued_bytes, args=(1,), key=1)
    grow, big_small, limit_100 = partial(growth, big=big), ("groups", nothing_async, big, 1_000), (sleep_0, big, 100)
    handed_over, per_task = "handed over as a group", f"time per task, group of {big:,} over group of 1,000, no-op"
    cpu_bound = "CPU-bound group on `ProcessPoolExecutor(2)` over the default threads"
    blocking, limit_5 = "100 sync tasks of `time.sleep(2 ms)` in a group", "1,000 sync tasks in a group with `limit=5`"
    async_1ms, imported = "10,000 async tasks of `sleep(1 ms)` in a group", "importing the module in a fresh process"
    return [
        Line(f"{worst_lag}: 1,000 trivial sync tasks in a group", trips, 0.10, lag, ("gather", nothing, 1_000)),
        Line(f"{worst_lag}: 1,000 sync tasks of 50 µs of Python in a group", trips, 0.15, lag, ("gather", busy, 1_000)),
        Line(f"{worst_lag}: 500 sync tasks of 50 µs in sequence", trips, 2, lag, ("sequence", busy, 500)),
        Line(f"{worst_lag}: 20,000 async tasks {handed_over}", group, 0.05, lag, ("group", nothing_async, 20_000)),
        Line("1,000 sync tasks in a group", over, 0.10, timed, ("group", nothing, 1_000), felt=True),
        Line(limit_5, by_hand, 0.10, timed, ("limited", nothing, 1_000, 5), felt=True),
        Line("100 sync tasks in sequence", trips, 0.07, timed_5, ("sequence", nothing, 100), pinned=True, felt=True),
        Line(blocking, default, 0.40, timed, ("gather", sleep_2ms, 100), felt=True),
        Line("one sync task", TRIP, 1.25, timed_100, ("one", nothing), pinned=True),
        Line("one async task", "`await func()`", 2.8, timed_by_ten, ("one", nothing_async)),
        Line("100 async tasks in sequence", "100 awaits", 3.5, timed_5, ("sequence", nothing_async, 100)),
        Line("1,000 async tasks in a group", group, 1.8, timed, ("group", nothing_async, 1_000)),
        Line(async_1ms, group, 1.25, timed, ("group", sleep_1ms, 10_000), felt=True),
        Line("make a task: async function, 1 argument", a_partial, 3.6, make, ("make",)),
        Line("make a task: sync function, 1 argument", a_partial, 3.6, make_sync, ("make",)),
        Line("container and 10 `add_task`, async", ten, 5, fill, ("fill_ten",)),
        Line("container and 10 `add_task`, sync", ten, 5, fill_sync, ("fill_ten",)),
        Line("bytes per queued task: no arguments", partials, None, queued_bytes, ("fill",), "B"),
        Line("bytes per queued task: 1 argument", partials, None, bytes_1, ("fill",), "B"),
        Line("bytes per queued task: 1 argument and a keyword", partials, None, bytes_1_key, ("fill",), "B"),
        Line(imported, "`import asyncio`", None, importing, ("source",), heavy=True),
        Line(f"{limited}: time", unlimited, None, timed, ("group", *limit_100), heavy=True),
        Line(f"{limited}: peak memory", unlimited, None, peak_bytes, ("group", *limit_100), "B", heavy=True),
        Line(per_task, "itself", None, grow, big_small, "", heavy=True),
        Line(cpu_bound, NONE, None, timed_over, ("computing",), ""),
    ]


# ---- the rounds

CAN_PIN = hasattr(os, "sched_setaffinity")
Round = dict[str, float]  # what each subject has cost


@contextmanager
def pinned() -> Iterator[None]:
    """Keep this process on one CPU. The system's call is about one thread, so all of the pools get one too."""
    cpus = os.sched_getaffinity(0)

    def move(to: set[int]) -> None:
        for thread in threading.enumerate():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.native_id or 0, to)

    move({max(cpus)})
    try:
        yield
    finally:
        move(cpus)


async def rounds_of(line: Line, subjects: list[Library], seconds: float) -> list[Round]:
    """At least 3 rounds (2 of memory, which hardly varies), at most 200, and for about so many seconds."""
    rounds: list[Round] = []
    until = perf_counter() + seconds
    for number in itertools.count(line.heavy):
        costs: Round = {}
        at = number % len(subjects)
        for subject in subjects[at:] + subjects[:at]:
            method, *args = line.build
            built = getattr(subject, method)
            if args:
                built = built(*args)
            if built is not None:
                with pinned() if line.pinned and CAN_PIN else nullcontext():
                    costs[subject.name] = await line.measure(built)
        if number:  # the first is for warming up: threads, caches
            rounds.append(costs)
        if len(rounds) >= (2 if line.unit == "B" else 3) and (perf_counter() > until or len(rounds) == 200):
            break
    return rounds


@dataclass(frozen=True)
class Result:
    line: Line
    rounds: list[Round]

    def costs(self, name: str) -> list[float]:
        return [costs[name] for costs in self.rounds if name in costs]

    def ratios(self, name: str) -> list[float]:
        return [costs[name] / (costs["bare"] if self.line.unit else 1) for costs in self.rounds if name in costs]

    def missed(self) -> bool:
        floor, ours = self.line.floor, self.ratios("ours")
        return floor is not None and bool(ours) and median(ours) > floor

    def row(self, names: Sequence[str]) -> list[str]:
        line, bare = self.line, self.costs("bare")
        cells = [line.text + " †" * line.pinned, line.bare, NONE if line.floor is None else f"≤ {line.floor:g}"]
        if bare:
            cells[1] += f", {quantity(median(bare), line.unit)}"
        for name in names:
            cells.append(spread(self.ratios(name)) + " **✗**" * (name == "ours" and self.missed()))
        return [*cells, str(len(self.rounds))]

    def felt_row(self, names: Sequence[str]) -> list[str]:
        medians = [quantity(median(costs), "s") if (costs := self.costs(name)) else NONE for name in names]
        return [self.line.text, *medians]

    def faster(self, names: Sequence[str]) -> list[str]:
        """The peers that are surely faster: three quarters of their rounds beat three quarters of ours."""
        ours = self.ratios("ours")
        limit = quantiles(ours, method="inclusive")[0] if ours else 0
        return [name for name in names if (r := self.ratios(name)) and quantiles(r, method="inclusive")[2] < limit]


def spread(values: list[float]) -> str:
    if not values:
        return NONE
    low, middle, high = (
        f"{value:.3g}" if value > 0.1 else f"{value:.2g}" for value in quantiles(values, method="inclusive")
    )
    return f"{middle} ({low} to {high})"


def quantity(value: float, unit: str) -> str:
    scales = {"s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")), "B": ((1e6, "MB"), (1e3, "kB"), (1, "B"))}
    scale, name = next((pair for pair in scales.get(unit, ()) if value >= pair[0]), (1, ""))
    return f"{value / scale:.3g} {name}".strip()


async def compare(chosen: list[Line], subjects: list[Library], seconds: float) -> tuple[list[Result], list[str]]:
    # Objects that stay (the modules) are no garbage, and how many of them the peers bring is nobody's merit: they are
    # taken out of the collector's sight. It stays on, as it is for everybody, and each measure begins with it empty, so
    # that none pays for what the one before has left.
    gc.collect()
    gc.freeze()
    names = [subject.name for subject in subjects[1:]]
    table = heading("line", "bare limit", "to reach", *names, "rounds")
    results = []
    for line in chosen:
        results.append(Result(line, await rounds_of(line, subjects, seconds)))
        table.append(show(results[-1].row(names)))
    return results, table


def heading(*cells: str) -> list[str]:
    return [show(cells), show(["---"] * len(cells))]


def show(cells: Sequence[str]) -> str:
    print(line := f"| {' | '.join(cells)} |", flush=True)
    return line


# ---- the foreground: how long an endpoint takes to answer while background tasks run

KINDS: list[tuple[str, Func, int, bool]] = [
    ("none", nothing, 0, False),
    ("100 sync tasks of 50 µs in order", busy, 100, False),
    ("1,000 sync tasks of 50 µs in a group", busy, 1_000, True),
    ("100 sync tasks of `time.sleep(2 ms)` in a group", sleep_2ms, 100, True),
    ("1,000 async tasks of 50 µs in order", busy_async, 1_000, False),
    ("10,000 async tasks of `sleep(1 ms)` in a group", sleep_1ms, 10_000, True),
]
APPS = {"Starlette": "starlette.applications", "FastAPI": "fastapi"}


def serve(name: str, tell_port: Callable[[int], None]) -> None:
    """/work/{kind}/{by} answers and then has background tasks; /ping tells how many answers have them still."""
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    subjects = {"ours": SUBJECTS["ours"](), "own": SUBJECTS[name]()}
    working = 0

    async def work(request: Request) -> PlainTextResponse:
        _, func, n, as_group = KINDS[int(request.path_params["kind"])]
        subject = subjects[request.path_params["by"]]
        background: Any = subject.group(func, n) if as_group else subject.sequence(func, n)
        return PlainTextResponse(background=background)

    async def ping(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(working))

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        nonlocal working
        at_work = scope["path"].startswith("/work")
        working += at_work
        await app(scope, receive, send)  # which includes the background tasks
        working -= at_work

    app = getattr(import_module(APPS[name]), name)()
    route = getattr(app, "add_api_route", app.add_route)  # FastAPI's own where it is FastAPI
    route("/work/{kind}/{by}", work)
    route("/ping", ping)
    loops_of_50us()
    # asyncio switches Nagle's algorithm off only for sockets that say that they are TCP; it would cost 40 ms an answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        tell_port(server.getsockname()[1])
        config = uvicorn.Config(counting, loop="asyncio", http="h11", lifespan="off", log_level="warning")
        uvicorn.Server(config).run([server])


async def latencies(port: int, kind: int, by: str) -> list[float]:
    """Seconds for each of the requests, one due every 5 ms, that come while the tasks of one answer run."""
    import aiohttp

    found: list[float] = []
    async with asyncio.timeout(60), aiohttp.ClientSession(f"http://127.0.0.1:{port}", raise_for_status=True) as session:
        async with session.get(f"/work/{kind}/{by}") as answer:
            await answer.read()
        due = begin = perf_counter()
        while len(found) < 2_000 and perf_counter() - begin < 20:
            start = due  # a request held up by the one before has waited since then
            if perf_counter() < due:
                await asyncio.sleep(due - perf_counter())
                start = perf_counter()
            async with session.get("/ping") as answer:
                working = await answer.read()
            found.append(perf_counter() - start)
            due += 0.005
            if working == b"0" and perf_counter() < due and len(found) >= (1 if kind else 20):
                break
    return found


Figures = tuple[float, float, float]  # p50, p99, worst: in milliseconds


async def foreground(rounds: int) -> tuple[list[str], dict[tuple[str, int], tuple[Figures, Figures]]]:
    """The table, and by app and kind the figures with ours and with the framework's own."""
    table = heading("app", "background tasks", "p50: ours", "own", "p99: ours", "own", "worst: ours", "own")
    results = {}
    context = multiprocessing.get_context("spawn")
    for name in APPS:
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(name, there.send))
        server.start()
        try:
            port = await asyncio.to_thread(here.recv)
            for kind, (text, *_) in enumerate(KINDS):
                found: dict[str, list[list[float]]] = {"ours": [], "own": []}
                for number in range(rounds + 1):
                    for by in list(found)[:: 1 if number % 2 else -1]:
                        found[by].append(await latencies(port, kind, by))
                ours, own = (figures(every[1:]) for every in found.values())  # the first is for warming up
                results[name, kind] = ours, own
                cells = itertools.chain(*zip(ours, own, strict=True))
                table.append(show([name, text, *(f"{cell:.3g}" for cell in cells)]))
        finally:
            server.terminate()
            server.join()
    return table, results


def figures(rounds: list[list[float]]) -> Figures:
    """p50 and p99 of all requests, and of the worst of each round the median."""
    requests = list(itertools.chain(*rounds))
    cuts = quantiles(requests, n=100, method="inclusive")
    return cuts[49] * 1e3, cuts[98] * 1e3, median(map(max, rounds)) * 1e3


# ---- what is written

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
ALL, README = ROOT / ".ci" / "BENCHMARK.md", ROOT / "README.md"
ABOUT = f"""\
# What background.py costs

Written by `python .ci/benchmark.py --write`. Ratio of the time (or bytes) to the bare limit, which is what one would
write by hand with asyncio alone: median over interleaved rounds in one process, quartiles in brackets. Starlette,
FastAPI: a group is the user's own `asyncio.TaskGroup`. **✗** misses what is to be reached, {NONE} is not offered (or
has no floor). † pinned to one CPU.
"""
FOREGROUND = """\
How many milliseconds an endpoint under uvicorn takes to answer while background tasks of the same app run, with ours
and with the framework's own. One request is due every 5 ms; worst: the worst of a round, median of {rounds} rounds."""
FELT = [1, 2]  # of KINDS
PEERS = ["Starlette", "FastAPI", "Lilya", "Litestar", "aiojobs"]


def this_python() -> str:
    return "{}.{}".format(*sys.version_info) + "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def newest_first(version: str) -> tuple[int, int, bool]:
    major, minor = version.removesuffix("t").split(".")
    return -int(major), -int(minor), version.endswith("t")


def peers_ahead(results: list[Result]) -> str:
    said = []
    for result in results:
        peers = [f"{name} {median(result.ratios(name)):.3g}" for name in result.faster(PEERS)]
        if peers:
            said.append(f"{result.line.text} (ours {median(result.ratios('ours')):.3g}, {', '.join(peers)})")
    return f"Peers are faster at: {'; '.join(said)}." if said else "No peer is faster in any line."


def write_all(results: list[Result], table: list[str], http: list[str], rounds: int, command: str) -> list[str]:
    """The section of this Python in BENCHMARK.md, in the place of the one that it had; which versions are there."""
    names = ["starlette", "fastapi", "lilya", "litestar", "aiojobs", "anyio", "uvicorn"]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    facts = f"{machine()}; {versions}. To get it again: `{command}`. {peers_ahead(results)}"
    _, *parts = re.split(r"^## Python (\S+)$", ALL.read_text("utf-8") if ALL.exists() else "", flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    sections[this_python()] = "\n".join([facts, "", *table, "", FOREGROUND.format(rounds=rounds), "", *http])
    ordered = sorted(sections, key=newest_first)
    text = "".join(f"\n## Python {version}\n\n{sections[version].strip()}\n" for version in ordered)
    ALL.write_text(ABOUT + text, encoding="utf-8")
    return ordered


def machine() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs"


def write_felt(results: list[Result], http: dict[tuple[str, int], tuple[Figures, Figures]], command: str) -> None:
    """The few lines that a user would feel, in the README."""
    table = [f"| {' | '.join(cells)} |" for cells in felt_rows(results, http)]
    facts = f"Median times on {machine()}; every line, with its spread: [.ci/BENCHMARK.md](.ci/BENCHMARK.md)."
    last = f"{peers_ahead_in_short(results)} To get it all again: `{command}`."
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    text = "\n".join([before + BEGIN, facts, "", *table, "", last, END + after])
    README.write_text(text, encoding="utf-8")


def felt_rows(results: list[Result], http: dict[tuple[str, int], tuple[Figures, Figures]]) -> Iterator[list[str]]:
    yield ["", "ours", "asyncio by hand", *PEERS]
    yield ["---"] * (3 + len(PEERS))
    for kind in FELT:
        figures_of = [f"{http[app, kind][1][1]:.3g} ms" for app in APPS]
        ours = max(http[app, kind][0][1] for app in APPS)
        text = f"an endpoint's slowest 1 % under uvicorn, beside {KINDS[kind][0]}"
        yield [text, f"{ours:.3g} ms", NONE, *figures_of, *[NONE] * (len(PEERS) - len(APPS))]
    for result in results:
        if result.line.felt:
            yield result.felt_row(["ours", "bare", *PEERS])


def peers_ahead_in_short(results: list[Result]) -> str:
    said = [result.line.text for result in results if result.faster(PEERS)]
    return f"A peer is faster at: {'; '.join(said)}." if said else "No peer is faster in any line."


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of it; 10,000 tasks where it says 100,000")
    parser.add_argument("--only", metavar="PATTERN", help="lines that match; `http`: the second table")
    parser.add_argument("--subjects", type=lambda text: text.split(","), help="some of " + ",".join(SUBJECTS))
    parser.add_argument("--module", type=Path, metavar="PATH", help="another background.py, beside this one: `first`")
    parser.add_argument("--seconds", type=float, help="for each line")
    parser.add_argument(
        "--write", action="store_true", help="into .ci/BENCHMARK.md, and into the README if no newer is"
    )
    options = parser.parse_args()
    if unknown := set(options.subjects or ()) - set(SUBJECTS):
        parser.error(f"no such subject: {', '.join(unknown)}")
    if options.write and (options.only or options.subjects or options.module):
        parser.error("--write takes all lines and the usual subjects")
    if options.write and BEGIN not in README.read_text("utf-8"):
        parser.error(f"the README has no {BEGIN}")
    if not CAN_PIN:
        print("This system cannot pin a process to one CPU: the lines with † are not.\n")

    wanted = re.compile(options.only or "")
    subjects = [SUBJECTS[name]() for name in SUBJECTS if name == "bare" or name in (options.subjects or SUBJECTS)]
    if options.module:
        subjects.insert(2, another(options.module))
    chosen = [line for line in lines(10_000 if options.quick else 100_000) if wanted.search(line.text)]
    loops_of_50us()
    seconds = options.seconds or (0.5 if options.quick else 8)
    results, table = await compare(chosen, subjects, seconds) if chosen else ([], [])
    if not options.subjects and (not options.only or options.only == "http"):
        rounds = 5 if options.quick else 40
        print("\n" + FOREGROUND.format(rounds=rounds) + "\n")
        http_table, http = await foreground(rounds)
        if options.write:
            command = "python .ci/benchmark.py --write" + " --quick" * options.quick
            newest, *_ = write_all(results, table, http_table, rounds, command)
            if newest == this_python():
                write_felt(results, http, command)
    missed = [result.line.text for result in results if result.missed()]
    print(*(f"\nOurs misses the floor of: {text}" for text in missed), sep="", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
