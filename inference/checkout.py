"""A commit's files in a folder named by its sha, whole or not there at all.

    CHECKOUTS/<sha>/…                       every wanted file, 0444, and `.weightroom.json` that lists them
    CHECKOUTS/building/<sha>/tree/…         files proven so far; renamed to CHECKOUTS/<sha> when all are there
    CHECKOUTS/building/<sha>/parts/<n>      bytes on their way; a later attempt goes on after them
    CHECKOUTS/building/<sha>.lock           one builder at a time, also across processes

A crash at any step leaves parts of `building/` behind, which the next attempt uses, and nothing under the final name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from inference.download import Entry, Registry, Resolved, disk
from inference.errors import ModelRefused, Overloaded, Unavailable
from inference.kept import MANIFEST, Kept
from inference.names import check_path, folded, parse

WANTED = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")
PICKLES = ("pytorch_model*.bin",)


@dataclass(slots=True)
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0


class Checkouts:
    """Checkouts in one folder, from one registry; thread-safe, and safe beside other processes on that folder."""

    def __init__(
        self,
        folder: Path,
        registry_url: str,
        token: str | None = None,
        shared_store: Path | None = None,
        *,
        allow_pickle: frozenset[str] = frozenset(),
        limit: int = 100 * 2**30,
    ):
        """Make the folder.

        token: read token for what the sidecar does on its own account.
        shared_store: the `objects` folder of a registry on this machine; LFS files there are hard-linked.
        limit: bytes that checkouts may take together; the least recently used go first, those in use never.
        """
        self._folder = folder.absolute()
        self._building = self._folder / "building"
        self._building.mkdir(parents=True, exist_ok=True)
        self._registry = Registry(registry_url)
        self._token = token
        self._shelf = None if shared_store is None else shared_store.absolute() / "lfs"
        self._allow_pickle = allow_pickle
        self._kept = Kept(self._folder, self._building, limit)
        self._lock = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    def close(self) -> None:
        """Close connections to the registry; what is checked out stays."""
        self._registry.close()
        self._kept.close()

    def resolve(self, name: str, token: str | None = None) -> Resolved:
        """Ask the registry which commit a name means for the owner of `token`; None asks as nobody.

        Raises: ModelAbsent, Unavailable (`registry_unavailable`).
        """
        return self._registry.resolve(parse(name), token)

    def own_token(self) -> str | None:
        """Give the sidecar's own read token, for questions nobody asked."""
        return self._token

    def pin(self, repo: str, sha: str, token: str | None = None) -> Path:
        """Check a commit out, or find it; return its folder, which stays until `release`.

        Repeatable, and one builder at a time per commit. A folder that lost files since is built again.
        Raises: ModelAbsent, ModelRefused (a path that is unsafe to create), Overloaded (disk), Unavailable.
        """
        with self._turn(sha), disk():
            # Somebody may have emptied the folder while this process runs.
            self._building.mkdir(parents=True, exist_ok=True)
            with _lock_file(self._building / f"{sha}.lock"):
                done = self._kept.hold(sha)
                if done is not None:
                    return done
                self._build(repo, sha, token if token is not None else self._token)
                done = self._kept.hold(sha)
                if done is None:
                    raise Unavailable(f"the checkout of {repo}@{sha} was removed at once; ask again", retry_after=2)
                self._kept.trim()
                return done

    def release(self, sha: str) -> None:
        """Say that what one `pin` gave is not used any more; it may be removed when its bytes are needed."""
        self._kept.release(sha)

    def _build(self, repo: str, sha: str, token: str | None) -> None:
        here = self._building / sha
        tree, parts = here / "tree", here / "parts"
        entries = _wanted(self._registry.files(repo, sha, token), f"{repo}@{sha}" in self._allow_pickle)
        tree.mkdir(parents=True, exist_ok=True)
        parts.mkdir(exist_ok=True)
        self._check_space([entry for entry in entries if not self._is_there(tree / entry.path, entry)])
        for entry in entries:
            target = tree / entry.path
            if not self._is_there(target, entry):
                _make_folders(tree, entry.path)
                self._bring(repo, sha, entry, parts / _part_name(entry), target, token)
        _write_manifest(tree, repo, sha, entries)
        os.rename(tree, self._folder / sha)
        _sync_folder(self._folder)
        shutil.rmtree(here, ignore_errors=True)

    def _bring(self, repo: str, sha: str, entry: Entry, part: Path, target: Path, token: str | None) -> None:
        """Put one proven file in its place: by link from the shared shelf if it is there, else by download."""
        if self._link(entry, target):
            return
        self._registry.fetch(repo, sha, entry, part, token)
        os.chmod(part, 0o444)
        os.rename(part, target)

    def _link(self, entry: Entry, target: Path) -> bool:
        """Link from the shelf. Its files are read-only and named by what they hash to, so only the size is checked."""
        source = self._on_shelf(entry)
        if source is None:
            return False
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            # Another file system, a full inode, or a shelf that forbids links: the download still works.
            return False
        return True

    def _on_shelf(self, entry: Entry) -> Path | None:
        if self._shelf is None or entry.sha256 is None:
            return None
        source = self._shelf / entry.sha256[:2] / entry.sha256[2:4] / entry.sha256
        is_whole = source.is_file() and not source.is_symlink() and source.stat().st_size == entry.size
        return source if is_whole else None

    def _is_there(self, path: Path, entry: Entry) -> bool:
        """Say whether an earlier attempt put this file here; it was proven before it got its name."""
        return path.is_file() and not path.is_symlink() and path.stat().st_size == entry.size

    def _check_space(self, entries: list[Entry]) -> None:
        needed = sum(entry.size for entry in entries if self._on_shelf(entry) is None)
        self._kept.trim(needed - shutil.disk_usage(self._building).free)
        free = shutil.disk_usage(self._building).free
        if needed > free:
            raise Overloaded(
                f"the checkout needs {needed} bytes and {self._folder} has {free} free",
                code="model_capacity",
                retry_after=60,
            )

    @contextmanager
    def _turn(self, sha: str) -> Iterator[None]:
        """Wait for this process's other threads that want the same commit."""
        with self._lock:
            turn = self._turns.setdefault(sha, _Turn())
            turn.waiting += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.waiting -= 1
                if not turn.waiting:
                    self._turns.pop(sha, None)


