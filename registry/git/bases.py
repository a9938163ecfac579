"""The pinned manifest as a check of a push sees it: packs and sidecars read in place, ids raw.

What lies here was checked when it came; damage still raises instead of misleading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lfs.recent import Recent
from registry.errors import Damaged
from registry.git.intro import CommitRow, Intro, PointerRow, TreeStats
from registry.git.packfile import PackFile, apply
from registry.git.verdict import PackPaths, PackRefused

_FEW = 1024
_MEMORY = 16 << 20


@dataclass(frozen=True, slots=True)
class BasePack:
    """One pack of the manifest, opened."""

    file: PackFile
    intro: Intro | None


class Bases:
    """Objects and commit rows of several packs; not for use by two threads at once."""

    def __init__(self, packs: Sequence[BasePack]) -> None:
        self.packs = tuple(packs)
        self.count = sum(pack.file.count for pack in packs)
        self._intros = [pack.intro for pack in packs if pack.intro is not None]
        self._recent: Recent[tuple[int, int], tuple[int, bytes]] = Recent(_MEMORY)

    @classmethod
    def open(cls, paths: Iterable[PackPaths]) -> Self:
        """Map the files of a manifest; their digests were checked when they were fetched.

        Raises: Damaged, OSError.
        """
        return cls([_open(one) for one in paths])

    def with_pack(self, file: PackFile) -> Bases:
        """Look into one more pack, first."""
        return Bases([BasePack(file, None), *self.packs])

    def find(self, sha: bytes) -> tuple[PackFile, int] | None:
        """Locate an object."""
        for pack in self.packs:
            offset = pack.file.find(sha)
            if offset is not None:
                return pack.file, offset
        return None

    def kind(self, sha: bytes) -> int | None:
        """Tell the type number of an object; None if it is absent."""
        found = self.find(sha)
        return None if found is None else found[0].kind_at(found[1])

    def size(self, sha: bytes) -> int | None:
        """Tell the size of an object; None if it is absent."""
        found = self.find(sha)
        return None if found is None else found[0].size_at(found[1])

    def read(self, sha: bytes, most: int) -> tuple[int, bytes] | None:
        """Read type number and content; None if it is absent.

        Raises: PackRefused (larger than `most` bytes), Damaged.
        """
        found = self.find(sha)
        if found is None:
            return None
        file, offset = found
        if file.size_at(offset) > most:
            raise PackRefused(f"object {sha.hex()} is above {most} bytes and cannot serve here")
        return self.read_at(file, offset)

    def read_at(self, file: PackFile, at: int) -> tuple[int, bytes]:
        """Read the object at a place, applying its deltas.

        Raises: Damaged.
        """
        key, chain = id(file), []
        while (found := self._recent.get((key, at))) is None:
            entry = file.header(at)
            chain.append((at, entry))
            if entry.base is None:
                break
            at = file.base_of(entry)
        kind, content = found or (entry.kind, b"")
        for at, entry in reversed(chain):
            delta = file.inflate(entry)
            content = delta if entry.base is None else apply(content, delta)
            self._recent.keep((key, at), (kind, content), len(content) + 200)
        return kind, content

    def among(self, shas: Sequence[bytes]) -> Iterator[bytes]:
        """Yield those of the ids that the manifest holds; many ids cost one pass over each index."""
        if len(shas) <= _FEW:
            yield from (sha for sha in shas if self.find(sha) is not None)
            return
        wanted = set(shas)
        for pack in self.packs:
            found = wanted.intersection(map(pack.file.id_at, range(pack.file.count)))
            wanted -= found
            yield from found

    def row(self, sha: bytes) -> tuple[CommitRow, tuple[bytes, ...]] | None:
        """Find a commit or tag and its parents in the sidecars."""
        for intro in self._intros:
            row = intro.commit(sha)
            if row is not None:
                return row, intro.parents(row)
        return None

    def tree_stats(self, sha: bytes) -> TreeStats:
        """Tell the shape of a tree that the manifest holds.

        Raises: Damaged (no sidecar knows it).
        """
        for intro in self._intros:
            stats = intro.tree_stats(sha)
            if stats is not None:
                return stats
        raise Damaged(f"no introduced sidecar knows the tree {sha.hex()}; run `weightroom fsck --repair`")

    def pointer(self, blob: bytes) -> PointerRow | None:
        """Read the LFS pointer that a blob of the manifest is."""
        for intro in self._intros:
            found = intro.pointer(blob)
            if found is not None:
                return found
        return None


def _open(paths: PackPaths) -> BasePack:
    file = PackFile(paths.pack, Path(paths.pack), Path(paths.idx))
    return BasePack(file, Intro.open(paths.intro, verify=False))
