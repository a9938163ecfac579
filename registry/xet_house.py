"""The door of Xet and what stands behind it in one process: where xorbs are proven, shards filed, tokens signed."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.routing import Route

from lfs.heavy import Heavy
from lfs.transfer import Transfer
from lfs.xet.filing import Filing
from lfs.xet.proving import PROOF_SECONDS
from lfs.xet.routes import XetRoutes
from lfs.xet.taking import Taking
from lfs.xet.tokens import XetTokens
from registry.config import Config
from registry.desk import Shelves
from registry.routes.cas import Cas, Greet
from registry.routes.context import origin

PROOF_MEMORY = 512 << 20
"""Bytes that the proof of a xorb may take: it holds a chunk, a table of a few hundred KB, and no more."""


class XetHouse:
    """Takes chunks in for one process; `told` hears of files that wait for their proof, `greet` of good tokens.

    Files that came by Xet are read through `Shelves.store`, also where there is no such house.
    """

    def __init__(
        self, config: Config, shelves: Shelves, transfer: Transfer, *, told: Callable[[], None], greet: Greet
    ) -> None:
        # Children of its own: the check of a push may take minutes, and a client waits for each of its xorbs.
        self._heavy = Heavy(workers=config.heavy, memory_bytes=PROOF_MEMORY, deadline=PROOF_SECONDS)
        # Swept with all else there when a process takes the slot over.
        folder = shelves.slot.quarantine / "xet"
        folder.mkdir(mode=0o700)
        tokens = XetTokens(config.secrets(), time.time)
        advertised = shelves.xet.files.advertised
        self.cas = Cas(tokens=tokens, domains=shelves.xet.domains, advertised=advertised, greet=greet)
        self._door = XetRoutes(
            index=shelves.xet,
            store=shelves.store,
            taking=Taking(index=shelves.xet, store=shelves.store, heavy=self._heavy, folder=folder),
            filing=Filing(
                index=shelves.xet,
                store=shelves.store,
                tables=shelves.tables,
                heavy=self._heavy,
                stale=shelves.xet.renew,
                told=told,
                max_file=config.max_file,
            ),
            tables=shelves.tables,
            tokens=tokens,
            transfer=transfer,
            origin=origin,
            folder=folder,
            greet=greet,
        )

    def routes(self) -> list[Route]:
        """List the routes of the door."""
        return self._door.routes()

    def close(self) -> None:
        """Stop the children as they finish; may be repeated."""
        self._heavy.close()
