"""Hub operations → one git commit, through the gate.

tip → operations in wire order → trees → pack → Receiver.accept     a lost race: again on the new tip
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lfs.pointer import Pointer, canonical
from registry.authors import Authors
from registry.db import now
from registry.draft import Delete, Draft, DraftLimits, Portable, PutFile, PutLarge
from registry.errors import BadBody, BadPath, EntryAbsent, RefMoved, StaleParent
from registry.git.objects import Manifest, ManifestStore
from registry.git.packfile import COMMIT, TREE
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO
from registry.git.targets import shown, writable_ref
from registry.git.write import Person, TreeEdit, commit_text, object_id, read_parents
from registry.links import Links
from registry.receive import Origin, Receiver, Update
from registry.uploads import Standing, Uploads

_ATTEMPTS = 5
_STALE = "The branch was updated since you opened this page. Please refresh and try again."

Step = tuple[bytes, str | None]
"""A path and the blob it gets; None removes it."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The commit a branch now stands at, and the branch's full name."""

    sha: str
    ref: bytes


@dataclass(frozen=True, slots=True)
class _Work:
    """One commit to be made, whatever the tip."""

    repo_id: int
    revision: str
    draft: Draft
    steps: tuple[Step, ...]
    author: Person
    origin: Origin


class Commits:
    """Makes commits. Thread-safe; a `Draft` belongs to one caller."""

    def __init__(
        self,
        *,
        repositories: Repositories,
        manifests: ManifestStore,
        receiver: Receiver,
        links: Links,
        uploads: Uploads,
        authors: Authors,
        quarantine: Path,
        limits: DraftLimits | None = None,
        portable: Portable = "refuse",
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._repositories = repositories
        self._manifests = manifests
        self._receiver = receiver
        self._links = links
        self._uploads = uploads
        self._authors = authors
        self._quarantine = quarantine
        self._limits = limits or DraftLimits()
        self._portable = portable
        self._clock = clock

    def draft(self) -> Draft:
        """Begin to collect a commit; leave the draft to remove its files."""
        return Draft(self._quarantine, secrets.token_hex(16), limits=self._limits, portable=self._portable)

    def commit(self, repo_id: int, origin: Origin, revision: str, draft: Draft) -> Committed:
        """Put a draft on a branch. Atomic and durable; what changes nothing answers the tip and makes no commit.

        Repeating a request that named its parent is success as long as its result is the tip.
        Raises: RevisionAbsent, BadBody (a tag or sha; an LFS object of another size or not of this repo), EntryAbsent,
        BadPath, StaleParent, RefMoved, StillChecked (the same draft may be committed later), and whatever else the gate
        refuses.
        """
        work = _Work(repo_id, revision, draft, self._steps(repo_id, draft), self._authors.person(origin.actor), origin)
        for _ in range(_ATTEMPTS):
            made = self._attempt(work)
            if made is not None:
                return made
        raise RefMoved("The branch kept moving while this commit was made; try again.")

    def start(self, repo_id: int, origin: Origin, files: Mapping[str, bytes], message: str) -> Committed:
        """Make the first commit of a new repo on its default branch."""
        with self.draft() as draft:
            draft.head(message)
            for path, content in files.items():
                draft.file(path, len(content), [content])
            return self.commit(repo_id, origin, "HEAD", draft)

    def _attempt(self, work: _Work) -> Committed | None:
        """Commit on the tip of this moment; None if another commit came first."""
        snapshot = self._repositories.snapshot(work.repo_id)
        ref = writable_ref(snapshot, work.revision)
        tip = snapshot.refs[ref].target if ref in snapshot.refs else None
        manifest = self._manifests.manifest(snapshot.packs)
        parent = work.draft.parent
        if parent is not None and not (tip or "").startswith(parent):
            if tip is not None and _is_result(manifest, tip, work):
                return Committed(tip, ref)
            raise StaleParent(_STALE)
        if tip is None and not work.steps:
            raise BadBody(f"{shown(ref)} has no commit yet, and this one holds no file.")
        base = read_parents(manifest.read(tip)[1])[0] if tip is not None else None
        edit = _edited(manifest, base, work.steps, tip or "")
        root = edit.write()
        if root == base and tip is not None:
            return Committed(tip, ref)
        return self._publish(work, manifest, edit, root, Update(ref, tip or ZERO, ZERO))

    def _publish(self, work: _Work, manifest: Manifest, edit: TreeEdit, root: str, place: Update) -> Committed | None:
        """Send the pack of a planned commit through the gate."""
        parents = [] if place.creates else [place.old]
        text = commit_text(root, parents, work.author, self._clock(), work.draft.message)
        # What a later operation took away again must not travel: a pack brings exactly what its commit introduces.
        blobs = [blob for path, blob in work.steps if blob is not None and _stands(edit, path, blob)]
        new_blobs = [blob for blob in blobs if not manifest.contains(blob)]
        trees = [(TREE, content) for id, content in edit.made.items() if not manifest.contains(id)]
        pack = work.draft.spool.pack(new_blobs, [*trees, (COMMIT, text)])
        sha = object_id(COMMIT, text)
        outcome = self._receiver.accept(work.repo_id, work.origin, [Update(place.name, place.old, sha)], pack)
        if outcome.error is None:
            return Committed(sha, place.name)
        if isinstance(outcome.error, RefMoved):
            return None
        raise outcome.error

    def _steps(self, repo_id: int, draft: Draft) -> tuple[Step, ...]:
        """Bring every operation to a path and a blob; pointers join the spool here."""
        wanted = {one.oid for one in draft.operations if isinstance(one, PutLarge)}
        held = dict(self._links.held(repo_id, wanted)) if wanted else {}
        missing = wanted - held.keys()
        told = self._uploads.standing(repo_id, missing) if missing else {}
        if missing:
            # A proof that ended between the two questions is seen by neither.
            held |= self._links.held(repo_id, missing)
        steps: list[Step] = []
        for operation in draft.operations:
            if isinstance(operation, Delete):
                steps.append((operation.path, None))
            elif isinstance(operation, PutFile):
                steps.append((operation.path, operation.blob))
            else:
                size = _size_of(operation, held.get(operation.oid), told.get(operation.oid, Standing()))
                text = canonical(Pointer(operation.oid, size))
                steps.append((operation.path, draft.spool.add(len(text), [text])))
        return tuple(steps)


def _size_of(operation: PutLarge, held: int | None, told: Standing) -> int:
    """Find the size of an object that is linked here, or that arrived and waits for its proof: the gate waits, too."""
    which = f"LFS object {operation.oid} ({operation.path.decode()})"
    sizes = told.arrived if held is None else {held}
    if not sizes and told.reason:
        raise BadBody(f"{which} failed its check: {told.reason} Upload it again.")
    if not sizes:
        raise BadBody(f"{which} was not uploaded to this repository; upload it first.")
    if operation.size is None:
        return min(sizes)
    if operation.size not in sizes:
        raise BadBody(f"{which} has {min(sizes)} bytes, not {operation.size}.")
    return operation.size


def _edited(manifest: Manifest, base: str | None, steps: tuple[Step, ...], tip: str) -> TreeEdit:
    edit = TreeEdit(manifest.read, base)
    for path, blob in steps:
        if blob is not None:
            edit.put(path, blob)
        elif not edit.delete(path):
            name = path.decode(errors="replace")
            raise EntryAbsent(f'A file with the name "{name}" does not exist', commit=tip)
    return edit


def _stands(edit: TreeEdit, path: bytes, blob: str) -> bool:
    leaf = edit.find(path)
    return leaf is not None and leaf.id == blob


def _is_result(manifest: Manifest, tip: str, work: _Work) -> bool:
    """True if the tip is what this very request made before: its parent is the one named, its tree the one asked."""
    tree, parents = read_parents(manifest.read(tip)[1])
    if len(parents) != 1 or work.draft.parent is None or not parents[0].startswith(work.draft.parent):
        return False
    base = read_parents(manifest.read(parents[0])[1])[0]
    try:
        return _edited(manifest, base, work.steps, tip).write() == tree
    except (EntryAbsent, BadPath):
        return False
