"""What a client may see of one snapshot: its shown refs, and the objects that these reach.

Packs are shared by forks and keep hidden and unreachable objects until collection, so presence in a pack is never
enough to serve an object or to admit that we have it.
"""

from __future__ import annotations

import hashlib
import threading
from binascii import a2b_hex
from collections import OrderedDict
from functools import cached_property

from registry.git.graph import Graph, Reach
from registry.git.objects import GITLINK, Manifest, ManifestStore
from registry.git.snapshot import Ref, Snapshot, tips_digest, visible


class View:
    """One snapshot with its objects. Thread-safe: all that is worked out later is a function of the snapshot."""

    def __init__(self, snapshot: Snapshot, manifest: Manifest) -> None:
        self.snapshot = snapshot
        self.manifest = manifest

    @property
    def graph(self) -> Graph:
        """The commit graph of all packs, hidden parts included."""
        return self.manifest.graph

    @cached_property
    def refs(self) -> dict[bytes, Ref]:
        """Shown refs, in byte order of names."""
        return {name: ref for name, ref in self.snapshot.refs.items() if visible(name)}

    @cached_property
    def names(self) -> list[bytes]:
        """Names of shown refs in byte order."""
        return list(self.refs)

    @cached_property
    def tips(self) -> frozenset[bytes]:
        """Raw ids that shown refs name."""
        return frozenset(a2b_hex(ref.target) for ref in self.refs.values())

    @cached_property
    def tags(self) -> dict[bytes, list[bytes]]:
        """Annotated tags by the commit, tree or blob that they finally name; raw ids."""
        found: dict[bytes, list[bytes]] = {}
        for ref in self.refs.values():
            if ref.peeled is not None:
                found.setdefault(a2b_hex(ref.peeled), []).append(a2b_hex(ref.target))
        return found

    @cached_property
    def tags_digest(self) -> bytes:
        """Digest of the annotated tags that may go along with a fetch."""
        pairs = sorted((peeled, tag) for peeled, tags in self.tags.items() for tag in tags)
        return hashlib.sha256(b"".join(peeled + tag for peeled, tag in pairs)).digest()

    @cached_property
    def exact(self) -> bool:
        """True if the packs hold the closure of the shown refs and nothing else."""
        digest = self.snapshot.closure_tips
        return digest is not None and digest == tips_digest(self.refs)

    @cached_property
    def reach(self) -> Reach:
        """Commits and tags that shown refs reach."""
        return Reach(self.graph, self.tips)

    def serves(self, id: bytes) -> bool:
        """True if a shown ref reaches this object."""
        if id in self.tips:
            return True
        if self.manifest.find(id) is None:
            return False
        if self.exact or self.reach.commit(id):
            return True
        return self.reach.introduced(id) or id in self._below_bare_tips

    def has_commit(self, id: bytes) -> bool:
        """True if a shown ref reaches this commit or tag."""
        return self.reach.commit(id)

    @cached_property
    def _below_bare_tips(self) -> frozenset[bytes]:
        """Objects under refs that name a tree or blob outright: no commit tells of those."""
        found: set[bytes] = set()
        todo = [tip for tip in self.tips if self.graph.node(tip) is None]
        while todo:
            id = todo.pop()
            if id in found:
                continue
            found.add(id)
            if self.manifest.is_tree(id):
                todo += [child for _, mode, child in self.manifest.tree(id) if mode != GITLINK]
        return frozenset(found)


class Views:
    """Opens views and keeps the latest, so that requests for an unchanged repo share what they work out.

    `keep` bounds how many are kept.
    """

    def __init__(self, store: ManifestStore, *, keep: int = 128) -> None:
        self._store = store
        self._limit = keep
        self._kept: OrderedDict[tuple[int, int, int], View] = OrderedDict()
        self._lock = threading.Lock()

    def view(self, snapshot: Snapshot) -> View:
        """Give the view of a snapshot.

        Raises: Damaged, and what the store of packs raises.
        """
        key = snapshot.repo_id, snapshot.refs_version, snapshot.manifest_version
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and _same(kept.snapshot, snapshot):
                self._kept.move_to_end(key)
                return kept
        made = View(snapshot, self._store.manifest(snapshot.packs))
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return made


def _same(kept: Snapshot, asked: Snapshot) -> bool:
    """Renaming the default branch or proving a closure need not move a version."""
    return kept.head == asked.head and kept.closure_tips == asked.closure_tips and kept.packs == asked.packs
