"""What a hostile client needs, and what every refusal owes whoever it refuses."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import httpx

from registry.accounts import Accounts
from registry.config import Config
from registry.db import Database, now
from registry.errors import Exists
from tests.services.house import House

Door = Literal["git", "lfs", "hub"]

LFS = "application/vnd.git-lfs+json"
UPLOAD, RECEIVE = "git-upload-pack", "git-receive-pack"
ZERO = "0" * 40
MIB = 1 << 20
_NO_CACHE = {
    "expires": "Fri, 01 Jan 1980 00:00:00 GMT",
    "pragma": "no-cache",
    "cache-control": "no-cache, max-age=0, must-revalidate",
}
_numbers = itertools.count()


@dataclass
class Site:
    """A house with people in it: the owner `ann`, the stranger `mal`, and tokens that are none any more."""

    house: House
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.house.url, timeout=60, trust_env=False)
        database = Database(Config.from_environ(self.house.environment).database_url)
        try:
            self._furnish(Accounts(database))
        finally:
            database.dispose()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def _furnish(self, accounts: Accounts) -> None:
        # Houses are shared: another room may have moved in before.
        with contextlib.suppress(Exists):
            accounts.create_user("mal")
        self.tokens = {
            "owner": accounts.create_token("ann"),
            "reader": accounts.create_token("ann", "read"),
            "stranger": accounts.create_token("mal"),
            "expired": accounts.create_token("ann", expires_at=now() - timedelta(seconds=1)),
            "revoked": accounts.create_token("ann"),
        }
        accounts.revoke_token("ann", accounts.tokens("ann")[-1].id)
        self.tokens["unknown"] = "hf_" + "A" * 40

    def repo(self, **options: object) -> str:
        """Make a repo of `ann`; return its full name."""
        body = {"name": f"hostile-{next(_numbers)}"} | options
        made = self.ask("POST", "/api/repos/create", json=body)
        assert made.status_code == 200, made.text
        return str(made.json()["name"])

    def ask(self, method: str, path: str, who: str | None = "owner", **more: object) -> httpx.Response:
        """Send one request with somebody's token; a header that is given wins."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        headers |= more.pop("headers", None) or {}  # type: ignore[arg-type]
        return self.client.request(method, path, headers=headers, **more)  # type: ignore[arg-type]

    def fetch(self, repo: str, body: bytes, who: str | None = "owner", **headers: str) -> httpx.Response:
        """POST to upload-pack; protocol 2 unless `Git-Protocol` says otherwise."""
        return self._rpc(repo, UPLOAD, body, who, {"Git-Protocol": "version=2"} | _dashed(headers))

    def push(self, repo: str, body: bytes, who: str | None = "owner", **headers: str) -> httpx.Response:
        """POST to receive-pack."""
        return self._rpc(repo, RECEIVE, body, who, _dashed(headers))

    def _rpc(self, repo: str, service: str, body: bytes, who: str | None, more: dict[str, str]) -> httpx.Response:
        headers = {"Content-Type": f"application/x-{service}-request"} | more
        return self.ask("POST", f"/{repo}.git/{service}", who, content=body, headers=headers)

    def batch(self, repo: str, who: str | None = "owner", **fields: object) -> httpx.Response:
        """Ask the batch route of Git LFS."""
        headers = {"Accept": LFS, "Content-Type": LFS}
        return self.ask("POST", f"/{repo}.git/info/lfs/objects/batch", who, content=json.dumps(fields), headers=headers)

    def refs(self, repo: str) -> bytes:
        """Read what a pusher is told of a repo's refs."""
        answer = self.ask("GET", f"/{repo}/info/refs?service={RECEIVE}")
        assert answer.status_code == 200
        return answer.content


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def refused(answer: httpx.Response, door: Door, status: int, code: str | None = None) -> str:
    """Check that an answer is a refusal as its door writes them; return what it says."""
    assert answer.status_code == status, f"{answer.status_code}, not {status}: {answer.text[:300]}"
    assert answer.headers["x-request-id"]
    kind, text = answer.headers["content-type"], answer.text
    if door == "git":
        assert kind.startswith("text/plain")
        assert {name: answer.headers.get(name) for name in _NO_CACHE} == _NO_CACHE
    elif door == "lfs":
        assert kind == LFS
        body = answer.json()
        assert body["request_id"] == answer.headers["x-request-id"]
        assert "objects" not in body
        text = body["message"]
    else:
        assert kind == "application/json"
        text = answer.json()["error"]
        assert answer.headers["x-error-message"]
        assert answer.headers.get("x-error-code") == code
    assert text.strip()
    if status == 401:
        _challenged(answer, door)
    return text


def _challenged(answer: httpx.Response, door: Door) -> None:
    challenge = 'Basic realm="weightroom"'
    if door != "hub":
        assert answer.headers["www-authenticate"] == challenge
    if door == "lfs":
        assert answer.headers["lfs-authenticate"] == challenge


@contextmanager
def unharmed(site: Site, *, growth: int = 100 * MIB) -> Iterator[None]:
    """Check that nothing within fails the server: no 5xx, no traceback, little memory, and quick afterwards."""
    seen, before = site.house.log.stat().st_size, site.house.resident()
    yield
    began = time.monotonic()
    assert site.ask("GET", "/version", None).status_code == 200
    assert time.monotonic() - began < 2
    grown = site.house.resident() - before
    assert grown < growth, f"the server grew by {grown >> 20} MiB"
    with site.house.log.open("rb") as log:
        log.seek(seen)
        said = log.read().decode()
    assert "Traceback" not in said, said[-4000:]
    assert '"status": 5' not in said, said[-4000:]


def bodies_alike(one: httpx.Response, other: httpx.Response, *, names: tuple[str, str]) -> None:
    """Check that two refusals differ in nothing but the names of their repos."""
    changing = {"date", "x-request-id", "content-length"}
    seen = []
    for answer, name in zip((one, other), names, strict=True):
        headers = {key: value.replace(name, "*") for key, value in answer.headers.items() if key not in changing}
        text = answer.text.replace(name, "*").replace(answer.headers["x-request-id"], "+")
        seen.append((answer.status_code, headers, text))
    assert seen[0] == seen[1]
