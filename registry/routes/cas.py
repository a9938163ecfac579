"""Where the chunks of a repo's files are, and leave to go there: what every door tells clients that speak Xet.

{origin}/xet/{domain}/g{generation}     the CAS; clients keep what they know of it under this very address
{origin}/api/{noun}/{repo}/xet-{read|write}-token/{revision}     where a token is renewed
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from lfs import host
from lfs.actions import Caller, Referral
from lfs.xet import hashes
from lfs.xet.index import Leave, Scope
from lfs.xet.tokens import LIFETIME, XetTokens
from registry.access import RepoRow, Visit
from registry.frontmatter import Json
from registry.names import API_NOUN
from registry.xet_domains import Domain, XetDomains

FILE_INFO = "application/vnd.xet-fileinfo+json"
Greet = Callable[[str, int], None]
"""Hears of a good token, and of the user whose it is."""

_PREFIXED = ("datasets/", "spaces/")


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a CAS, and a token for it that lives until `expires`, in Unix seconds."""

    cas_url: str
    token: str
    expires: int

    def headers(self) -> dict[str, str]:
        """Tell it in headers, as Python reads it, and in a batch answer as others do."""
        return {
            "X-Xet-Cas-Url": self.cas_url,
            "X-Xet-Access-Token": self.token,
            "X-Xet-Token-Expiration": str(self.expires),
        }

    def document(self) -> dict[str, Json]:
        """Tell it in JSON, as hf-xet reads it."""
        return {"casUrl": self.cas_url, "accessToken": self.token, "exp": self.expires}


@dataclass(frozen=True, slots=True)
class Advert:
    """What clients need to fetch one file by its chunks: its hash as text, where to get a token, and the CAS."""

    hash: str
    renewal: str
    cas_url: str

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Tell it beside a file."""
        info = f"{self.cas_url}/v1/reconstructions/{self.hash}"
        links = f'<{self.renewal}>; rel="xet-auth", <{info}>; rel="xet-reconstruction-info"'
        return [(b"x-xet-hash", self.hash.encode()), (b"link", links.encode("latin-1"))]

    def document(self, size: int, etag: str) -> dict[str, Json]:
        """Tell it in place of a file, as JavaScript asks for it."""
        found: dict[str, Json] = {"hash": self.hash, "refreshUrl": self.renewal, "casUrl": self.cas_url}
        return found | {"size": size, "etag": etag}


class Cas:
    """Tells the way to the CAS; `advertised(repo_id, oids)` names the files that can be had by their chunks now.

    `greet` hears of each token that is given to a user, and whose it is.
    """

    def __init__(
        self,
        *,
        tokens: XetTokens,
        domains: XetDomains,
        advertised: Callable[[int, Collection[str]], Mapping[str, bytes]],
        greet: Greet = lambda token, actor_id: None,
    ) -> None:
        self._tokens = tokens
        self._domains = domains
        self._advertised = advertised
        self._greet = greet

    def connect(self, site: str, visit: Visit, scope: Scope) -> Connection:
        """Give whoever came to a repo leave for its chunks; `site` is our origin."""
        domain = self._domains.domain_of(visit.repo)
        actor = visit.actor
        leave = Leave(visit.repo.id, actor.user_id or 0, domain.id, scope, self._tokens.until(), actor.token_id or 0)
        return self._connection(site, domain, leave)

    def refer(self, leave: host.Leave, caller: Caller, ref: str) -> Referral:
        """Send who asked a batch to the CAS, with leave to write; `ref` is what they named, if anything."""
        domain = self._domains.domain_for(leave.repo_id)
        given = Leave(leave.repo_id, leave.actor_id, domain.id, "write", self._tokens.until(), leave.token_id)
        connection = self._connection(caller.base, domain, given)
        path = caller.repo.removesuffix(".git")
        repo = path if path.startswith(_PREFIXED) else f"models/{path}"
        renewal = f"{caller.base}/api/{repo}/xet-write-token/{quote(ref or 'None', safe='')}"
        return Referral(renewal, connection.headers() | {"X-Xet-Session-Id": secrets.token_hex(16)}, LIFETIME)

    def advert(self, site: str, repo: RepoRow, commit: str, oid: str) -> Advert | None:
        """Say how to fetch a file of a commit by its chunks; None if it cannot be had so now."""
        found = self._advertised(repo.id, [oid]).get(oid)
        if found is None:
            return None
        renewal = f"{site}/api/{API_NOUN[repo.type]}/{repo.repo_id.full}/xet-read-token/{commit}"
        return Advert(hashes.text(found), renewal, _address(site, self._domains.domain_of(repo)))

    def hashes(self, repo_id: int, oids: Collection[str]) -> dict[str, str]:
        """Return the hashes, as text, of those of these objects that can be had by their chunks now."""
        if not oids:
            return {}
        return {oid: hashes.text(raw) for oid, raw in self._advertised(repo_id, oids).items()}

    def _connection(self, site: str, domain: Domain, leave: Leave) -> Connection:
        token = self._tokens.issue(leave)
        if leave.actor_id:
            self._greet(token, leave.actor_id)
        return Connection(_address(site, domain), token, leave.expires)


def _address(site: str, domain: Domain) -> str:
    return f"{site}/xet/{domain.id}/g{domain.generation}"
