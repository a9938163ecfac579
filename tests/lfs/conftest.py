"""The LFS door on a socket, with a host in memory and a shelf on a disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from lfs.local import LocalStore
from lfs.sendfile import FileProtocol
from tests.lfs.alone import application
from tests.lfs.memory_host import MemoryHost

MEDIA_TYPE = "application/vnd.git-lfs+json"


@contextmanager
def serving(app: ASGIApp, *, http: Any = FileProtocol, loop: Any = "auto") -> Iterator[str]:
    """Serve an app from a thread on a free port of the loopback, by a protocol and an event loop of uvicorn."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=5, http=http, loop=loop
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def host() -> MemoryHost:
    return MemoryHost()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shelf"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder, min_free=0, fsync=False)


@pytest.fixture
def url(host: MemoryHost, store: LocalStore) -> Iterator[str]:
    with serving(application(host, store)) as address:
        yield address


@pytest.fixture
def ann(url: str) -> Iterator[httpx.Client]:
    """Ann, who may write, speaking Git LFS."""
    headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
    with httpx.Client(base_url=url, auth=("ann", "ann"), headers=headers, verify=False, trust_env=False) as client:
        yield client
