"""The Xet door alone on the loopback: an index in memory and a disk shelf behind uvicorn.

python -m tests.lfs.xet.alone PORT FOLDER

It gives tokens for repo 1 to whoever asks, under the addresses of the Hub.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.sendfile import FileProtocol
from lfs.store import ObjectStore
from lfs.transfer import Transfer
from lfs.xet.filing import Filing
from lfs.xet.index import Leave
from lfs.xet.places import Places
from lfs.xet.routes import XetRoutes
from lfs.xet.tables import Tables
from lfs.xet.taking import Taking
from lfs.xet.tokens import XetTokens
from tests.lfs.conftest import serving
from tests.lfs.xet.memory_index import DOMAIN, MemoryIndex

SECRET = b"a secret of thirty-two bytes, no less"
TOKEN = "/api/models/ann/tiny/xet-{scope}-token/{revision}"


@dataclass(frozen=True, slots=True)
class Heard:
    """A request: its verb, its path below the domain, the bytes that it announced, and how it was answered."""

    verb: str
    path: str
    size: int
    status: int


@dataclass
class Alone:
    """A door, all that stands behind it, what it heard, and whom it greeted.

    `hidden` routes are not there: what begins so below the domain is 404. `slots` bounds uploads, `places` shards.
    `before` is called with each request.
    """

    store: ObjectStore
    heavy: Heavy
    folder: Path
    index: MemoryIndex = field(default_factory=MemoryIndex)
    clock: Callable[[], float] = time.time
    hidden: Collection[str] = ()
    filing_kind: type[Filing] = Filing
    slots: int = 64
    places: Places | None = None
    before: Callable[[Scope], None] = lambda scope: None
    heard: list[Heard] = field(default_factory=list)
    greeted: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> None:
        """Build what stands behind the door, again after a change of these values."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tokens = XetTokens([SECRET], self.clock)
        self.tables = Tables(self.store)
        self.taking = Taking(index=self.index, store=self.store, heavy=self.heavy, folder=self.folder, clock=self.clock)
        self.filing = self.filing_kind(
            index=self.index,
            store=self.store,
            tables=self.tables,
            heavy=self.heavy,
            clock=self.clock,
            stale=self._renew,
        )
        self.transfer = Transfer(store=self.store, upload_slots=self.slots)
        self.door = self.app()

    def token(
        self, scope: str = "write", repo: int = 1, *, actor: int = 1, domain: str = DOMAIN, seconds: int = 900
    ) -> str:
        """Issue a token."""
        until = self.tokens.until(seconds)
        return self.tokens.issue(Leave(repo, actor, domain, "write" if scope == "write" else "read", until))

    def app(self) -> Starlette:
        """Return the app that serves it."""
        door = XetRoutes(
            index=self.index,
            store=self.store,
            taking=self.taking,
            filing=self.filing,
            tables=self.tables,
            tokens=self.tokens,
            transfer=self.transfer,
            origin=_origin,
            folder=self.folder,
            places=self.places,
            greet=lambda token, actor_id: self.greeted.append((token, actor_id)),
        )
        shown = [route for route in door.routes() if not any(f"/{each}" in route.path for each in self.hidden)]
        return Starlette(routes=[Route(TOKEN, self._token), *shown])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and note what comes."""
        if scope["type"] != "http":
            await self.door(scope, receive, send)
            return

        async def noting(message: Mapping[str, object]) -> None:
            if message["type"] == "http.response.start":
                path = re.sub(r"/xet/[0-9a-f]{32}/g\d+", "", scope["path"])
                size = dict(scope["headers"]).get(b"content-length", b"0")
                self.heard.append(Heard(scope["method"], path, int(size), int(str(message["status"]))))
            await send(dict(message))

        self.before(scope)
        await self.door(scope, receive, noting)

    @contextmanager
    def speaking(self, token: str = "") -> Iterator[httpx.Client]:
        """Serve it, and return a client that may write in repo 1, or has the token that is given."""
        headers = {"authorization": f"Bearer {token or self.token()}"}
        with serving(self) as url, httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as client:
            yield client

    async def _token(self, request: Request) -> Response:
        at = f"{_origin(request)}/xet/{DOMAIN}/g{self.index.generations.get(DOMAIN, 0)}"
        token = self.token(request.path_params["scope"])
        expires = self.tokens.until()
        headers = {"X-Xet-Cas-Url": at, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
        return JSONResponse({"casUrl": at, "accessToken": token, "exp": expires}, headers=headers)

    def _renew(self, domain: str) -> None:
        self.index.generations[domain] = self.index.generations.get(domain, 0) + 1


def _origin(request: Request) -> str:
    return f"http://{request.headers['host']}"


def main(port: int, folder: Path) -> None:
    """Serve until stopped."""
    heavy = Heavy(workers=2, memory_bytes=512 << 20, deadline=60)
    alone = Alone(LocalStore(folder / "shelf", min_free=0), heavy, folder / "coming")
    uvicorn.run(alone, host="127.0.0.1", port=port, log_level="warning", http=FileProtocol)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
