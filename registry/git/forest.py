"""Trees of a push and of the manifest below it: parsed once if memory lasts, their shapes always known.

Equal entries are one object in memory, since versions of a folder repeat most of their entries.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from registry.errors import Damaged
from registry.git import fsck
from registry.git.fsck import COMMIT_MODE, TREE_MODE, Entry
from registry.git.intro import MOST_FILES, TreeStats

Read = Callable[[bytes], bytes | None]
Known = Callable[[bytes], TreeStats]

_PARSED_ENTRIES = 600_000
_SHARED_ENTRIES = 600_000
_RAW_BYTES = 64 << 20
_MOST_LEVELS = 65_535


class Forest:
    """Parsed trees by raw id, under a budget; beyond it they are read again.

    `read` gives the content of a tree that is not in memory, `known` the shape of one that the manifest holds.
    """

    def __init__(self, read: Read, known: Known) -> None:
        self._read, self._known = read, known
        self._parsed: OrderedDict[bytes, frozenset[Entry]] = OrderedDict()
        self._parsed_entries = self._raw_bytes = 0
        self._raw: dict[bytes, bytes] = {}
        self._shared: dict[Entry, Entry] = {}
        self._below: dict[bytes, tuple[int, tuple[bytes, ...]]] = {}
        self._stats: dict[bytes, TreeStats] = {}
        self._all: list[tuple[bytes, TreeStats]] = []

    def add(self, sha: bytes, content: bytes, entries: list[Entry]) -> list[Entry]:
        """Take a tree of the push; give those of its entries that no tree had before."""
        shared = self._shared
        if len(shared) > _SHARED_ENTRIES:
            shared.clear()
        fresh = [one for one in entries if one not in shared]
        shared.update(zip(fresh, fresh, strict=True))
        kept = frozenset(map(shared.__getitem__, entries))
        folders = tuple([one[2] for one in kept if one[0] == TREE_MODE])
        self._below[sha] = len(entries) - len(folders), folders
        if not folders:
            self._stats[sha] = TreeStats(len(entries), 1)
        if self._raw_bytes + len(content) <= _RAW_BYTES:
            self._raw_bytes += len(content)
            self._raw[sha] = content
        self._keep(sha, kept)
        return fresh

    def __contains__(self, sha: bytes) -> bool:
        """True for a tree of the push."""
        return sha in self._below

    def entries(self, sha: bytes) -> frozenset[Entry]:
        """Give the entries of a tree.

        Raises: Damaged (absent or unreadable).
        """
        found = self._parsed.get(sha)
        if found is not None:
            self._parsed.move_to_end(sha)
            return found
        content = self._raw.get(sha) or self._read(sha)
        entries = None if content is None else fsck.parse_tree(content)
        if entries is None:
            raise Damaged(f"tree {sha.hex()} cannot be read")
        return self._keep(sha, frozenset(self._shared.get(one, one) for one in entries))

    def stats(self, sha: bytes) -> TreeStats:
        """Tell the shape of a tree; those of a bomb are saturated, not walked.

        Raises: Damaged (no sidecar knows a tree of the manifest).
        """
        waiting = [] if sha in self._stats else [sha]
        while waiting:
            one = waiting[-1]
            if one in self._stats:
                waiting.pop()
            elif one not in self._below:
                self._stats[one] = self._known(one)
            else:
                files, folders = self._below[one]
                missing = [folder for folder in folders if folder not in self._stats]
                waiting += missing
                if not missing:
                    self._stats[one] = self._sum(files, folders)
        return self._stats[sha]

    def _sum(self, files: int, folders: tuple[bytes, ...]) -> TreeStats:
        total, depth = files, 0
        for folder in folders:
            below = self._stats[folder]
            total += below.files
            depth = max(depth, below.depth)
        return TreeStats(min(total, MOST_FILES), min(depth + 1, _MOST_LEVELS))

    def all_stats(self) -> list[tuple[bytes, TreeStats]]:
        """Tell the shapes of all trees of the push."""
        if len(self._all) != len(self._below):
            self._all = [(sha, self.stats(sha)) for sha in self._below]
        return self._all

    def _keep(self, sha: bytes, entries: frozenset[Entry]) -> frozenset[Entry]:
        if sha not in self._parsed:
            self._parsed[sha] = entries
            self._parsed_entries += len(entries)
        while self._parsed_entries > _PARSED_ENTRIES and len(self._parsed) > 1:
            self._parsed_entries -= len(self._parsed.popitem(last=False)[1])
        return entries


def is_file(mode: bytes) -> bool:
    """True for entries whose object is a blob of this repo."""
    return mode not in (TREE_MODE, COMMIT_MODE)
