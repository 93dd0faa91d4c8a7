"""A server in a process of its own, and the code blocks of the README."""

import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PATIENCE = 30.0  # seconds after which a wait fails
CLIENT: dict[str, Any] = {
    "timeout": PATIENCE,
    "trust_env": False,
    "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # never used, but the default reads all certificates
}

APPS = {  # the app that is made of the snippets under a heading of the README
    "FastAPI": "in_fastapi",
    "Starlette": "in_starlette",
    "Lilya": "in_lilya",
    "Esmerald / Ravyn": "in_ravyn",
    "Litestar": "in_litestar",
    "aiohttp": "in_aiohttp",
    "Quart": "in_quart",
    "Django": "in_django",
}

T = TypeVar("T")


@dataclass
class Block:
    heading: str
    language: str
    code: str


def blocks_and_headings() -> tuple[list[Block], list[str]]:
    """What the README consists of, apart from its text."""
    blocks: list[Block] = []
    headings: list[str] = []
    within: Block | None = None
    for line in README.read_text(encoding="utf-8").splitlines(keepends=True):
        if within and line.rstrip() == "```":
            within = None
        elif within:
            within.code += line
        elif line.startswith("```"):
            blocks.append(within := Block(headings[-1], line[3:].strip(), ""))
        elif line.startswith("#"):
            headings.append(line.lstrip("#").strip())
    assert within is None, "the last block has no end"
    return blocks, headings


def snippets(heading: str) -> list[str]:
    """The Python blocks that stand directly under a heading of the README."""
    return [block.code for block in blocks_and_headings()[0] if (block.heading, block.language) == (heading, "python")]


def is_part_of_its_app(heading: str, code: str) -> bool:
    """Whether a snippet of the README stands in its app word for word, which has more blank lines."""
    app = (ROOT / ".ci" / "apps" / f"{APPS[heading]}.py").read_text(encoding="utf-8")
    return f"\n{code}" in re.sub(r"\n{3,}", "\n\n", app)


def until(observe: Callable[[], T], what: str) -> T:
    """Ask until the answer is true, and fail if it does not become so."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := observe()):
        assert time.monotonic() < give_up, f"not within {PATIENCE} s: {what}"
        time.sleep(0.01)
    return answer


class Server:
    """A running server: where it listens, a client for it, what it has printed, and its process."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log
        self.url = until(self.announced_url, f"the server's address in {log}")
        # uvicorn closes the connection of a request that fails after its response: none is used for a second request.
        self.client = httpx.Client(base_url=self.url, limits=httpx.Limits(max_keepalive_connections=0), **CLIENT)

    def announced_url(self) -> str | None:
        printed = self.printed()
        assert self.process.poll() is None, printed
        announced = re.search(r"unning on (http://127\.0\.0\.1:\d+)", printed)
        return announced and announced[1]

    def printed(self) -> str:
        return self.log.read_text()

    def prints(self, text: str, times: int = 1) -> bool:
        """Whether it comes to print a text exactly so many times; more is an error, less is waited for."""
        until(lambda: self.printed().count(text) >= times, f"{times} times {text!r}")
        return self.printed().count(text) == times


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[Server]:
    """Run a command in a folder as a server, for as long as the block lasts."""
    log = folder / "printed"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / '.ci'}", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as printed:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT)
    try:
        server = Server(process, log)
        with server.client:
            yield server
    finally:
        process.kill()
        process.wait()
        print(log.read_text())  # shown by pytest where a test fails
