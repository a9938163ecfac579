"""Several packs rolled into one: every object once, bodies copied as they lie, index and sidecar merged.

Pure over paths, so it runs in a worker process. Nothing is deltified; a delta is inflated only where its base cannot
come before it. What is not obvious is which copy of an object stays, for thin packs were completed with whole copies
of what older packs hold:

    the largest pack         goes in as it is
    the others, oldest first give what is not there yet; so an old delta stays and the later whole copy goes
    deltas upon deltas       end at 50: an object deeper than that waits for a later copy, which mostly is a whole one
"""

from __future__ import annotations

import hashlib
import os
import zlib
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lfs.recent import Recent
from registry.errors import Damaged
from registry.git import intro, packing
from registry.git.emit import Share, Writer
from registry.git.intro import Intro, NewRow
from registry.git.objects import Manifest, OpenPack
from registry.git.packfile import PackFile
from registry.git.plan import nothing_had
from registry.git.verdict import PackFacts, Written

DEEPEST = 50
"""Deltas upon deltas, as git's own `pack.depth`: a read applies them all."""
_MEMORY = 32 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """One pack to roll up: the SHA-256 of its file, and its local files."""

    id: str
    pack: str
    idx: str
    intro: str


def repack(sources: Sequence[Source], target: str) -> PackFacts:
    """Write one pack with every object of `sources`, the newest first, to `target`; index and sidecar beside it.

    Source files are hashed first: rot must not come out under a new, true name. What makes the files durable is the
    store. Equal sources make equal bytes.
    Raises: Damaged, OSError.
    """
    with ExitStack() as held:
        opened = [OpenPack(_file(one), held.enter_context(Intro.open(one.intro))) for one in sources]
        shares = Choice([pack.file for pack in opened]).shares()
        writer = Writer(Manifest(opened, Recent(_MEMORY), Recent(0)), ofs=True, had=nothing_had)
        path = Path(target)
        sealed = _write_pack(path, writer, shares)
        placed = list(writer.places())
        idx = _write(path.with_suffix(".idx"), _index(path, placed, sealed))
        merged = merge([pack.intro for pack in opened])
        with Intro(merged, verify=False) as rows:
            commits = sum(not row.is_tag for row in rows)
        sidecar = _write(path.with_suffix(".intro"), merged)
    return PackFacts(target, sealed.sha256, sealed.sha1.hex(), sealed.bytes, len(placed), commits, idx, sidecar)


def _file(source: Source) -> PackFile:
    path = Path(source.pack)
    if packing.digest(path).sha256 != source.id:
        raise Damaged(f"pack {source.id} does not have the bytes of its name")
    return PackFile(source.id, path, Path(source.idx))


class Choice:
    """Chooses which pack gives which object; `files` are given newest first."""

    def __init__(self, files: Sequence[PackFile]) -> None:
        oldest_first = files[::-1]
        self._largest = max(oldest_first, key=lambda file: file.size)
        self._others = [file for file in oldest_first if file is not self._largest]
        self._places: dict[bytes, tuple[PackFile, int]] = {}
        self._depths: dict[tuple[str, int], int] = {}

    def shares(self) -> list[Share]:
        """Give what each pack gives, in the order in which they must be written."""
        made = [Share(self._largest, self._largest.offsets())]
        for at, file in enumerate(self._others, 1):
            fresh = [(id, offset) for id, offset in file.objects() if self._place(id) is None]
            self._places |= {id: (file, offset) for id, offset in fresh}
            for id, offset in fresh:
                if self._depth(file, offset) > DEEPEST and any(later.find(id) for later in self._others[at:]):
                    del self._places[id]
            offsets = (offset for id, offset in fresh if id in self._places)
            made.append(Share(file, array("Q", sorted(offsets))))
        return [share for share in made if share.offsets]

    def _place(self, id: bytes) -> tuple[PackFile, int] | None:
        offset = self._largest.find(id)
        return self._places.get(id) if offset is None else (self._largest, offset)

    def _depth(self, file: PackFile, offset: int) -> int:
        """Count the deltas from an object down to a whole one, through the copies that were chosen."""
        chain = []
        place: tuple[PackFile, int] | None = (file, offset)
        depth = 0
        while place is not None:
            at, entry = place, place[0].header(place[1])
            known = self._depths.get((at[0].name, at[1]))
            if known is not None or entry.base is None:
                depth = known or 0
                break
            chain.append(at)
            # A base that waits for a later pack comes too late for this delta, which is then written whole.
            place = self._place(at[0].id_of(at[0].base_of(entry)))
        for one in reversed(chain):
            depth += 1
            self._depths[one[0].name, one[1]] = depth
        return depth


def _write_pack(path: Path, writer: Writer, shares: Sequence[Share]) -> packing.Sealed:
    sha1, sha256 = hashlib.sha1(), hashlib.sha256()
    with path.open("xb") as file:
        for piece in writer.pack(shares):
            sha1.update(piece)
            sha256.update(piece)
            file.write(piece)
        sha256.update(sha1.digest())
        file.write(sha1.digest())
        size = file.tell()
    return packing.Sealed(sha256.hexdigest(), sha1.digest(), size)


def _index(path: Path, placed: Sequence[tuple[bytes, int]], sealed: packing.Sealed) -> bytes:
    """Make the index; the checksums of entries are taken from the file as it was written."""
    crcs = []
    ends = [*(offset for _, offset in placed[1:]), sealed.bytes - len(sealed.sha1)]
    with path.open("rb") as file:
        at = file.seek(placed[0][1] if placed else 0, os.SEEK_SET)
        for end in ends if placed else ():
            crc = 0
            while at < end:
                piece = file.read(min(packing.BLOCK, end - at))
                crc, at = zlib.crc32(piece, crc), at + len(piece)
            crcs.append(crc)
    return packing.index([id for id, _ in placed], [offset for _, offset in placed], crcs, sealed.sha1)


def merge(sidecars: Iterable[Intro]) -> bytes:
    """Make the sidecar of a pack that holds all objects of other packs.

    Rows follow from the content of their commit alone, so that of a commit in several packs is the same in each.
    Raises: IntroError.
    """
    rows: dict[bytes, NewRow] = {}
    trees: dict[bytes, intro.TreeStats] = {}
    pointers: dict[bytes, intro.PointerRow] = {}
    for one in sidecars:
        for row in one:
            if row.sha not in rows:
                parents, entries = one.parents(row), one.entries(row)
                rows[row.sha] = NewRow(row.sha, row.tree, row.time, row.generation, parents, entries, row.flags)
        trees |= one.trees()
        pointers |= {pointer.blob: pointer for pointer in one.pointers()}
    return intro.encode(rows.values(), trees.items(), pointers.values())


def _write(path: Path, data: bytes) -> Written:
    path.write_bytes(data)
    return Written(str(path), hashlib.sha256(data).hexdigest(), len(data))
