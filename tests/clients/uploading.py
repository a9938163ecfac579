"""The ways by which an object may be sent, each taken by hand, step by step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.clients.hostile import LFS, Site

PART = 5 << 20
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


@dataclass(frozen=True)
class Way:
    """A way: what the client says of itself, and the bytes of an object that goes this way."""

    name: str
    agent: str
    transfers: tuple[str, ...]
    size: int = 1000


PROXY = Way("proxy", "somebody/1", ("basic",))
TUS_WAY = Way("tus", "git-lfs/3.8.1", ("basic", "tus"))
PARTS = Way("multipart", "hf/1", ("basic", "multipart"), 8 << 20)
DIRECT = Way("direct", "git-lfs/3.8.1", ("basic",))
STAGING = Way("staging", "git-lfs/3.8.1", ("basic",))


@dataclass(frozen=True)
class Sending:
    """An upload that a batch opened."""

    site: Site
    way: Way
    oid: str
    actions: dict[str, Any]

    @property
    def href(self) -> str:
        """Where the bytes go, or the completion of their parts."""
        return str(self.actions["upload"]["href"])

    def parts(self) -> list[str]:
        """Where each part goes."""
        header = self.actions["upload"]["header"]
        return [header[name] for name in sorted(header) if name.isdigit()]

    def whole(self, data: bytes, **headers: str) -> httpx.Response:
        """PUT in one piece, with the headers that the action asks for and the given ones in their place."""
        wanted = {**self.actions["upload"].get("header", {}), **headers}
        return self.site.ask("PUT", self.href, None, content=data, headers=wanted)

    def put_parts(self, data: bytes) -> list[dict[str, Any]]:
        """PUT every part; return the list for the completion."""
        sent = []
        for number, url in enumerate(self.parts(), 1):
            answer = self.site.ask("PUT", url, None, content=data[(number - 1) * PART : number * PART])
            assert answer.status_code == 200, answer.text
            sent.append({"partNumber": number, "etag": answer.headers["etag"]})
        return sent

    def complete(self, parts: object, oid: str = "") -> httpx.Response:
        """POST the completion."""
        return self.site.ask("POST", self.href, None, json={"oid": oid or self.oid, "parts": parts})

    def patch(self, data: bytes, offset: int = 0, **headers: str) -> httpx.Response:
        """PATCH from an offset on."""
        wanted = TUS | {"Upload-Offset": str(offset)} | headers
        return self.site.ask("PATCH", self.href, None, content=data, headers=wanted)

    def offset(self) -> httpx.Response:
        """Ask how far it is."""
        return self.site.ask("HEAD", self.href, None, headers={"Tus-Resumable": "1.0.0"})

    def verify(self, size: int | None = None) -> httpx.Response:
        """POST to the verify action, with the size that was announced or another."""
        body = json.dumps({"oid": self.oid, "size": self.way.size if size is None else size})
        headers = {"Accept": LFS, "Content-Type": LFS}
        return self.site.ask("POST", str(self.actions["verify"]["href"]), None, content=body, headers=headers)

    def send(self, data: bytes) -> httpx.Response:
        """Send bytes the way a well-meaning client does; return the answer that settles it."""
        if self.way is PARTS:
            return self.complete(self.put_parts(data))
        if self.way is TUS_WAY:
            return self.patch(data)
        answer = self.whole(data)
        return self.verify() if answer.status_code == 200 and "verify" in self.actions else answer


def begin(site: Site, way: Way, repo: str, oid: str, who: str = "owner") -> Sending:
    """Ask for an upload; it must be offered."""
    return Sending(site, way, oid, asked(site, way, repo, oid, who, "upload")["actions"])


def asked(site: Site, way: Way, repo: str, oid: str, who: str, operation: str) -> dict[str, Any]:
    """Ask for one object; return what is said of it."""
    body = {"operation": operation, "transfers": way.transfers, "objects": [{"oid": oid, "size": way.size}]}
    headers = {"Accept": LFS, "Content-Type": LFS, "User-Agent": way.agent}
    answer = site.ask("POST", f"/{repo}.git/info/lfs/objects/batch", who, content=json.dumps(body), headers=headers)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["objects"]
    return dict(found)


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that happens beside the requests."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
