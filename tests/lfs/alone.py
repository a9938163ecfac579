"""The LFS door alone on the loopback: a memory host and a disk shelf behind uvicorn.

python -m tests.lfs.alone PORT FOLDER [--fsync] [--blocks]

`--fsync` makes writes durable, `--blocks` does without zero copy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from lfs.choices import Policy
from lfs.local import LocalStore
from lfs.routes import LfsRoutes
from lfs.sendfile import FileProtocol
from lfs.store import ObjectStore
from lfs.transfer import Transfer
from tests.lfs.memory_host import MemoryHost


def application(
    host: MemoryHost,
    store: ObjectStore,
    *,
    upload_slots: int = 64,
    policy: Policy | None = None,
    told: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return the app that serves a host and a shelf."""
    policy = policy or Policy()
    transfer = Transfer(store=store, upload_slots=upload_slots, redirect=policy.redirect)
    return Starlette(routes=LfsRoutes(host=host, store=store, transfer=transfer, policy=policy, told=told).routes())


def main(port: int, folder: Path, *flags: str) -> None:
    """Serve until stopped."""
    app = application(MemoryHost(), LocalStore(folder, min_free=0, fsync="--fsync" in flags))
    http = "httptools" if "--blocks" in flags else FileProtocol
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=75, http=http)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
