"""Runs an ASGI app behind uvicorn on a free loopback port, in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from tests.inference.echo import wait_until


@contextmanager
def listening(app: ASGIApp) -> Iterator[str]:
    """Serve until the block ends; gives the base URL."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5, ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="uvicorn")
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(15)
