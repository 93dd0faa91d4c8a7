"""A server in a process of its own, and the apps of the README."""

import os
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

T = TypeVar("T")


def snippet(heading: str) -> str:
    """The Python block that stands under a heading of the README, at most after some lines of text."""
    block = re.search(
        rf"^#+ {re.escape(heading)}\n(?:(?!#)[^\n]*\n)*?```python\n(.*?)^```$",
        README.read_text(),
        re.DOTALL | re.MULTILINE,
    )
    assert block, f"no example under {heading!r}"
    return block[1]


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
