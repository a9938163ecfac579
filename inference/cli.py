"""`weightroom-sidecar`: the command line.

Exit: 0 fine · 2 usage or settings · 75 try again (the port is taken). Errors go to stderr: what, then what to do.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NoReturn

import uvicorn
from starlette.applications import Starlette

from inference.app import build
from inference.config import PREFIX, Config, WrongSettings
from inference.visits import Visits

OK, USAGE, AGAIN = 0, 2, 75
LAST_SECONDS = 5
"""Seconds that uvicorn gives connections after the drain: error events are on their way."""

FLAGS = {
    "registry": "REGISTRY",
    "port": "SIDECAR_PORT",
    "host": "SIDECAR_HOST",
    "device": "DEVICE",
    "checkouts": "CHECKOUTS",
    "shared_store": "SHARED_STORE",
    "api_keys": "API_KEYS",
    "dtype": "DTYPE",
    "quantize": "QUANTIZE",
}
"""Flag → the setting that it wins over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    asked = parser().parse_args(arguments)
    try:
        config = Config.from_environ(_merged(os.environ, asked))
    except WrongSettings as error:
        print(f"weightroom-sidecar: wrong settings:\n{error}", file=sys.stderr)
        return USAGE
    # Weights come from the registry alone: Transformers must never look elsewhere, whatever a config names.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _log_to_stderr()
    return serve(config)


def serve(config: Config) -> int:
    """Listen, say where, and answer until SIGTERM or SIGINT; then finish what runs, and end the process."""
    try:
        door = _listen(config.sidecar_host, config.sidecar_port)
    except OSError as error:
        where = f"{config.sidecar_host}:{config.sidecar_port}"
        print(f"weightroom-sidecar: cannot listen on {where}: {error.strerror}; choose --port", file=sys.stderr)
        return AGAIN
    visits = Visits()
    with door:
        try:
            app = build(config, visits)
        except ValueError as error:
            print(f"weightroom-sidecar: {error}", file=sys.stderr)
            return USAGE
        server = Server(app, visits, config.drain_seconds, _url(config.sidecar_host, door))
        server.run(sockets=[door])
    return _leave(OK)


def _leave(code: int) -> NoReturn:
    """End the process now; all that matters is closed and said.

    Taking down an interpreter that holds torch takes seconds, and aborts when a thread is inside a library just then:
    a load that nobody waits for any more.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Server(uvicorn.Server):
    """Uvicorn, that says when it accepts and finishes running requests before it stops accepting.

    The first signal begins the drain: new work is refused with 503, probes are still answered. A second one ends it.
    """

    def __init__(self, app: Starlette, visits: Visits, drain_seconds: float, url: str):
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=LAST_SECONDS,
            )
        )
        self._visits = visits
        self._drain_seconds = drain_seconds
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so in one line."""
        await super().startup(sockets=sockets)
        if self.started:
            print(f"weightroom-sidecar listens on {self._url}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything. Each engine that closes collects garbage; what outlives none of them is left alone."""
        gc.freeze()
        await super().shutdown(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain, or end it when asked again."""
        if self._visits.draining:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        self._visits.drain(self._drain_seconds)
        self.should_exit = True


def parser() -> argparse.ArgumentParser:
    """Make the parser of `weightroom-sidecar`."""
    made = argparse.ArgumentParser(
        prog="weightroom-sidecar", description="Answer OpenAI calls with models by commit, from a Weightroom registry."
    )
    commands = made.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="run the sidecar", description="Flags win over WEIGHTROOM_* settings.")
    command.add_argument("--registry", metavar="URL", help="the registry that models come from")
    command.add_argument(
        "--model", action="append", metavar="NAME[@REV]", help="load at start and keep; may be given more than once"
    )
    command.add_argument("--host", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", help="port to listen on (8001); 0 takes a free one")
    command.add_argument("--device", help="auto, cpu or cuda (auto)")
    command.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (auto)")
    command.add_argument("--quantize", help="none, int8 or int4 (none)")
    command.add_argument("--checkouts", metavar="DIR", help="folder of checked-out revisions (./checkouts)")
    command.add_argument("--shared-store", metavar="DIR", help="objects folder of a registry on the same disk")
    command.add_argument("--api-keys", metavar="KEYS", help="registry, none, or a file of SHA-256 lines (registry)")
    return made


def _merged(environ: Mapping[str, str], asked: argparse.Namespace) -> dict[str, str]:
    """Lay the flags over the environment."""
    merged = dict(environ)
    for flag, setting in FLAGS.items():
        value = getattr(asked, flag)
        if value is not None:
            merged[PREFIX + setting] = value
    if asked.model:
        merged[PREFIX + "MODELS"] = ",".join(asked.model)
    return merged


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything loads: a taken port is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
    except OSError:
        door.close()
        raise
    return door


def _url(host: str, door: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{door.getsockname()[1]}"


def _log_to_stderr() -> None:
    """Request lines are JSON as they are; everything else names its level and room."""
    plain = logging.StreamHandler(sys.stderr)
    plain.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(plain)
    logging.getLogger().setLevel(logging.WARNING)
    bare = logging.StreamHandler(sys.stderr)
    bare.setFormatter(logging.Formatter("%(message)s"))
    requests = logging.getLogger("inference.requests")
    requests.addHandler(bare)
    requests.setLevel(logging.INFO)
    requests.propagate = False


if __name__ == "__main__":
    sys.exit(main())
