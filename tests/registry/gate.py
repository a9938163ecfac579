"""A gate with everything behind it, and packs that real git makes for it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.store import ObjectStore
from registry.access import Actor
from registry.checks import Checks
from registry.db import Database
from registry.git.cache import PackCache
from registry.git.objects import ManifestStore
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO, Ref, Snapshot
from registry.git.verdict import Job, Limits, Update, Verdict
from registry.locks import LockRows
from registry.policy import Policy
from registry.publish import Origin, Publisher
from registry.receive import Outcome, Receiver
from tests.registry import people
from tests.registry.git import packed
from tests.registry.linked import Linked

MAIN = b"refs/heads/main"


@dataclass
class Gate:
    """One repo, id 1, of user `ann`, id 1; `folder` holds store, quarantine and git's own repository.

    `shelf` takes the place of the store in the folder.
    """

    database: Database
    folder: Path
    limits: Limits = field(default_factory=Limits)
    shelf: ObjectStore | None = None

    def __post_init__(self) -> None:
        people.add_user(self.database, "ann")
        people.add_user(self.database, "bob")
        people.add_repo(self.database, "ann", "one")
        self.store = self.shelf or LocalStore(self.folder / "objects", fsync=False, min_free=0)
        self.packs = PackCache(self.store, self.folder / "cache", 1 << 30)
        self.manifests = ManifestStore(self.packs)
        self.repositories = Repositories(self.database)
        self.linked = Linked(self.database)
        self.links = self.linked.links
        self.locks = LockRows(self.database)
        self.publisher = Publisher(self.database, self.store, self.linked.quotas)
        self.heavy = Heavy(workers=1, memory_bytes=4 << 30, deadline=60)
        self.told: list[int] = []
        self.checked: list[Job] = []
        self.receiver = Receiver(
            repositories=self.repositories,
            policy=Policy(links=self.links, locks=self.locks, uploads=self.linked.uploads, quotas=self.linked.quotas),
            publisher=self.publisher,
            check=self._check,
            limits=self.limits,
            published=self.told.append,
        )
        self.work = packed.new_repo(self.folder / "work")
        (self.folder / "quarantine").mkdir()
        self._numbers = itertools.count()

    def _check(self, snapshot: Snapshot, job: Job) -> Verdict:
        self.checked.append(job)
        return Checks(manifests=self.manifests, packs=self.packs, heavy=self.heavy).run(snapshot, job)

    def commit(self, files: dict[str, bytes], *, on: str | None = None, message: str = "change") -> str:
        """Make a commit with exactly these files in git's own repository; return its sha."""
        index = {"GIT_INDEX_FILE": str(self.folder / f"index{next(self._numbers)}")}
        lines = []
        for path, data in files.items():
            blob = self.git("hash-object", "-w", "--stdin", data=data)
            lines.append(f"100644 {blob}\t{path}\n")
        self.git("update-index", "--index-info", data="".join(lines).encode(), more=index)
        tree = self.git("write-tree", more=index)
        parent = ["-p", on] if on else []
        return self.git("commit-tree", tree, *parent, "-m", message)

    def git(self, *arguments: str, data: bytes | None = None, more: dict[str, str] | None = None) -> str:
        """Run git in its own repository."""
        return packed.git(self.work, *arguments, input=data, more=more).decode().strip()

    def pack(self, new: Sequence[str], old: Sequence[str] = (), *, thin: bool = False) -> Path:
        """Write the pack that a client would send for these tips."""
        revs = "\n".join([*new, *(f"^{sha}" for sha in old)]) + "\n"
        flags = ["--thin"] if thin else []
        data = packed.git(self.work, "pack-objects", "--revs", "--stdout", "-q", *flags, input=revs.encode())
        path = self.folder / "quarantine" / f"{next(self._numbers)}.pack"
        path.write_bytes(data)
        return path

    def push(
        self,
        *updates: tuple[bytes, str, str],
        pack: Path | None = None,
        atomic: bool = False,
        actor: Actor | None = None,
    ) -> Outcome:
        """Push ref updates as ann, with the pack that brings their objects unless another is given."""
        origin = Origin(actor or Actor(1, "ann", 1, None, "write"))
        moves = [Update(*update) for update in updates]
        new = [update.new for update in moves if update.new != ZERO]
        if pack is None and new:
            pack = self.pack(new, [ref.target for ref in self.refs().values()])
        return self.receiver.accept(1, origin, moves, pack, atomic=atomic)

    def refs(self) -> dict[bytes, Ref]:
        """The refs as a new request sees them."""
        return dict(self.repositories.snapshot(1).refs)

    def targets(self) -> dict[bytes, str]:
        """Ref name to target."""
        return {name: ref.target for name, ref in self.repositories.snapshot(1).refs.items()}

    def link(self, oid: str, size: int, repo_id: int = 1) -> None:
        """Make a proven link without bytes."""
        self.linked.link(repo_id, oid, size)
