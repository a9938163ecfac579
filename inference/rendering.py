"""Chat templates rendered in a child process, under a deadline and a memory limit.

Two warm children: one for templates that have rendered within the budget before (by commit sha), one for all others.
A hostile template therefore costs its own callers two seconds, and nobody else anything. Starting a child takes about
a tenth of a second, an answer from a warm one a fifth of a millisecond.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress

from inference.errors import InvalidRequest, Unavailable

DEADLINE = 2.0
"""Seconds for one rendering."""
MAX_TEMPLATE = 64 * 1024
"""Characters of a template."""
PROVEN = 1024
"""Shas that are remembered as rendering within the budget."""


class TooSlow(Exception):
    """The child did not answer in time, or died of its limits; it has been killed."""


class Child:
    """One warm child process; its callers take turns."""

    def __init__(self, *, deadline: float = DEADLINE):
        self._deadline = deadline
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, body: bytes) -> dict[str, str]:
        """Send one line and wait for one line.

        Raises: TooSlow, after which the next caller gets a fresh child; Unavailable when others hold it for too long.
        """
        if not self._turn.acquire(timeout=5 * self._deadline):
            raise Unavailable("Chat templates are busy; try again.", code="rendering_busy", retry_after=2)
        try:
            process = self._alive()
            answer = self._exchange(process, body, time.monotonic() + self._deadline)
            if answer is None:
                self._kill()
                raise TooSlow
            return answer
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the child. Idempotent."""
        with self._turn:
            self._kill()

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._kill()
            # No environment but the path to Python's own files: the child has no secret to leak.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "inference.sandbox"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in a terminal is this process's to handle: it finishes its requests, and their templates.
                start_new_session=True,
                env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ":".join(part for part in sys.path if part)},
            )
            # The first answer includes the start of the interpreter, which is not the template's doing.
            self._exchange(self._process, b'{"template": "", "variables": {}}', time.monotonic() + 30)
        return self._process

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], body: bytes, until: float) -> dict[str, str] | None:
        """Write a line, read a line; None when the child died or time is up. The child reads all before it works."""
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(body + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return None
        line = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                piece = os.read(process.stdout.fileno(), 2**18)
                if not piece:
                    return None
                line += piece
        answer: dict[str, str] = json.loads(line)
        return answer

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Renderer:
    """Renders templates by what is known of the commit they come from."""

    def __init__(self, *, deadline: float = DEADLINE):
        self._deadline = deadline
        self._proven = Child(deadline=deadline)
        self._unproven = Child(deadline=deadline)
        self._shas: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def render(self, sha: str, template: str, variables: Mapping[str, object]) -> str:
        """Render a template with `messages`, `tools` and what else a caller gave.

        Raises: InvalidRequest: too long, too slow, too large, wrong, or the template refuses these messages.
        """
        if len(template) > MAX_TEMPLATE:
            raise InvalidRequest(
                f"The model's chat template is longer than {MAX_TEMPLATE} characters.", param="messages"
            )
        body = json.dumps({"template": template, "variables": dict(variables)}).encode()
        try:
            answer = (self._proven if self._is_proven(sha) else self._unproven).ask(body)
        except TooSlow:
            self._forget(sha)
            raise InvalidRequest(
                f"The model's chat template took longer than {self._deadline:g} s or more than its memory.",
                param="messages",
            ) from None
        if "text" not in answer:
            raise InvalidRequest(answer["error"][:1].upper() + answer["error"][1:], param="messages")
        self._remember(sha)
        return answer["text"]

    def close(self) -> None:
        """End both children. Idempotent."""
        self._proven.close()
        self._unproven.close()

    def _is_proven(self, sha: str) -> bool:
        with self._lock:
            return sha in self._shas

    def _remember(self, sha: str) -> None:
        with self._lock:
            self._shas[sha] = None
            self._shas.move_to_end(sha)
            while len(self._shas) > PROVEN:
                self._shas.popitem(last=False)

    def _forget(self, sha: str) -> None:
        with self._lock:
            self._shas.pop(sha, None)
