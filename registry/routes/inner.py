"""A door into the house for one object: the CAS as `lfs/xet/ingest` needs it, on a port of the loopback.

The server does not know its own address: it may listen on one interface, behind a proxy, under a prefix, with port 0,
or under a supervisor that accepts for several workers. So the child that sends an object gets a listener of its own,
which lives as long as the sending and speaks of chunks, xorbs and shards alone: no limits of the front, no place among
the uploads of clients, no address of a bucket.

Its tokens are signed by a key that was made for it and is forgotten with it. So leave to write in nobody's name is
never asked of the public door, which refuses it, and a token of the public door opens nothing here. What may be filed
is the one object, in the one repo: a file that hashes to anything else is refused before a row is written.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from lfs import errors
from lfs.heavy import Heavy
from lfs.store import ObjectStore
from lfs.transfer import Transfer
from lfs.xet.filing import Filing
from lfs.xet.index import Filing as Filed
from lfs.xet.index import Leave
from lfs.xet.ingest import Destination, Sender, longest
from lfs.xet.proving import PROOF_SECONDS
from lfs.xet.routes import XetRoutes
from lfs.xet.tables import Tables
from lfs.xet.taking import Taking
from lfs.xet.tokens import XetTokens
from registry.db import Database
from registry.errors import Busy, RepoAbsent
from registry.quota import Quotas
from registry.xet_circles import Sharing
from registry.xet_ingests import Due
from registry.xorbs import XetRows

PROOF_MEMORY = 512 << 20
_SPOKEN = ("/v1/chunks/", "/v1/xorbs/", "/shards")
_CLOSING = 10.0


class InnerDoor:
    """Sends objects through a door that opens for each; `told` hears of a file that waits for its proof.

    Bodies wait in `folder` for their proof, and the child has what it remembers there.
    """

    def __init__(
        self,
        *,
        database: Database,
        quotas: Quotas,
        sharing: Sharing,
        store: ObjectStore,
        tables: Tables,
        folder: Path,
        told: Callable[[], None],
    ) -> None:
        self._database, self._quotas, self._sharing = database, quotas, sharing
        self._store, self._tables = store, tables
        self._folder, self._told = folder, told
        self._sender = Sender(store=store, folder=folder)

    def send(self, due: Due, going_on: Callable[[], bool]) -> bool:
        """Send one object; True once it is filed, False if `going_on`, asked twice a second, said no.

        Nothing is left of the work afterwards, neither a process nor a port nor a folder.
        Raises: NotSent, RepoAbsent, Busy, Missing, Unavailable.
        """
        with self.opened(due) as destination:
            return self._sender.send(due.key, due.oid, destination, going_on)

    @contextlib.contextmanager
    def opened(self, due: Due) -> Iterator[Destination]:
        """Listen while the block runs, and say where and with which token. Raises: RepoAbsent, Busy."""
        index = _OneObject(self._database, self._quotas, due, sharing=self._sharing)
        domain = index.domains.domain_for(due.repo_id)
        tokens = XetTokens([secrets.token_bytes(32)], time.time)
        # Longer than the sender waits: nobody renews it.
        expires = tokens.until(int(longest(due.size)) + 60)
        token = tokens.issue(Leave(due.repo_id, 0, domain.id, "write", expires))
        # A child of its own: the checks of pushes and the xorbs of clients do not wait for this.
        heavy = Heavy(workers=1, memory_bytes=PROOF_MEMORY, deadline=PROOF_SECONDS)
        with contextlib.closing(heavy), _listening(self._app(index, tokens, heavy)) as origin:
            yield Destination(f"{origin}/xet/{domain.id}/g{domain.generation}", token, expires)

    def _app(self, index: XetRows, tokens: XetTokens, heavy: Heavy) -> ASGIApp:
        door = XetRoutes(
            index=index,
            store=self._store,
            taking=Taking(index=index, store=self._store, heavy=heavy, folder=self._folder),
            filing=Filing(
                index=index, store=self._store, tables=self._tables, heavy=heavy, stale=index.renew, told=self._told
            ),
            tables=self._tables,
            tokens=tokens,
            transfer=Transfer(store=self._store),
            origin=lambda request: str(request.base_url).rstrip("/"),
            folder=self._folder,
        )
        # The rest is 404, by which a client learns to send its xorbs here and not to a bucket that may be out of reach.
        return Starlette(routes=[route for route in door.routes() if any(part in route.path for part in _SPOKEN)])


class _OneObject(XetRows):
    """The rows of Xet, for leave to file one object in its repo and nothing else."""

    def __init__(self, database: Database, quotas: Quotas, due: Due, *, sharing: Sharing) -> None:
        super().__init__(database, quotas, sharing=sharing)
        self._due = due

    def enter(self, leave: Leave, generation: int) -> None:
        """Look whether the repo is still there, and in the same domain."""
        try:
            domain = self.domains.domain_for(leave.repo_id)
        except RepoAbsent as error:
            raise errors.RepoAbsent(error.message) from error
        except Busy as error:
            raise errors.Busy(error.message, retry_after=error.retry_after) from error
        if domain.id != leave.domain:
            raise errors.BadToken("The repo was moved, or opened or closed; begin anew.")

    def file(self, leave: Leave, filings: Sequence[Filed], shard: str, length: int = 0) -> bool:
        """File the object, if that is what came."""
        for filing in filings:
            if (filing.sha256, filing.file.size) != (self._due.oid, self._due.size):
                raise errors.BadXet(
                    f"The stored bytes of LFS object {self._due.oid} hash to {filing.sha256 or 'nothing'}; "
                    "run `weightroom fsck --read-data`."
                )
        return super().file(leave, filings, shard, length)


@contextlib.contextmanager
def _listening(app: ASGIApp) -> Iterator[str]:
    """Serve an app on a free port of the loopback while the block runs; return its origin."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        # It bears being cut off, as all that it does may be.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="ingest-door", daemon=True)
        thread.start()
        try:
            # Whoever connects before it accepts waits in the backlog.
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            _end(server, thread)


def _end(server: uvicorn.Server, thread: threading.Thread) -> None:
    """Close the port, and wait for what is being answered.

    To open and close costs 13 ms of a core. uvicorn takes two pauses of 100 ms besides, where 16 MiB take 400 to 700
    altogether (measured 2026-11 on 2 cores): as nothing is being answered any more, nobody waits for them.
    """
    server.should_exit = True
    closed = threading.Event()

    def close() -> None:
        for each in server.servers:
            each.close()
        closed.set()

    if server.started and not server.server_state.tasks:
        server.servers[0].get_loop().call_soon_threadsafe(close)
        closed.wait(_CLOSING)
    else:
        thread.join(_CLOSING)
