"""Real git repositories turned into stored packs, for tests that read through the git shelves."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from binascii import a2b_hex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dulwich.objects import Commit, Tag, Tree
from dulwich.repo import Repo

from lfs.local import LocalStore
from registry.git import intro
from registry.git.cache import PackCache
from registry.git.intro import NewRow, TreeStats
from registry.git.objects import ManifestStore
from registry.git.snapshot import PackRow, Ref, Snapshot, pack_key, tips_digest

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
    "LC_ALL": "C",
}


def git(
    folder: Path, *arguments: str, input: bytes | None = None, check: bool = True, more: Mapping[str, str] | None = None
) -> bytes:
    """Run git in a folder with a clean environment, and `more` of one, and give its output."""
    environment = ENVIRONMENT | dict(more or {})
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, input=input, capture_output=True)
    if check and done.returncode:
        raise AssertionError(f"git {arguments}: {done.stderr.decode()}")
    return done.stdout if check else done.stdout + done.stderr


def new_repo(folder: Path) -> Path:
    """Make an empty bare repository."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "--bare", "-b", "main", ".")
    return folder


def grow(folder: Path, commits: int, *, seed: int = 1, files: int = 30, since: int = 1_700_000_000) -> list[str]:
    """Add a random history with merges, moves back to old content and folders; give its commits, oldest first."""
    chance = random.Random(seed)
    marks: dict[str, int] = {}
    lines: list[bytes] = []
    for number in range(1, commits + 1):
        branch = chance.choice(["main", "main", "main", "side"]) if number > 1 else "main"
        stamp = f"Ada <ada@example.org> {since + number * 60} +0000"
        text = f"commit {number}"
        lines.append(
            f"commit refs/heads/{branch}\nmark :{number}\ncommitter {stamp}\ndata {len(text)}\n{text}".encode()
        )
        parent = marks.get(branch, marks.get("main"))
        if parent:
            lines.append(f"from :{parent}".encode())
            other = marks.get("side" if branch == "main" else "main")
            if other and other != parent and chance.random() < 0.3:
                lines.append(f"merge :{other}".encode())
        for _ in range(chance.randint(1, 4)):
            path = f"d{chance.randint(0, 3)}/e{chance.randint(0, 2)}/f{chance.randint(0, files)}"
            if chance.random() < 0.1:
                path = f"top{chance.randint(0, 5)}"
            body = "".join(f"line {i} {chance.randint(0, 3)}\n" for i in range(chance.randint(1, 60)))
            lines.append(f"M 644 inline {path}\ndata {len(body)}\n{body}".encode())
        marks[branch] = number
    stream = b"\n".join(lines) + b"\ndone\n"
    git(folder, "fast-import", "--quiet", "--done", "--force", "--export-marks=marks", input=stream)
    table = dict(line.split() for line in (folder / "marks").read_text().splitlines())
    return [table[f":{number}"] for number in range(1, commits + 1)]


