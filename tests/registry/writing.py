"""The write half of the Hub, desk and doors, before a gate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.testclient import TestClient

from registry.access import Access, Actor, Visit
from registry.authors import Authors
from registry.awaiting import Awaiting
from registry.branches import Branches
from registry.commits import Commits, Committed
from registry.db import Database
from registry.draft import DraftLimits
from registry.git.view import Views
from registry.git.write import read_parents
from registry.names import RepoId
from registry.preupload import Preupload
from registry.profiles import Profiles
from registry.publish import Origin
from registry.repos import Repos
from registry.revisions import Resolved, Revisions
from registry.routes.auth import Auth
from registry.routes.hub.account import AccountDoor
from registry.routes.hub.arrivals import Arrivals
from registry.routes.hub.manage import ManageDoor
from registry.routes.hub.refs import RefDoor
from registry.routes.hub.uploads import UploadDoor
from registry.routes.hub.usage import UsageDoor
from registry.routes.problems import InDialect, Problems
from registry.usage import Usages
from registry.xet_following import Following
from tests.registry import people
from tests.registry.gate import MAIN, Gate

ANN = Actor(1, "ann", 1, None, "write")
BY_ANN = Origin(ANN, "api")


@dataclass
class Writing:
    """A gate, repo 1 = `ann/one` still without commits, and what writes to it for `ann` (user 1) and `bob` (2)."""

    database: Database
    folder: Path
    limits: DraftLimits | None = None
    patience: float = 20.0

    def __post_init__(self) -> None:
        self.gate = Gate(self.database, self.folder)
        self.tokens = {"ann": people.add_token(self.database, 1), "bob": people.add_token(self.database, 2)}
        self.access = Access(self.database)
        self.revisions = Revisions(
            repositories=self.gate.repositories, manifests=self.gate.manifests, views=Views(self.gate.manifests)
        )
        self.quarantine = self.folder / "quarantine"
        shared = {
            "repositories": self.gate.repositories,
            "manifests": self.gate.manifests,
            "receiver": self.gate.receiver,
            "authors": Authors(self.database),
            "quarantine": self.quarantine,
        }
        self.commits = Commits(links=self.gate.links, uploads=self.gate.linked.uploads, limits=self.limits, **shared)
        self.awaiting = Awaiting(self.gate.linked.uploads.unproven, seconds=self.patience)
        self.branches = Branches(revisions=self.revisions, **shared)
        quotas, following = self.gate.linked.quotas, Following(self.database, "namespace")
        self.repos = Repos(self.database, self.access, quotas, start=self.commits.start, following=following)
        self.preupload = Preupload(revisions=self.revisions)
        self.client = TestClient(self._app(), raise_server_exceptions=False)

    def _app(self) -> Starlette:
        auth = Auth(self.access)
        arrivals = Arrivals(auth=auth, revisions=self.revisions)
        doors = (
            ManageDoor(auth=auth, arrivals=arrivals, repos=self.repos),
            RefDoor(arrivals=arrivals, branches=self.branches),
            UploadDoor(arrivals=arrivals, preupload=self.preupload, commits=self.commits, awaiting=self.awaiting),
            AccountDoor(auth=auth, profiles=Profiles(self.database)),
            UsageDoor(auth=auth, usages=Usages(self.database, self.gate.linked.quotas)),
        )
        routes = [route for door in doors for route in door.routes()]
        for route in routes:
            route.app = InDialect(route.app, Problems("hub"))
        return Starlette(routes=routes)

    def commit(
        self,
        *operations: tuple[object, ...],
        on: str = "main",
        parent: str | None = None,
        by: Origin = BY_ANN,
        message: str = "Change",
    ) -> Committed:
        """Commit ("put", path, bytes), ("large", path, oid, size), ("delete", path) operations on repo 1."""
        with self.commits.draft() as draft:
            draft.head(message, "", parent)
            for act, path, *more in operations:
                if act == "put":
                    draft.file(path, len(more[0]), [more[0]])
                elif act == "large":
                    draft.large_file(path, *more)
                else:
                    draft.delete(path)
            return self.commits.commit(1, by, on, draft)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Read every file of a revision of repo 1, as git holds it."""
        at = self.revisions.resolve_in(self.gate.repositories.snapshot(1), revision)
        entries = self.revisions.tree(at, "", recursive=True, limit=10_000).entries
        return {entry.path.decode(): self.revisions.blob(at, entry, 1 << 30) for entry in entries if not entry.folder}

    def tip(self, name: bytes = MAIN) -> str | None:
        """Where a ref of repo 1 points."""
        return self.gate.targets().get(name)

    def parents(self, sha: str) -> list[str]:
        """The parents of a commit of repo 1."""
        manifest = self.gate.manifests.manifest(self.gate.repositories.snapshot(1).packs)
        return read_parents(manifest.read(sha)[1])[1]

    def text(self, sha: str) -> str:
        """A commit or tag of repo 1 as git shows it."""
        manifest = self.gate.manifests.manifest(self.gate.repositories.snapshot(1).packs)
        return manifest.read(sha)[1].decode()

    def resolved(self, revision: str) -> Resolved:
        """What a revision of repo 1 means."""
        return self.revisions.resolve_in(self.gate.repositories.snapshot(1), revision)

    def visit(self, name: str = "one", *, who: str = "ann", kind: str = "model", namespace: str = "ann") -> Visit:
        """Bring somebody to a repo."""
        return self.access.visit(self.tokens[who], RepoId(kind, namespace, name))

    def ask(self, method: str, path: str, body: object = None, *, who: str | None = "ann", **more: object):
        """Send a request with somebody's token."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        content = None if body is None else json.dumps(body)
        return self.client.request(
            method, path, content=content, headers=headers | {"Content-Type": "application/json"}, **more
        )

    def send(self, path: str, lines: Sequence[Mapping[str, object]] | bytes, *, who: str | None = "ann"):
        """Send the body of a commit."""
        body = lines if isinstance(lines, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        headers["Content-Type"] = "application/x-ndjson"
        return self.client.post(path, content=body, headers=headers)

    def leftovers(self) -> list[str]:
        """What lies in quarantine."""
        return sorted(path.name for path in self.quarantine.iterdir())
