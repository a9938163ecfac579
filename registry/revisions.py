"""Revision → commit → files. What a pinned commit holds never changes and is remembered; who may ask never is.

A revision is, in this order: a full sha, a branch, a tag, a full ref name, a unique sha prefix of at least 7 digits,
`HEAD`. A sha counts only if a shown ref reaches it: packs are shared by forks and outlive their refs.
The caller has brought the actor to the repo (`Access.visit`) before it asks anything here.
"""

from __future__ import annotations

from binascii import a2b_hex
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lfs.memory import Memory
from registry.access import Visit
from registry.errors import RevisionAbsent, TooLarge
from registry.git import history, tree
from registry.git.history import Commit
from registry.git.intro import Intro
from registry.git.objects import Manifest, ManifestStore
from registry.git.repository import Repositories
from registry.git.snapshot import Ref, Snapshot, visible
from registry.git.tree import Entry
from registry.git.view import View, Views
from registry.names import is_sha, is_sha_prefix

_HEADS, _TAGS = b"refs/heads/", b"refs/tags/"
# Attributing every path of a larger tree in one walk would take too much memory; its pages walk on their own.
_MOST_ATTRIBUTED = 100_000
_PATH_COST = 300


@dataclass(frozen=True, slots=True)
class Resolved:
    """A commit of a repo, and the full name of the ref that led to it, if one did."""

    repo_id: int
    commit: str
    manifest_version: int
    ref: bytes | None = None


