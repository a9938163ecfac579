"""Runs a server: binds, says where it is and what to paste, drains on a signal, keeps a sidecar beside itself."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from lfs.sendfile import FileProtocol

DRAIN_SECONDS = 30
"""Seconds that requests in flight get to finish after the first signal."""
_BACKLOG = 2048
_MOST_FILES = 65_536


class PortTaken(Exception):
    """Nothing can be listened on; the message says why."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a new server tells whoever started it; without `xet` its clients have to be told, too."""

    version: str
    data: str
    url: str
    chat_url: str | None
    token: str | None
    xet: bool = True

    def show(self) -> None:
        """Print it."""
        print("\n".join(self.lines()), flush=True)

    def lines(self) -> Iterator[str]:
        """Say where the server is, and lines to paste into another terminal."""
        yield f"Weightroom {self.version}"
        yield f"  data      {self.data}"
        yield f"  registry  {self.url}"
        if self.chat_url is not None:
            yield f"  chat      {self.chat_url}  (ready some seconds later)"
        yield ""
        if self.token is not None:
            yield "The first user is `admin`, an admin of this server. The token is shown only now:"
            yield f"  {self.token}"
            yield ""
            yield from self._paste(self.token)
        yield "Stop with Ctrl-C."

    def _paste(self, token: str) -> Iterator[str]:
        scheme, _, authority = self.url.partition("://")
        yield "To paste into another terminal:"
        yield f"  export HF_ENDPOINT={self.url} HF_TOKEN={token}" + ("" if self.xet else " HF_HUB_DISABLE_XET=1")
        yield "  hf repos create admin/first"
        yield f"  git clone {scheme}://admin:$HF_TOKEN@{authority}/admin/first && cd first"
        yield "  echo '# First' > README.md && git add . && git commit -m 'Say hello' && git push"
        yield "  hf upload admin/first model.safetensors && hf download admin/first"
        yield "  python -c \"from huggingface_hub import snapshot_download; print(snapshot_download('admin/first'))\""
        if self.chat_url is not None:
            yield f"  export OPENAI_BASE_URL={self.chat_url} OPENAI_API_KEY=$HF_TOKEN"
            yield '  python -c "from openai import OpenAI; print(OpenAI().models.list())"'
        yield ""


class Server(uvicorn.Server):
    """Uvicorn that calls back once it accepts and turns readiness off with the first signal.

    A signal ends it with success: work in flight gets `DRAIN_SECONDS`, a second Ctrl-C ends it at once.
    """

    def __init__(self, config: uvicorn.Config, draining: threading.Event, accepting: Callable[[], None]) -> None:
        super().__init__(config)
        self._draining = draining
        self._accepting = accepting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets=sockets)
        if self.started:
            self._accepting()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain, or end it when asked again."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self._draining.set()
        self.should_exit = True


def run_one(app: ASGIApp, door: socket.socket, draining: threading.Event, accepting: Callable[[], None]) -> None:
    """Serve in this process until a signal; `accepting` is called once connections are taken."""
    Server(_config(app), draining, accepting).run(sockets=[door])


def run_many(factory: str, door: socket.socket, workers: int) -> None:
    """Serve in worker processes until a signal; one that dies is replaced. `factory` is `module:function`."""
    Multiprocess(_config(factory, workers=workers), sockets=[door]).run()


def _config(app: ASGIApp | str, workers: int = 1) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        http=FileProtocol,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        # Forwarded headers are read by the front, which knows whom to believe.
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        # Longer than the 60 s for which proxies keep idle connections, so that none is closed under a request.
        timeout_keep_alive=75,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Raises: PortTaken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as closing:
            door = closing.enter_context(socket.socket(family, kind))
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(address)
            door.listen(_BACKLOG)
            door.set_inheritable(True)
            closing.pop_all()
    except OSError as error:
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error
    return door


def allow_files() -> None:
    """Let this process and its children open as many files as they may: connections and mapped packs take one each.

    Many systems start programs with a soft limit of 1,024, which is for programs that still use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def url_of(door: socket.socket) -> str:
    """Say how programs on this machine reach a listening socket."""
    host, port = door.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Sidecar:
    """An inference sidecar as a child process. It is not restarted: if it ends by itself, that is said aloud."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        # A session of its own: Ctrl-C in the terminal is the parent's to handle, which then stops the child.
        self._process = subprocess.Popen(command, env=dict(environ), start_new_session=True)
        self._stopping = False
        threading.Thread(target=self._watch, name="sidecar", daemon=True).start()

    def stop(self) -> None:
        """Ask it to finish, then insist."""
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(timeout=DRAIN_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self) -> None:
        status = self._process.wait()
        if not self._stopping:
            print(
                f"weightroom: the sidecar ended with status {status}; the registry goes on without chat. "
                "Its own lines above say why; restart with `weightroom serve`, or leave it out with --no-sidecar.",
                file=sys.stderr,
                flush=True,
            )


@contextlib.contextmanager
def sidecar_beside(command: list[str] | None, environ: Mapping[str, str], accepting: threading.Event) -> Iterator[None]:
    """Run a sidecar while the block runs, from the moment that the registry accepts; None runs none."""
    if command is None:
        yield
        return
    started: list[Sidecar] = []
    ended = threading.Event()

    def start() -> None:
        accepting.wait()
        if not ended.is_set():
            started.append(Sidecar(command, environ))

    starter = threading.Thread(target=start, name="sidecar-start")
    starter.start()
    try:
        yield
    finally:
        ended.set()
        accepting.set()
        starter.join()
        for sidecar in started:
            sidecar.stop()
