"""Interrupts itself as a terminal would: python -m apps.pressing FUNCTION

Calls a function of `program.py` in the working directory. With each line that comes in by stdin, one more Ctrl-C is
pressed: the handler of SIGINT runs in the main thread, on Windows, too. It gives up when stdin ends.
"""

import importlib
import os
import signal
import sys
import threading


def press() -> None:
    while os.read(0, 1):  # not by sys.stdin, whose lock the interpreter would wait for at its end
        signal.raise_signal(signal.SIGINT)
    os._exit(99)  # the test has given up


if __name__ == "__main__":
    threading.Thread(target=press, daemon=True).start()
    program = importlib.import_module("program")
    getattr(program, sys.argv[1])()
