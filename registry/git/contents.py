"""What the objects of a pushed pack say, gathered as each becomes known: rules, facts, references, pointers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lfs import pointer
from registry.git import fsck
from registry.git.filenames import Finding, Severity, Special, all_plain, check_name
from registry.git.forest import Forest, is_file
from registry.git.fsck import COMMIT_MODE, LINK_MODE, TREE_MODE, CommitFacts, Entry, TagFacts
from registry.git.intro import PointerRow
from registry.git.packfile import BLOB, COMMIT, KINDS, TAG, TREE

TOLD = 10 << 20
"""Files from this size on are named to their pusher."""
_MOST_FINDINGS = 50
_PLAIN_MODES = frozenset({b"100644", b"100755", TREE_MODE})
_NULL = bytes(20)
_UNFORGIVABLE = frozenset(
    f"{family}{rule}"
    for family, rules in {
        "has": ("Dot", "Dotdot", "Dotgit"),
        "gitmodules": ("Symlink", "Name", "Url", "Path", "Update"),
        "": ("badTree", "emptyName", "fullPathname", "nulInName", "backslashInName"),
    }.items()
    for rule in rules
)


@dataclass(slots=True)
class Judgement:
    """Findings so far, by what they lead to; each kind stops growing at a bound."""

    portable: str
    allow: frozenset[str]
    refused: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def hear(self, where: str, findings: Iterable[Finding]) -> None:
        """Sort findings of one object into refusals and warnings."""
        for one in findings:
            refused = one.severity is Severity.REFUSE
            if one.severity is Severity.PORTABLE:
                if self.portable == "off":
                    continue
                refused = self.portable == "refuse"
            forgiven = one.id in self.allow and one.id not in _UNFORGIVABLE
            into = self.refused if refused and not forgiven else self.told
            if len(into) < _MOST_FINDINGS:
                into.append(f"{where}: {one.id}: {one.text}")


@dataclass(slots=True)
class Contents:
    """A sink for objects. `most_ids` bounds distinct references: no more objects than that can be present.

    Blobs above `told` bytes are noted in `big`.
    """

    forest: Forest
    judgement: Judgement
    most_ids: int
    told: int = TOLD
    commits: dict[bytes, CommitFacts] = field(default_factory=dict)
    tags: dict[bytes, TagFacts] = field(default_factory=dict)
    pointers: dict[bytes, PointerRow] = field(default_factory=dict)
    big: dict[bytes, int] = field(default_factory=dict)
    trees_named: set[bytes] = field(default_factory=set)
    blobs_named: set[bytes] = field(default_factory=set)
    special: dict[bytes, set[Special]] = field(default_factory=dict)
    links: set[bytes] = field(default_factory=set)

    def take(self, kind: int, sha: bytes, content: bytes) -> None:
        """Judge an object and keep what it says."""
        if kind == BLOB:
            self._blob(sha, content)
        elif kind == TREE:
            self._tree(sha, content)
        elif kind == COMMIT:
            commit, found = fsck.read_commit(content)
            if commit:
                self.commits[sha] = commit
            if found:
                self._hear(kind, sha, found)
        elif kind == TAG:
            tag, found = fsck.read_tag(content)
            if tag:
                self.tags[sha] = tag
            if found:
                self._hear(kind, sha, found)

    def passed(self, sha: bytes, size: int) -> None:
        """Note a blob that went by in pieces."""
        if size > self.told:
            self.big[sha] = size

    def overflows(self) -> bool:
        """True if trees name more objects than pack and manifest hold together."""
        return len(self.trees_named) + len(self.blobs_named) > self.most_ids

    def _hear(self, kind: int, sha: bytes, found: Iterable[Finding]) -> None:
        self.judgement.hear(f"{KINDS[kind].decode()} {sha.hex()}", found)

    def _blob(self, sha: bytes, content: bytes) -> None:
        if len(content) > self.told:
            self.big[sha] = len(content)
        if len(content) <= pointer.MAX_BYTES:
            found = pointer.parse(content)
            if found is not None:
                self.pointers[sha] = PointerRow(sha, bytes.fromhex(found.oid), found.size)

    def _tree(self, sha: bytes, content: bytes) -> None:
        entries = fsck.parse_tree(content)
        if entries is None:
            self._hear(TREE, sha, fsck.check_tree(content))
            return
        found = fsck.check_shape(entries)
        if found:
            self._hear(TREE, sha, found)
        fresh = self.forest.add(sha, content, entries)
        # Past the bound something is missing for certain; counting on would only take memory.
        if self.overflows():
            return
        if all_plain([name for _, name, _ in fresh]) and _PLAIN_MODES.issuperset([mode for mode, _, _ in fresh]):
            self.trees_named.update([one for mode, _, one in fresh if mode == TREE_MODE])
            self.blobs_named.update([one for mode, _, one in fresh if mode != TREE_MODE])
            if _NULL not in self.trees_named and _NULL not in self.blobs_named:
                return
        for entry in fresh:
            self._entry(sha, entry)

    def _entry(self, tree: bytes, entry: Entry) -> None:
        mode, name, sha = entry
        verdict = check_name(name)
        if verdict.findings or verdict.special or mode not in _PLAIN_MODES or sha == _NULL:
            self._odd_entry(tree, entry, verdict.special)
        if mode == TREE_MODE:
            self.trees_named.add(sha)
        elif mode != COMMIT_MODE:
            self.blobs_named.add(sha)

    def _odd_entry(self, tree: bytes, entry: Entry, special: Special | None) -> None:
        """Judge an entry that has something to be judged."""
        mode, _, sha = entry
        self._hear(TREE, tree, fsck.check_entry(entry))
        if mode == LINK_MODE:
            self.links.add(sha)
        elif special and is_file(mode):
            self.special.setdefault(sha, set()).add(special)
