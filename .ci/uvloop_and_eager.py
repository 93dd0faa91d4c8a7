"""Runs the whole of test_background.py on uvloop, or with asyncio's eager task factory.

    python .ci/uvloop_and_eager.py uvloop
    python .ci/uvloop_and_eager.py eager

Fails if a test fails or is skipped, if none ran, and if one runs on any other event loop.
"""

import asyncio
import faulthandler
import functools
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS_UNTIL_IT_COUNTS_AS_HANGING = 600


def new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def is_uvloop(loop: asyncio.AbstractEventLoop) -> bool:
    import uvloop

    return isinstance(loop, uvloop.Loop)


def new_eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def is_eager(loop: asyncio.AbstractEventLoop) -> bool:
    return loop.get_task_factory() is asyncio.eager_task_factory


KINDS = {"uvloop": (new_uvloop, is_uvloop), "eager": (new_eager_loop, is_eager)}


def make_every_loop_by(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Through the policy, which `asyncio.run`, `asyncio.Runner` and unittest ask where they are given no factory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # policies are deprecated from 3.14 on

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return factory()

        asyncio.set_event_loop_policy(Policy())


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from cases(item)
        else:
            yield item


def check_the_loop_before_each(case: unittest.IsolatedAsyncioTestCase, check: Callable[[], None]) -> None:
    set_up = case.asyncSetUp

    @functools.wraps(set_up)
    async def checked_set_up() -> None:
        check()
        await set_up()

    case.asyncSetUp = checked_set_up  # type: ignore[method-assign]


def main(kind: str) -> int:
    factory, is_right = KINDS[kind]
    checked = 0

    def check() -> None:
        nonlocal checked
        loop = asyncio.get_running_loop()
        if not is_right(loop):
            raise AssertionError(f"{loop!r} is not the kind asked for, {kind}")
        checked += 1

    async def run_of_asyncio() -> None:
        check()

    faulthandler.dump_traceback_later(SECONDS_UNTIL_IT_COUNTS_AS_HANGING, exit=True)
    make_every_loop_by(factory)
    asyncio.run(run_of_asyncio())
    with asyncio.Runner() as runner:
        runner.run(run_of_asyncio())

    sys.path.insert(0, str(ROOT))
    suite = unittest.defaultTestLoader.loadTestsFromName("test_background")
    expected = checked
    for case in cases(suite):
        if isinstance(case, unittest.IsolatedAsyncioTestCase):
            check_the_loop_before_each(case, check)
            expected += 1
    result = unittest.TextTestRunner(buffer=True).run(suite)
    problems = [
        *(["not every test has passed"] if not result.wasSuccessful() else []),
        *(["no test ran"] if not result.testsRun else []),
        *(f"skipped: {case}: {reason}" for case, reason in result.skipped),
        *([f"{checked} checks of the loop, not {expected}"] if checked != expected else []),
    ]
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"{kind} on Python {python}: {result.testsRun} tests,", "; ".join(problems) or "all passed", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    if sys.argv[1:] not in [[kind] for kind in KINDS]:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(KINDS)}")
    if sys.argv[1] == "eager" and sys.version_info < (3, 12):
        sys.exit("asyncio.eager_task_factory is new in Python 3.12")
    sys.exit(main(sys.argv[1]))