@dataclass
class Depot:
    """A store of packs and the readers over it."""

    folder: Path
    rows: list[PackRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = LocalStore(self.folder / "objects", fsync=False, min_free=0)
        self.cache = PackCache(self.store, self.folder / "cache", 1 << 30)
        self.manifests = ManifestStore(self.cache)

    def add(self, source: Path, wants: Iterable[str] = (), haves: Iterable[str] = ()) -> PackRow:
        """Store one more pack: what `wants` reach and `haves` do not; all there is if nothing is named."""
        named = list(wants) or git(source, "for-each-ref", "--format=%(objectname)").decode().split()
        revs = "\n".join([*named, *(f"^{sha}" for sha in haves)])
        pack = git(
            source, "pack-objects", "--revs", "--stdout", "-q", "--delta-base-offset", input=revs.encode() + b"\n"
        )
        return self.store_pack(source, pack)

    def store_pack(self, source: Path, pack: bytes) -> PackRow:
        """Index a pack whose objects `source` has and store it with its sidecar."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        (scratch / "one.pack").write_bytes(pack)
        git(scratch, "index-pack", "one.pack")
        listing = git(scratch, "show-index", input=(scratch / "one.idx").read_bytes())
        members = [line.split()[1].decode() for line in listing.splitlines()]
        sidecar, commits = encode_intro(source, members)
        oids = [self._put(data) for data in (pack, (scratch / "one.idx").read_bytes(), sidecar)]
        sizes = [len(pack), (scratch / "one.idx").stat().st_size, len(sidecar)]
        row = PackRow(oids[0], sizes[0], len(members), commits, oids[1], sizes[1], oids[2], sizes[2])
        self.rows.insert(0, row)
        return row

    def _put(self, data: bytes) -> str:
        oid = hashlib.sha256(data).hexdigest()
        self.store.put(pack_key(oid), data, len(data), oid)
        return oid

    def snapshot(self, source: Path, *, version: int = 1, exact: bool = False, repo_id: int = 1) -> Snapshot:
        """Read the refs of a repository as a snapshot over all packs stored so far."""
        refs = read_refs(source)
        head = git(source, "symbolic-ref", "HEAD").strip()
        return Snapshot(
            repo_id, head, refs, version, version, 0, tips_digest(refs) if exact else None, tuple(self.rows)
        )


def read_refs(source: Path) -> Mapping[bytes, Ref]:
    """Read all refs, peeled tags included."""
    text = git(source, "for-each-ref", "--format=%(objectname) %(*objectname) %(refname)")
    refs = {}
    for line in text.splitlines():
        target, peeled, name = line.split(b" ")
        if peeled:
            peeled = git(source, "rev-parse", f"{target.decode()}^{{}}").strip()
        refs[name] = Ref(name, target.decode(), peeled.decode() or None)
    return dict(sorted(refs.items()))


def encode_intro(source: Path, members: Sequence[str]) -> tuple[bytes, int]:
    """Write a sidecar by brute force: list every path of every commit and compare it with the parents."""
    repo = Repo(str(source))
    generations: dict[bytes, int] = {}
    rows = []
    for sha in members:
        thing = repo[sha.encode()]
        if isinstance(thing, Commit):
            rows.append(_commit_row(repo, thing, generations))
        elif isinstance(thing, Tag):
            rows.append(_tag_row(repo, thing, generations))
    trees = [(a2b_hex(sha), TreeStats(1, 1)) for sha in members if isinstance(repo[sha.encode()], Tree)]
    repo.close()
    return intro.encode(rows, trees, ()), len(rows)


def _commit_row(repo: Repo, commit: Commit, generations: dict[bytes, int]) -> NewRow:
    mine = _paths(repo, commit.tree)
    theirs = [_paths(repo, repo[parent].tree) for parent in commit.parents]
    fresh = {
        id: is_tree
        for path, (id, is_tree) in mine.items()
        if all(other.get(path, (b"", 0))[0] != id for other in theirs)
    }
    entries = [
        a2b_hex(commit.id),
        *(i for i, tree in fresh.items() if tree),
        *(i for i, tree in fresh.items() if not tree),
    ]
    parents = tuple(a2b_hex(parent) for parent in commit.parents)
    generation = _generation(repo, commit.id, generations)
    return NewRow(a2b_hex(commit.id), a2b_hex(commit.tree), commit.commit_time, generation, parents, b"".join(entries))


def _tag_row(repo: Repo, tag: Tag, generations: dict[bytes, int]) -> NewRow:
    target = tag.object[1]
    entries = [a2b_hex(tag.id)]
    kind = repo[target].type_name
    if kind == b"tree":
        entries += [id for id, _ in _paths(repo, target).values()]
    elif kind == b"blob":
        entries.append(a2b_hex(target))
    parents = (a2b_hex(target),) if kind in (b"commit", b"tag") else ()
    generation = _generation(repo, tag.id, generations)
    return NewRow(
        a2b_hex(tag.id), a2b_hex(target), tag.tag_time or 0, generation, parents, b"".join(entries), intro.TAG
    )


def _paths(repo: Repo, tree: bytes, prefix: bytes = b"") -> dict[bytes, tuple[bytes, bool]]:
    found = {prefix: (a2b_hex(tree), True)}
    for name, mode, sha in repo[tree].iteritems():
        if mode == 0o40000:
            found |= _paths(repo, sha, prefix + b"/" + name)
        elif mode != 0o160000:
            found[prefix + b"/" + name] = a2b_hex(sha), False
    return found


def _generation(repo: Repo, sha: bytes, known: dict[bytes, int]) -> int:
    todo = [sha]
    while todo:
        thing = repo[todo[-1]]
        parents = thing.parents if isinstance(thing, Commit) else [thing.object[1]] if isinstance(thing, Tag) else []
        missing = [parent for parent in parents if parent not in known]
        todo += missing
        if not missing:
            known[todo.pop()] = 1 + max((known[parent] for parent in parents), default=0) if _counts(thing) else 0
    return known[sha]


def _counts(thing: object) -> bool:
    return isinstance(thing, Commit | Tag)
