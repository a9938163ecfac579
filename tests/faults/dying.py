"""Run `weightroom` so that it dies by SIGKILL just before its n-th durable step, counted over all threads.

Steps count from SIGUSR1 on. A durable step is a call of os.fsync, os.rename, os.replace or os.link, a COMMIT, or the
moment after one. Each is logged, so that a run with a huge N tells how many an operation takes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from registry import cli


class Reaper:
    """Counts durable steps and kills the process before the chosen one."""

    def __init__(self, at: int, log: str) -> None:
        self._at, self._log = at, log
        self._count = 0
        self._armed = False
        self._lock = threading.Lock()

    def arm(self, *_: object) -> None:
        """Start to count."""
        self._armed = True

    def step(self, name: str) -> None:
        """Note a step; die if it is the one."""
        if not self._armed:
            return
        with self._lock:
            self._count += 1
            with open(self._log, "a") as log:
                log.write(f"{self._count} {name}\n")
            if self._count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, name: str) -> None:
        """Count the calls of one function of `os`."""
        real: Callable[..., Any] = getattr(os, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.step(name)
            return real(*arguments, **named)

        setattr(os, name, counted)

    def watch_commits(self) -> None:
        """Count the moment before and the moment after each COMMIT."""
        real = DefaultDialect.do_commit

        def counted(dialect: DefaultDialect, connection: Any) -> None:
            self.step("commit")
            real(dialect, connection)
            self.step("committed")

        DefaultDialect.do_commit = counted  # type: ignore[method-assign,assignment]


def main(arguments: Sequence[str]) -> int:
    """Watch, then run the command line: `arguments` are the step, the log, and those of `weightroom`."""
    reaper = Reaper(int(arguments[0]), arguments[1])
    signal.signal(signal.SIGUSR1, reaper.arm)
    for name in ("fsync", "rename", "replace", "link"):
        reaper.watch(name)
    reaper.watch_commits()
    return cli.main(arguments[2:])
