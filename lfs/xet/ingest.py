"""Send a stored object to a CAS by its chunks, as any client would: hf_xet in a child process.

The child is `python` with our import path, in a session of its own, at a low priority, with a folder of its own for all
that hf_xet remembers, and with none of our variables: no proxy, no credentials. Over its stdin comes one line of JSON,
then, unless the object is a file on a disk that it may open, the object's bytes; over its stdout goes one line back.

    asked    {"cas": "http://127.0.0.1:…/xet/…", "token": "xet_…", "expires": …, "home": "…", "size": …, "path": "…"}
    answer   {"sha256": "…", "size": …}  or  {"error": "…"}

It dies with its parent: a watcher thread sees the other end of stdin close, also in the middle of the work, and takes
the folder away. What is left by then is what any client leaves that went away: xorbs that no shard names.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lfs.errors import LfsError
from lfs.store import PIECE, ObjectStore

SLOWEST = 1 << 20
"""Bytes in a second below which a child is held to be stuck."""
LEAST = 600.0
"""Seconds that even the smallest object may take."""
BEAT = 0.5
"""Seconds between two looks at a child."""

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from lfs.xet import ingest; ingest.serve()"
# Nobody waits for this: one xorb at a time leaves the cores to those who do.
_QUIET = {
    "client.ac_initial_upload_concurrency": 1,
    "client.ac_max_upload_concurrency": 2,
    "data.max_concurrent_file_ingestion": 1,
    "telemetry.enabled": False,
}


class NotSent(Exception):
    """An object did not go by its chunks; the message says why. Trying again may help."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The address of a CAS, and a token to write there until `expires`, in Unix seconds."""

    cas_url: str
    token: str
    expires: int


def longest(size: int) -> float:
    """Say for how many seconds an object may be under way."""
    return LEAST + size / SLOWEST


class Sender:
    """Sends objects of a store, one at a time; children have their folders in `folder`."""

    def __init__(self, *, store: ObjectStore, folder: Path) -> None:
        self._store, self._folder = store, folder

    def send(self, key: str, oid: str, to: Destination, going_on: Callable[[], bool]) -> bool:
        """Send one object; True once the CAS has filed it, False if `going_on`, asked twice a second, said no.

        Nothing of the child is left afterwards, neither a process nor a folder.
        Raises: NotSent, Missing, Unavailable.
        """
        stat = self._store.stat(key)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="ingest-", ignore_cleanup_errors=True) as home:
            asked = {"cas": to.cas_url, "token": to.token, "expires": to.expires, "home": home, "size": stat.size}
            with _Child(Path(home)) as child:
                child.ask(asked | {"path": str(stat.path or "")})
                if stat.path is None:
                    child.feed(self._store, key)
                if not child.wait(going_on, longest(stat.size)):
                    return False
                answer = child.answer()
        if answer != {"sha256": oid, "size": stat.size}:
            # The CAS has refused to file it before, as it was told what comes.
            raise NotSent(f"the stored bytes of {oid} are others; run `weightroom fsck --read-data`")
        return True


class _Child:
    """One child process, killed and reaped at the end of its block."""

    def __init__(self, home: Path) -> None:
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        self._words = home / "stderr"
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                env={"HF_HOME": str(home), "HF_XET_CACHE": str(home / "xet"), "HOME": str(home), "TMPDIR": str(home)},
                # Ctrl-C in the server's terminal is the server's to handle.
                start_new_session=True,
            )
        self._feeder: threading.Thread | None = None
        self._failure: LfsError | None = None

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._feeder is not None:
            self._feeder.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # What was still buffered for a dead child has nowhere to go.
                    pass

    def ask(self, request: dict[str, object]) -> None:
        """Say what to do. The pipe holds a line, so this does not wait for the child."""
        self._write(json.dumps(request).encode() + b"\n")

    def feed(self, store: ObjectStore, key: str) -> None:
        """Begin to pass the bytes of an object on."""
        self._feeder = threading.Thread(target=self._pass_on, args=(store, key), name="ingest-feed", daemon=True)
        self._feeder.start()

    def wait(self, going_on: Callable[[], bool], seconds: float) -> bool:
        """Wait for the end of the child; False if it should not go on. Raises: NotSent, what the store raised."""
        end = time.monotonic() + seconds
        while True:
            try:
                self._process.wait(BEAT)
                return True
            except subprocess.TimeoutExpired:
                if self._failure is not None:
                    raise self._failure from None
                if not going_on():
                    return False
                if time.monotonic() > end:
                    raise NotSent(f"it took longer than {seconds:.0f} s and was stopped") from None

    def answer(self) -> object:
        """Return what the child said at its end. Raises: NotSent."""
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        try:
            answer: object = json.loads(said)
        except ValueError as error:
            words = self._words.read_text(errors="replace").strip()[-500:]
            raise NotSent(f"the child process ended with {self._process.returncode}: {words or 'no word'}") from error
        if isinstance(answer, dict) and "error" in answer:
            raise NotSent(str(answer["error"]))
        return answer

    def _pass_on(self, store: ObjectStore, key: str) -> None:
        try:
            with store.open(key) as reader:
                for piece in reader:
                    if not self._write(piece):
                        return
        except LfsError as error:
            self._failure = error

    def _write(self, data: bytes) -> bool:
        """Write to the child; False if it is gone, which is found out by waiting for it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            return False
        return True


def serve() -> None:
    """Send one object and say how it went: the child's whole life."""
    source, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # A library that prints must not speak in the middle of an answer.
    os.dup2(2, 1)
    request = json.loads(source.readline())
    threading.Thread(target=_die_with_parent, args=(source.fileno(), request["home"]), daemon=True).start()
    os.nice(10)
    try:
        said = _sent(request, source)
    except Exception as error:
        # hf_xet has no errors of its own that could be named here.
        said = {"error": f"{type(error).__name__}: {error}"}
    json.dump(said, answers)
    answers.flush()
    # Its threads have nothing to say any more.
    os._exit(0)


def _sent(request: dict[str, object], source: IO[bytes]) -> dict[str, object]:
    import hf_xet

    path, size = str(request["path"]), int(str(request["size"]))
    session = hf_xet.XetSession(config=hf_xet.XetConfig().with_config(_QUIET))
    connection = {"endpoint": request["cas"], "token": request["token"], "token_expiry_unix_secs": request["expires"]}
    with session.new_upload_commit(**connection) as commit:
        if path:
            handle = commit.start_upload_file(path, sha256=hf_xet.COMPUTE_SHA256)
        else:
            handle = commit.start_upload_stream(sha256=hf_xet.COMPUTE_SHA256)
            _copy(source, size, handle.write)
            result = handle.finish()
    info = (handle.result() if path else result).xet_info
    return {"sha256": info.sha256, "size": info.file_size}


def _copy(source: IO[bytes], size: int, write: Callable[[bytes], object]) -> None:
    while size:
        piece = source.read(min(size, PIECE))
        if not piece:
            raise EOFError("the store ended early")
        write(piece)
        size -= len(piece)


def _die_with_parent(fd: int, home: str) -> None:
    # With no event asked for, poll reports only that the other end is gone.
    waiting = select.poll()
    waiting.register(fd, 0)
    waiting.poll()
    # The threads of hf_xet write there until the process ends, so a copy of it that has no such thread clears up.
    ours = os.getpid()
    if not os.fork():
        while os.getppid() == ours:
            time.sleep(0.01)
        shutil.rmtree(home, ignore_errors=True)
    os._exit(1)
