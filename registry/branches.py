"""Branches and tags made and removed, and histories squashed: ref updates through the gate."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from registry.authors import Authors
from registry.db import now
from registry.errors import Exists, NotAllowed, RefMoved, RegistryError, RevisionAbsent
from registry.git.objects import ManifestStore
from registry.git.packfile import COMMIT, TAG, TREE
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO, Snapshot
from registry.git.spool import Spool
from registry.git.targets import HEADS, TAGS, branch_ref, shown, tag_ref, writable_ref
from registry.git.write import commit_text, object_id, read_parents, tag_text
from registry.receive import Origin, Receiver, Update
from registry.revisions import Revisions

_ATTEMPTS = 5


class Branches:
    """Moves refs for the Hub. Thread-safe. Every call is atomic and durable at return."""

    def __init__(
        self,
        *,
        repositories: Repositories,
        manifests: ManifestStore,
        revisions: Revisions,
        receiver: Receiver,
        authors: Authors,
        quarantine: Path,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._repositories = repositories
        self._manifests = manifests
        self._revisions = revisions
        self._receiver = receiver
        self._authors = authors
        self._quarantine = quarantine
        self._clock = clock

    def create(
        self,
        repo_id: int,
        origin: Origin,
        name: str,
        *,
        start: str | None = None,
        empty: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Make a branch at a revision (None: the default branch), or with an empty commit of its own.

        Raises: BadName, Exists (unless `overwrite`), RevisionAbsent, and what the gate refuses.
        """
        snapshot = self._repositories.snapshot(repo_id)
        ref = branch_ref(name)
        found = snapshot.refs.get(ref)
        if found is not None and not overwrite:
            raise _exists(ref)
        old = found.target if found is not None else ZERO
        if empty:
            text = commit_text(
                object_id(TREE, b""), [], self._authors.person(origin.actor), self._clock(), "Empty branch"
            )
            self._move(repo_id, origin, Update(ref, old, object_id(COMMIT, text)), [(TREE, b""), (COMMIT, text)])
            return
        target = self._revisions.resolve_in(snapshot, start).commit
        if target != old:
            self._move(repo_id, origin, Update(ref, old, target))

    def delete(self, repo_id: int, origin: Origin, name: str) -> None:
        """Remove a branch.

        Raises: RevisionAbsent, NotAllowed (the default branch).
        """
        snapshot = self._repositories.snapshot(repo_id)
        ref = HEADS + name.removeprefix(HEADS.decode()).encode("utf-8", "surrogatepass")
        self._delete(snapshot, origin, ref, name)

    def create_tag(self, repo_id: int, origin: Origin, name: str, revision: str, message: str = "") -> None:
        """Tag the commit of a revision; with a message the tag is an object of its own.

        Raises: BadName, Exists, RevisionAbsent, and what the gate refuses.
        """
        snapshot = self._repositories.snapshot(repo_id)
        ref = tag_ref(name)
        target = self._revisions.resolve_in(snapshot, revision).commit
        if ref in snapshot.refs:
            raise _exists(ref)
        if not message.strip():
            self._move(repo_id, origin, Update(ref, ZERO, target))
            return
        text = tag_text(name, target, self._authors.person(origin.actor), self._clock(), message)
        self._move(repo_id, origin, Update(ref, ZERO, object_id(TAG, text)), [(TAG, text)])

    def delete_tag(self, repo_id: int, origin: Origin, name: str) -> None:
        """Remove a tag.

        Raises: RevisionAbsent.
        """
        snapshot = self._repositories.snapshot(repo_id)
        ref = TAGS + name.removeprefix(TAGS.decode()).encode("utf-8", "surrogatepass")
        self._delete(snapshot, origin, ref, name)

    def squash(self, repo_id: int, origin: Origin, branch: str, message: str = "") -> str:
        """Replace the history of a branch by one commit with the same files; return it.

        Squashing again with the same message changes nothing.
        Raises: RevisionAbsent, BadBody (a tag or sha), RefMoved, and what the gate refuses.
        """
        title = message if message.strip() else f"Super-squash branch '{branch}'"
        for _ in range(_ATTEMPTS):
            try:
                return self._squash(repo_id, origin, branch, title)
            except RefMoved:
                continue
        raise RefMoved(f"{branch} kept moving while it was squashed; try again.")

    def _squash(self, repo_id: int, origin: Origin, branch: str, title: str) -> str:
        snapshot = self._repositories.snapshot(repo_id)
        ref = writable_ref(snapshot, branch)
        if ref not in snapshot.refs:
            raise RevisionAbsent(f"Invalid rev id: {branch}")
        old = snapshot.refs[ref].target
        current = self._manifests.manifest(snapshot.packs).read(old)[1]
        tree, parents = read_parents(current)
        text = commit_text(tree, [], self._authors.person(origin.actor), self._clock(), title)
        if not parents and current.partition(b"\n\n")[2] == text.partition(b"\n\n")[2]:
            return old
        self._move(repo_id, origin, Update(ref, old, object_id(COMMIT, text)), [(COMMIT, text)])
        return object_id(COMMIT, text)

    def _delete(self, snapshot: Snapshot, origin: Origin, ref: bytes, name: str) -> None:
        found = snapshot.refs.get(ref)
        if found is None:
            raise RevisionAbsent(f"Invalid rev id: {name}")
        if ref == snapshot.head:
            raise NotAllowed(f"Cannot delete {shown(ref)}")
        self._move(snapshot.repo_id, origin, Update(ref, found.target, ZERO))

    def _move(self, repo_id: int, origin: Origin, update: Update, objects: Sequence[tuple[int, bytes]] = ()) -> None:
        """Send one update, and the few objects it brings, through the gate."""
        if objects:
            with Spool(self._quarantine, secrets.token_hex(16)) as spool:
                error = self._receiver.accept(repo_id, origin, [update], spool.pack([], objects)).error
        else:
            error = self._receiver.accept(repo_id, origin, [update], None).error
        if error is not None:
            raise _told(error, update)


def _told(error: RegistryError, update: Update) -> RegistryError:
    """A creation that lost its race met somebody else's ref of that name."""
    return _exists(update.name) if isinstance(error, RefMoved) and update.creates else error


def _exists(ref: bytes) -> Exists:
    return Exists(f"Reference {shown(ref)} already exists")
