"""The read half of the Hub door before a gate, without the rest of the program."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from lfs.pointer import Pointer, canonical
from lfs.transfer import Transfer
from lfs.xet.tokens import XetTokens
from registry.access import Access, Actor
from registry.catalog import Catalog
from registry.db import Database
from registry.facts import FactReader
from registry.git.snapshot import ZERO
from registry.git.verdict import Update
from registry.git.view import Views
from registry.linking import Linker
from registry.names import RepoType
from registry.publish import Origin
from registry.revisions import Resolved, Revisions
from registry.routes.auth import Auth
from registry.routes.cas import Cas
from registry.routes.hub.arrivals import Arrivals
from registry.routes.hub.files import FileDoor
from registry.routes.hub.lists import ListDoor
from registry.routes.hub.repos import RepoDoor
from registry.routes.hub.trees import TreeDoor
from registry.routes.hub.xet import XetDoor
from registry.routes.problems import InDialect, Problems
from registry.unpacked import Unpacked
from registry.xet_copies import Copies
from registry.xet_domains import XetDomains
from registry.xet_files import XetFiles
from registry.xorbs import XetRows
from tests.registry import people
from tests.registry.gate import MAIN, Gate

SECRET = b"a secret of this test, and of it"


@dataclass
class Reader:
    """A gate with the doors that read what passed it; `ann` (1) owns the model `ann/one` (1), `bob` is a stranger.

    Xet is switched off unless asked for.
    """

    database: Database
    folder: Path
    xet: bool = False

    def __post_init__(self) -> None:
        self.gate = Gate(self.database, self.folder)
        self.tokens = {"ann": people.add_token(self.database, 1), "bob": people.add_token(self.database, 2)}
        self.access = Access(self.database)
        self.revisions = Revisions(
            repositories=self.gate.repositories, manifests=self.gate.manifests, views=Views(self.gate.manifests)
        )
        held = self.gate.links.object_key
        self.facts = FactReader(revisions=self.revisions, held=held, store=self.gate.store)
        self.catalog = Catalog(self.database, describe=self._describe)
        auth = Auth(self.access)
        arrivals = Arrivals(auth=auth, revisions=self.revisions)
        self.xet_tokens = XetTokens([SECRET], time.time)
        self.cas = Cas(
            tokens=self.xet_tokens,
            domains=XetDomains(self.database, "namespace"),
            advertised=XetFiles(self.database).advertised,
        )
        cas = self.cas if self.xet else None
        doors = (
            XetDoor(auth=auth, arrivals=arrivals, copies=self._copies(), cas=cas),
            ListDoor(auth=auth, catalog=self.catalog, revisions=self.revisions),
            TreeDoor(arrivals=arrivals, revisions=self.revisions, cas=cas),
            RepoDoor(arrivals=arrivals, revisions=self.revisions, facts=self.facts, xet=self.xet),
            FileDoor(
                arrivals=arrivals,
                revisions=self.revisions,
                transfer=Transfer(store=self.gate.store),
                held=held,
                unpacked=Unpacked(revisions=self.revisions, store=self.gate.store),
                cas=cas,
                inline=300_000,
            ),
        )
        routes = [route for door in doors for route in door.routes()]
        self.app = Starlette(routes=[_spoken(route) for route in routes])

    def _copies(self) -> Copies:
        rows = XetRows(self.database, self.gate.linked.quotas, sharing="namespace")
        return Copies(self.database, rows, self.gate.links, Linker(self.database, self.gate.linked.quotas))

    def _describe(self, kind: RepoType, repo_id: int, sha: str) -> object:
        version = self.gate.repositories.snapshot(repo_id).manifest_version
        return self.facts.read(kind, Resolved(repo_id, sha, version))

    def client(self, name: str | None = None) -> TestClient:
        """A raw HTTP client of this person."""
        headers = {} if name is None else {"authorization": f"Bearer {self.tokens[name]}"}
        return TestClient(self.app, base_url="http://hub.test", headers=headers, follow_redirects=False)

    def push(
        self, files: dict[str, bytes], *, on: str | None = None, ref: bytes = MAIN, message: str = "change"
    ) -> str:
        """Commit exactly these files and push them to a ref of `ann/one`; return the sha."""
        sha = self.gate.commit(files, on=on, message=message)
        old = self.gate.targets().get(ref, ZERO)
        pack = self.gate.pack([sha], [ref.target for ref in self.gate.refs().values()])
        origin = Origin(Actor(1, "ann", 1, None, "write"), "api")
        outcome = self.gate.receiver.accept(1, origin, [Update(ref, old, sha)], pack)
        assert outcome.results == {ref: None}, outcome
        return sha

    def large(self, content: bytes, repo_id: int = 1) -> bytes:
        """Store an LFS object for a repo; return the text of its pointer."""
        oid = hashlib.sha256(content).hexdigest()
        key = f"lfs/{oid[:2]}/{oid[2:4]}/{oid}"
        self.gate.store.put(key, content, len(content), oid)
        self.gate.link(oid, len(content), repo_id)
        return canonical(Pointer(oid, len(content)))


def _spoken(route: Route) -> Route:
    route.app = InDialect(route.app, Problems("hub"))
    return route
