"""A client of the Xet door that is written by hand: it sends what it likes, with whatever token it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from lfs.xet import hashes
from lfs.xet.shards import parse
from tests.clients.hostile import Site
from tests.lfs.xet.sending import shard_of
from tests.lfs.xet.xorbs import Made


@dataclass(frozen=True)
class Chunker:
    """Holds the address of a CAS, and a token that the Hub gave for a repo."""

    site: Site
    cas: str
    token: str

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask the CAS for something, with the token."""
        headers = {"authorization": f"Bearer {self.token}"} | (more.pop("headers", None) or {})
        return self.site.client.request(method, self.cas + path, headers=headers, **more)

    def statuses(self, xorb: Made, file: str) -> dict[str, int]:
        """Ask everything that can be asked of a xorb and of the file that it makes."""
        grant = {"length": len(xorb.body), "checksum": {"algo": "crc64nvme", "value": "1"}}
        name, chunk = hashes.text(xorb.hash), hashes.text(hashes.chunk(xorb.parts[0]))
        return {
            "chunk": self.ask("GET", f"/v1/chunks/default/{chunk}").status_code,
            "grant": self.ask("POST", f"/v1/xorb-grants/default/{name}", json=grant).status_code,
            "xorb": self.ask("HEAD", f"/v1/xorbs/default/{name}").status_code,
            "file": self.ask("HEAD", f"/v1/files/{file}").status_code,
            "v1": self.ask("GET", f"/v1/reconstructions/{file}").status_code,
            "v2": self.ask("GET", f"/v2/reconstructions/{file}").status_code,
        }

    def send(self, xorb: Made) -> httpx.Response:
        """Send a xorb through the server."""
        return self.ask("POST", f"/v1/xorbs/default/{hashes.text(xorb.hash)}", content=xorb.body)

    def file(self, xorb: Made, *, sha256: str = "", proof: bytes | None = None) -> httpx.Response:
        """File the file of all chunks of a xorb; the client's word for its SHA-256."""
        return self.ask("POST", "/v1/shards", content=_shard(xorb, sha256, proof))

    def store(self, xorb: Made, *, sha256: str = "") -> str:
        """Send a xorb and file its file; return the text of the file's hash."""
        for sent in (self.send(xorb), self.file(xorb, sha256=sha256)):
            assert sent.status_code == 200, sent.text
        return file_of(xorb)


def file_of(xorb: Made) -> str:
    """Return the text of the hash of the file of all chunks of a xorb."""
    return hashes.text(parse(_shard(xorb, "", None)).files[0].hash)


def chunker(site: Site, repo: str, scope: str = "write", who: str | None = "owner") -> Chunker:
    """Get a token from the Hub."""
    answer = site.ask("GET", f"/api/models/{repo}/xet-{scope}-token/main", who)
    assert answer.status_code == 200, answer.text
    told: Mapping[str, str] = answer.json()
    return Chunker(site, told["casUrl"], told["accessToken"])


def _shard(xorb: Made, sha256: str, proof: bytes | None) -> bytes:
    return shard_of(xorb, (0, len(xorb.parts)), sha256=sha256, proof=proof)
