"""The LFS door alone on the loopback: a memory host and a disk shelf behind uvicorn.

python -m tests.lfs.alone PORT FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from lfs.local import LocalStore
from lfs.routes import LfsRoutes
from lfs.store import ObjectStore
from lfs.transfer import Transfer
from tests.lfs.memory_host import MemoryHost


def application(
    host: MemoryHost, store: ObjectStore, *, upload_slots: int = 64, max_file: int | None = None
) -> Starlette:
    """Return the app that serves a host and a shelf."""
    transfer = Transfer(store=store, upload_slots=upload_slots)
    return Starlette(routes=LfsRoutes(host=host, store=store, transfer=transfer, max_file=max_file).routes())


def main(port: int, folder: Path) -> None:
    """Serve until stopped."""
    app = application(MemoryHost(), LocalStore(folder, min_free=0, fsync=False))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=75)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
