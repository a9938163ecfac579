"""CPU work in a child process: deadline, memory cap.

A child is `python` with our import path and one loop. Frames go over its stdin and stdout:

    request   u64 length · pickle (deadline in seconds, function, arguments)
    begun     one byte, before the function runs: a child that died without it has done nothing
    answer    u64 length · u8 kind (0 value, 1 exception, 2 out of memory, 3 unspeakable) · pickle

Not `multiprocessing`: its spawn imports the parent's main module again, which under a server or a test runner is
the server or the test runner. A child imports this room and the function's module and nothing else. It dies with its
parent: a watcher thread sees stdin's other end close, also in the middle of a job.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, ParamSpec, TypeVar, cast

from lfs.errors import Busy, HeavyCrashed, HeavyError, HeavyOutOfMemory, HeavyTimeout

P = ParamSpec("P")
T = TypeVar("T")

# A child that served this many jobs is replaced, so that leaks and fragments of hostile inputs do not add up.
JOBS_PER_CHILD = 200

_VALUE, _EXCEPTION, _OUT_OF_MEMORY, _UNSPEAKABLE = range(4)
_LENGTH, _BEGUN = struct.Struct(">Q"), b"+"
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lfs import heavy; heavy.serve(int(sys.argv[2]))"


class Heavy:
    """A small pool of child processes for functions that may eat a core, a gigabyte, or never return.

    `workers` children at most; `memory_bytes` caps what each allocates, mapped files apart; `deadline` in wall seconds.
    Thread-safe. Children start when first needed and stay warm.
    """

    def __init__(self, *, workers: int, memory_bytes: int, deadline: float) -> None:
        self._memory_bytes, self._deadline = memory_bytes, deadline
        self._slots = threading.BoundedSemaphore(workers)
        self._idle: list[_Child] = []
        self._mutex = threading.Lock()
        self._closed = False

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a top-level function in a child and return its value, within the pool's own deadline; see `within`."""
        return self.within(self._deadline, function, *args, **kwargs)

    def within(self, deadline: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a top-level function in a child within `deadline` seconds; blocks until it is done.

        Arguments, value and exceptions travel by pickle. What the function raises is raised here.
        Raises: Busy (no child came free in time), HeavyTimeout, HeavyOutOfMemory, HeavyCrashed.
        """
        request = pickle.dumps((deadline, function, args, kwargs), protocol=5)
        if not self._slots.acquire(timeout=deadline):
            raise Busy("Every worker process is taken; try again in a few seconds.")
        try:
            child, kind, body = self._asked(request, deadline)
            self._give(child, kind)
        finally:
            self._slots.release()
        return cast(T, _opened(kind, body))

    def _asked(self, request: bytes, deadline: float) -> tuple[_Child, int, bytes]:
        while True:
            child = self._take()
            idle_before = child.served
            try:
                return child, *child.ask(request, deadline)
            except _NeverBegan:
                child.stop()
                # It died while it waited, through no fault of this request: the next one takes it.
                if not idle_before:
                    raise
            except BaseException:
                child.stop()
                raise

    def close(self) -> None:
        """Stop every idle child, and each busy one as it finishes; may be repeated."""
        with self._mutex:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.stop()

    def _take(self) -> _Child:
        with self._mutex:
            if self._closed:
                raise HeavyCrashed("The worker pool is closed; the server is stopping.")
            while self._idle:
                child = self._idle.pop()
                if child.alive():
                    return child
                child.stop()
        return _Child(self._memory_bytes)

    def _give(self, child: _Child, kind: int) -> None:
        with self._mutex:
            if child.fresh() and kind != _OUT_OF_MEMORY and not self._closed:
                self._idle.append(child)
                return
        child.stop()


class _NeverBegan(HeavyCrashed):
    """The child was gone before it had the whole request."""


class _Child:
    def __init__(self, memory_bytes: int) -> None:
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, path, str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A session of its own: Ctrl-C in the server's terminal is the server's to handle.
            start_new_session=True,
        )
        self._jobs = 0
        self._mutex = threading.Lock()
        self._running = self._expired = False

    def ask(self, request: bytes, deadline: float) -> tuple[int, bytes]:
        """Send one request and wait for the answer. Raises: HeavyTimeout, HeavyOutOfMemory, HeavyCrashed."""
        self._jobs, self._running = self._jobs + 1, True
        watch = threading.Timer(deadline, self._expire)
        watch.daemon = True
        watch.start()
        try:
            return self._exchange(request)
        except (OSError, EOFError) as error:
            raise self._obituary(deadline) from error
        finally:
            watch.cancel()
            with self._mutex:
                self._running = False

    def alive(self) -> bool:
        """Say whether the process still runs."""
        return self._process.poll() is None

    @property
    def served(self) -> bool:
        """True if it has answered a request before."""
        return self._jobs > 0

    def fresh(self) -> bool:
        """Say whether the child may serve again."""
        return self._jobs < JOBS_PER_CHILD and not self._expired

    def stop(self) -> None:
        """Kill and reap the process; may be repeated."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # What was still buffered for a dead child has nowhere to go.
                    pass

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            _write_frame(stdin, request)
            _read_exactly(stdout, len(_BEGUN))
        except (OSError, EOFError) as error:
            if self._expired:
                raise
            raise _NeverBegan("The worker process died before it could begin; try again.") from error
        answer = _read_frame(stdout)
        return answer[0], answer[1:]

    def _expire(self) -> None:
        with self._mutex:
            if self._running:
                self._expired = True
                self._process.kill()

    def _obituary(self, deadline: float) -> HeavyError:
        self._process.kill()
        code = self._process.wait()
        if self._expired or code == -signal.SIGXCPU:
            return HeavyTimeout(f"The work took longer than its {deadline:g} seconds and was stopped.")
        return HeavyCrashed(f"The worker process died (exit {code}); the input may be hostile.")


def _opened(kind: int, body: bytes) -> object:
    if kind == _OUT_OF_MEMORY:
        raise HeavyOutOfMemory("The work passed its memory cap and was stopped.")
    if kind == _UNSPEAKABLE:
        raise HeavyCrashed(f"The worker's answer could not be carried back: {body.decode(errors='replace')}")
    value = pickle.loads(body)
    if kind == _EXCEPTION:
        raise value
    return value


def serve(memory_bytes: int) -> None:
    """Answer requests from stdin until it closes: the child's whole life."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # A function that prints must not speak in the middle of a frame.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    threading.Thread(target=_die_with_parent, args=(requests.fileno(),), daemon=True).start()
    _limit(resource.RLIMIT_CORE, 0)
    # Data, not address space: mapped packs count in the latter, and a repo of any size may be mapped.
    _limit(resource.RLIMIT_DATA, memory_bytes)
    while True:
        try:
            request = _read_frame(requests)
        except EOFError:
            return
        except MemoryError:
            # The rest of the frame is still in the pipe: answer, then start over as a new process.
            answers.write(_BEGUN)
            _write_frame(answers, bytes([_OUT_OF_MEMORY]))
            return
        answers.write(_BEGUN)
        answers.flush()
        _write_frame(answers, _answer(request))


def _answer(request: bytes) -> bytes:
    try:
        deadline, function, args, kwargs = pickle.loads(request)
        _limit_cpu(deadline)
        return bytes([_VALUE]) + pickle.dumps(function(*args, **kwargs), protocol=5)
    except MemoryError:
        return bytes([_OUT_OF_MEMORY])
    except BaseException as error:
        return _confession(error)


def _confession(error: BaseException) -> bytes:
    """Pickle an exception, if it comes back as what it was; else its text."""
    try:
        body = pickle.dumps(error, protocol=5)
        if type(pickle.loads(body)) is type(error):
            return bytes([_EXCEPTION]) + body
    except Exception:
        # Pickling runs the error's own code, which may raise anything; its text is told instead.
        pass
    return bytes([_UNSPEAKABLE]) + f"{type(error).__name__}: {error}".encode()


def _limit_cpu(deadline: float) -> None:
    """Let the kernel end a job that burns more than twice its wall deadline over its threads."""
    _limit(resource.RLIMIT_CPU, int(time.process_time() + 2 * deadline) + 1)


def _limit(kind: int, value: int) -> None:
    """Set a soft limit, within the hard one that the server itself may run under."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _die_with_parent(fd: int) -> None:
    # With no event asked for, poll reports only that the other end is gone.
    waiting = select.poll()
    waiting.register(fd, 0)
    waiting.poll()
    os._exit(0)


def _write_frame(pipe: IO[bytes], body: bytes) -> None:
    pipe.write(_LENGTH.pack(len(body)))
    pipe.write(body)
    pipe.flush()


def _read_frame(pipe: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size))
    return _read_exactly(pipe, length)


def _read_exactly(pipe: IO[bytes], size: int) -> bytes:
    body = pipe.read(size)
    if len(body) < size:
        raise EOFError
    return body