def _wanted(entries: list[Entry], is_pickle_allowed: bool) -> list[Entry]:
    """Choose the files that loading reads, by an allow-list; refuse paths that two file systems would see apart.

    Files that begin with a dot are never wanted: the manifest's name stays ours.
    """
    patterns = WANTED + (PICKLES if is_pickle_allowed else ())
    chosen = []
    for entry in entries:
        is_hidden = any(part.startswith(".") and part not in (".", "..") for part in entry.path.split("/"))
        if not is_hidden and any(fnmatchcase(entry.path.rsplit("/", 1)[-1], pattern) for pattern in patterns):
            check_path(entry.path)
            chosen.append(entry)
    if len({folded(entry.path) for entry in chosen}) != len(chosen):
        raise ModelRefused("the revision has two paths that are one on some file systems")
    return chosen


def _part_name(entry: Entry) -> str:
    return hashlib.sha256(f"{entry.oid} {entry.path}".encode()).hexdigest()


def _make_folders(tree: Path, path: str) -> None:
    """Make the folders of a path one by one; each must be a real folder."""
    here = tree
    for part in path.split("/")[:-1]:
        here = here / part
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            raise ModelRefused(f"the revision has {part!r} both as a file and as a folder")
        here.mkdir(exist_ok=True)


def _write_manifest(tree: Path, repo: str, sha: str, entries: list[Entry]) -> None:
    files = [{"path": entry.path, "oid": entry.oid, "size": entry.size} for entry in entries]
    text = json.dumps({"repo": repo, "sha": sha, "files": files}, indent=1).encode()
    for folder in {(tree / entry.path).parent for entry in entries}:
        for here in (folder, *folder.parents):
            _sync_folder(here)
            if here == tree:
                break
    path = tree / MANIFEST
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
    with open(fd, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    _sync_folder(tree)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel drops when the process dies."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