class Revisions:
    """Reads commits by name. Thread-safe."""

    def __init__(
        self, *, repositories: Repositories, manifests: ManifestStore, views: Views, memory: int = 64 << 20
    ) -> None:
        """Remember at most about `memory` bytes of what pinned commits hold."""
        self._repositories = repositories
        self._manifests = manifests
        self._views = views
        self._reached: Memory[tuple[int, int, str], bool] = Memory(memory // 16, lambda _: 300)
        self._logs: Memory[tuple[int, str], bytes] = Memory(memory // 8, lambda log: 200 + len(log))
        self._changes: Memory[tuple[int, str], Mapping[bytes, str]] = Memory(
            memory // 4, lambda found: 200 + _PATH_COST * len(found)
        )

    def resolve(self, visit: Visit, revision: str | None) -> Resolved:
        """Find the commit that a revision names; None is the default branch.

        Costs no statement if the visit was made with `ref=asked(revision)` and that ref exists, or if the revision is
        a full sha that was resolved under these refs before.
        Raises: RevisionAbsent, RepoAbsent (deleted meanwhile).
        """
        repo, ref = visit.repo, asked(revision)
        by_name = ref is not None and ref.startswith(_HEADS) and revision not in (None, "HEAD")
        if visit.tip is not None and (by_name or ref == repo.default_branch):
            return Resolved(repo.id, visit.tip, repo.manifest_version, ref)
        if revision is not None and is_sha(revision) and self._reached.peek((repo.id, repo.refs_version, revision)):
            return Resolved(repo.id, revision, repo.manifest_version)
        return self.resolve_in(self._repositories.snapshot(repo.id), revision)

    def resolve_in(self, snapshot: Snapshot, revision: str | None) -> Resolved:
        """Find the commit that a revision names at one instant.

        Raises: RevisionAbsent.
        """
        if revision is not None and is_sha(revision) and self._reaches(snapshot, revision):
            return Resolved(snapshot.repo_id, revision, snapshot.manifest_version)
        for name in _candidates(snapshot, revision):
            commit = self._peeled(snapshot, name)
            if commit is not None:
                return Resolved(snapshot.repo_id, commit, snapshot.manifest_version, name)
        if revision is not None and is_sha_prefix(revision):
            return Resolved(snapshot.repo_id, self._abbreviated(snapshot, revision), snapshot.manifest_version)
        raise RevisionAbsent(f"Invalid rev id: {revision or 'HEAD'}")

    def snapshot(self, visit: Visit) -> Snapshot:
        """Read all refs of the visited repo."""
        return self._repositories.snapshot(visit.repo.id)

    def shown(self, visit: Visit) -> Mapping[bytes, Ref]:
        """Read the refs that clients may see, in byte order of names."""
        return {name: ref for name, ref in self.snapshot(visit).refs.items() if visible(name)}

    def entry(self, at: Resolved, path: str) -> Entry:
        """Find what lies at a path.

        Raises: EntryAbsent.
        """
        return tree.entry(self.manifest(at), at.commit, path.encode())

    def find(self, at: Resolved, paths: Collection[str]) -> list[Entry]:
        """Find what lies at each of these paths; missing ones are left out."""
        names = dict.fromkeys(path.strip("/").encode("utf-8", "surrogatepass") for path in paths)
        return tree.find_all(self.manifest(at), at.commit, filter(None, names))

    def tree(self, at: Resolved, folder: str, *, recursive: bool, limit: int, after: bytes | None = None) -> tree.Page:
        """List a folder, or all below it, in pages; `after` is the last path of the page before.

        Raises: EntryAbsent (no such folder), BadBody (`after` is not of this listing).
        """
        manifest = self.manifest(at)
        return tree.listing(manifest, at.commit, folder.encode(), recursive=recursive, limit=limit, after=after)

    def names(self, at: Resolved) -> list[str]:
        """List the paths of all files."""
        return [path.decode("utf-8", "replace") for path in tree.names(self.manifest(at), at.commit)]

    def blob(self, at: Resolved, entry: Entry, limit: int) -> bytes:
        """Read what git holds of a file: its content, or the text of its pointer.

        Raises: TooLarge (more than `limit` bytes).
        """
        if entry.git_size > limit:
            raise TooLarge(f"{entry.path.decode('utf-8', 'replace')} has {entry.git_size} bytes, more than {limit}.")
        return tree.blob(self.manifest(at), entry)

    def commit(self, at: Resolved) -> Commit:
        """Read the commit itself."""
        return history.commit(self.manifest(at), at.commit)

    def log(self, at: Resolved, start: int, count: int) -> tuple[list[Commit], int]:
        """Read commits number `start` to `start + count` of the history, newest first, and how many there are."""
        manifest = self.manifest(at)
        found = self._logs.get((at.repo_id, at.commit), lambda: history.log(manifest, at.commit))
        chosen = history.part(found, start, count)
        return [history.commit(manifest, sha) for sha in chosen], history.length(found)

    def last_changes(self, at: Resolved, paths: Collection[bytes]) -> dict[bytes, Commit]:
        """Tell which commit last changed each of these paths, which must exist; too long a search leaves some out."""
        manifest = self.manifest(at)
        whole = self._changes.peek((at.repo_id, at.commit))
        if whole is None:
            whole = self._attributed(manifest, at, paths)
        known = {path: whole[path] for path in paths if path in whole}
        commits = {sha: history.commit(manifest, sha) for sha in set(known.values())}
        return {path: commits[sha] for path, sha in known.items()}

    def manifest(self, at: Resolved) -> Manifest:
        """Open the packs in which the commit was found, or newer ones that hold it too."""
        return self._manifests.manifest(self._repositories.packs(at.repo_id, at.manifest_version))

    def _attributed(self, manifest: Manifest, at: Resolved, paths: Collection[bytes]) -> Mapping[bytes, str]:
        every = []
        for path in tree.names(manifest, at.commit, folders=True):
            every.append(path)
            if len(every) > _MOST_ATTRIBUTED:
                return history.last_changes(manifest, at.commit, paths)
        key = at.repo_id, at.commit
        return self._changes.get(key, lambda: history.last_changes(manifest, at.commit, every))

    def _reaches(self, snapshot: Snapshot, sha: str) -> bool:
        key = snapshot.repo_id, snapshot.refs_version, sha
        return self._reached.get(key, lambda: _reaches(self._views.view(snapshot), sha))

    def _peeled(self, snapshot: Snapshot, name: bytes) -> str | None:
        """Give the commit that a shown ref leads to; None if it is absent or names something else."""
        ref = snapshot.refs.get(name)
        if ref is None or not visible(name):
            return None
        commit = ref.peeled or ref.target
        if name.startswith(_HEADS):
            return commit
        node = self._views.view(snapshot).graph.node(a2b_hex(commit))
        return commit if node is not None and not node.row.is_tag else None

    def _abbreviated(self, snapshot: Snapshot, prefix: str) -> str:
        view = self._views.view(snapshot)
        found = {sha for pack in view.manifest.packs for sha in _starting(pack.intro, prefix) if _reaches(view, sha)}
        if len(found) != 1:
            raise RevisionAbsent(f"Invalid rev id: {prefix}" + (" is ambiguous" if found else ""))
        return found.pop()


def asked(revision: str | None) -> bytes | None:
    """Name the ref that a visit should read along to resolve this revision without a second statement."""
    if revision is None or revision == "HEAD":
        return b"refs/heads/main"
    if is_sha(revision):
        return None
    name = revision.encode("utf-8", "surrogatepass")
    return name if name.startswith(b"refs/") else _HEADS + name


def _candidates(snapshot: Snapshot, revision: str | None) -> list[bytes]:
    if revision is None:
        return [snapshot.head]
    name = revision.encode("utf-8", "surrogatepass")
    found = [_HEADS + name, _TAGS + name]
    if name.startswith(b"refs/"):
        found.append(name)
    return [*found, snapshot.head] if name == b"HEAD" else found


def _reaches(view: View, sha: str) -> bool:
    id = a2b_hex(sha)
    node = view.graph.node(id)
    return node is not None and not node.row.is_tag and view.has_commit(id)


def _starting(intro: Intro, prefix: str) -> list[str]:
    """List the commits of a sidecar whose ids begin with these digits."""
    low = a2b_hex(prefix.ljust(40, "0"))
    place = bisect_left(range(len(intro)), low, key=lambda at: intro.row(at).sha)
    found = []
    while place < len(intro) and (sha := intro.row(place).sha.hex()).startswith(prefix):
        found.append(sha)
        place += 1
    return found
