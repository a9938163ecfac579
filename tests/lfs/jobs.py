"""Functions that a test gives to a child process."""

from __future__ import annotations

import os
import sys
import time


class Told(Exception):
    """An exception that travels."""


class Untold(Exception):
    """An exception that pickle cannot bring back."""

    def __init__(self, *, why: str) -> None:
        super().__init__(why)


def double(number: int) -> int:
    return 2 * number


def fail(kind: str) -> None:
    raise Told(kind) if kind == "told" else Untold(why=kind)


def pid() -> int:
    return os.getpid()


def modules() -> list[str]:
    return sorted(sys.modules)


def chatter() -> str:
    print("a stray line on stdout", flush=True)
    os.write(1, b"and raw bytes")
    return "value"


def fill(size: int) -> int:
    return len(bytearray(size))


def burn() -> None:
    while True:
        pass


def sleep_beside(path: str) -> None:
    """Write this process's id, then sleep long."""
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
