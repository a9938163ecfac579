"""Processes of ours that are forked from one that has imported everything: a start costs milliseconds, not seconds.

They are children of a fork server, with an environment, a log and a fate of their own, and die by signals like any.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["registry.cli", "tests.faults.dying"])


class Forked:
    """A running process, with the words of `subprocess.Popen`; gone at the latest when this one ends."""

    def __init__(
        self, main: Callable[[Sequence[str]], int], arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        work = (main, list(arguments), dict(environment), str(log))
        self._process = _CONTEXT.Process(target=_run, args=work, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, minus the signal if one ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises: TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return self._process.exitcode

    def send_signal(self, how: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, how)


def _run(
    main: Callable[[Sequence[str]], int], arguments: Sequence[str], environment: Mapping[str, str], log: str
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    sys.exit(main(arguments))
