"""A plan → the bytes of one pack, copied compressed from the packs where the objects lie.

Nothing is deltified and little is inflated: an entry keeps its compressed bytes, and only its header changes when its
base lies at another distance (OFS_DELTA), came from another pack or is the client's own (REF_DELTA). An object whose
base is not at hand is sent whole. A base in another pack is used only if that pack is emitted before: two packs may
each hold the other's object as a delta, and following both would send a circle.
Source: gitformat-pack.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from registry.git.objects import Manifest
from registry.git.packfile import OFS_DELTA, REF_DELTA, TRAILER, Entry, PackFile
from registry.git.pkt import BLOCK, Buffer
from registry.git.plan import Plan

_HEADER = 12


@dataclass(frozen=True, slots=True)
class Share:
    """What one pack gives: offsets of entries, in file order."""

    file: PackFile
    offsets: array[int]

    @property
    def complete(self) -> bool:
        """True if the pack gives all it has."""
        return len(self.offsets) == self.file.count

    def position(self, offset: int) -> int | None:
        """Tell which of the offsets this is; None if it is not given."""
        at = bisect_left(self.offsets, offset)
        return at if at < len(self.offsets) and self.offsets[at] == offset else None


def shares(manifest: Manifest, plan: Plan) -> list[Share]:
    """Divide a plan among the packs; an object that lies in several is taken from one.

    Raises: RevisionAbsent (a planned object is nowhere, which an intact manifest rules out).
    """
    if plan.ids is None:
        return _everything([pack.file for pack in manifest.packs])
    found: dict[PackFile, list[int]] = {}
    for id in plan.ids:
        place = manifest.place(id)
        found.setdefault(place.file, []).append(place.offset)
    return [Share(file, array("Q", sorted(offsets))) for file, offsets in found.items()]


def _everything(files: Sequence[PackFile]) -> list[Share]:
    """Take the largest pack as it is and from each smaller one what no larger one has."""
    ordered = sorted(files, key=lambda file: -file.count)
    made = [Share(file, file.offsets()) for file in ordered[:1]]
    for at, file in enumerate(ordered[1:], 1):
        larger = ordered[:at]
        offsets = (offset for id, offset in file.objects() if not any(one.find(id) for one in larger))
        made.append(Share(file, array("Q", sorted(offsets))))
    return [share for share in made if share.offsets]


def as_stored(file: PackFile) -> Iterator[Buffer]:
    """Yield the bytes of a pack file, in blocks that fill side-band frames."""
    view = memoryview(file.map)
    for start in range(0, len(view), BLOCK):
        yield view[start : start + BLOCK]


def emit(manifest: Manifest, made: Sequence[Share], *, ofs: bool, had: Callable[[bytes], bool]) -> Iterator[bytes]:
    """Yield one pack with all shares, in blocks of about 1 MiB; `had` tells which absent bases the client has."""
    digest = hashlib.sha1()
    for block in _blocks(Writer(manifest, ofs, had).pack(made)):
        digest.update(block)
        yield block
    yield digest.digest()


class Writer:
    """Writes share after share and remembers what it wrote where; for one pack."""

    def __init__(self, manifest: Manifest, ofs: bool, had: Callable[[bytes], bool]) -> None:
        self._manifest = manifest
        self._ofs = ofs
        self._had = had
        self._at = _HEADER
        self._done: list[Share] = []
        self._moves: list[array[int] | int] = []

    def pack(self, made: Sequence[Share]) -> Iterator[Buffer]:
        """Yield a pack without its trailer, in pieces of any size."""
        count = sum(len(share.offsets) for share in made)
        yield b"PACK" + (2).to_bytes(4, "big") + count.to_bytes(4, "big")
        for share in made:
            yield from self.share(share)

    def places(self) -> Iterator[tuple[bytes, int]]:
        """Yield raw id and new offset of every entry written so far, in file order."""
        for share, moved in zip(self._done, self._moves, strict=True):
            for at, offset in enumerate(share.offsets):
                yield share.file.id_of(offset), offset + (moved if isinstance(moved, int) else moved[at])

    def share(self, share: Share) -> Iterator[Buffer]:
        """Yield the entries of one share, neighbours that stay as they are in one piece."""
        if self._ofs and share.complete:
            yield memoryview(share.file.map)[_HEADER : len(share.file.map) - TRAILER]
            self._moves.append(self._at - _HEADER)
            self._at += share.file.size - _HEADER - TRAILER
        else:
            yield from self._some(share)
        self._done.append(share)

    def _some(self, share: Share) -> Iterator[Buffer]:
        file, view = share.file, memoryview(share.file.map)
        moved: array[int] = array("q", bytes(8 * len(share.offsets)))
        self._moves.append(moved)
        run_from = run_to = 0
        for at, offset in enumerate(share.offsets):
            moved[at] = self._at - offset
            entry, end = file.header(offset), file.end_of(offset)
            head = self._head(share, entry, offset, moved, at)
            if head is None:
                if run_to != offset:
                    yield view[run_from:run_to]
                    run_from = offset
                run_to = end
                self._at += end - offset
                continue
            yield view[run_from:run_to]
            run_from = run_to = 0
            body: list[Buffer] = [head, view[entry.data : end]] if head else self._whole(file, offset)
            self._at += sum(map(len, body))
            yield from body
        yield view[run_from:run_to]

    def _head(self, share: Share, entry: Entry, offset: int, moved: array[int], at: int) -> bytes | None:
        """Make the header that an entry needs here; None if its own will do, b"" if it must be sent whole."""
        if entry.base is None:
            return None
        base = share.file.base_of(entry)
        position = share.position(base)
        if isinstance(entry.base, int) and position is not None and self._ofs:
            if moved[position] == moved[at]:
                return None
            return _varied(OFS_DELTA, entry.size) + _distance(self._at - base - moved[position])
        if isinstance(entry.base, bytes):
            return None if position is not None or self._given(entry.base) else b""
        id = share.file.id_of(base)
        return _varied(REF_DELTA, entry.size) + id if position is not None or self._given(id) else b""

    def _given(self, id: bytes) -> bool:
        """True if the client will know this base: from a pack emitted before, or because it has it."""
        for share in self._done:
            offset = share.file.find(id)
            if offset is not None and share.position(offset) is not None:
                return True
        return self._had(id)

    def _whole(self, file: PackFile, offset: int) -> list[Buffer]:
        kind, content = self._manifest.read_at(file, offset)
        return [_varied(kind, len(content)), zlib.compress(content, 1)]


def _blocks(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """Regroup pieces into blocks of the size that fills side-band frames."""
    held: list[Buffer] = []
    size = 0
    for piece in pieces:
        view = memoryview(piece)
        while size + len(view) >= BLOCK:
            cut = BLOCK - size
            yield b"".join([*held, view[:cut]])
            view, held, size = view[cut:], [], 0
        if view:
            held.append(view)
            size += len(view)
    if held:
        yield b"".join(held)


def _varied(kind: int, size: int) -> bytes:
    """Make the type and size of an entry header."""
    first, rest = kind << 4 | size & 15, size >> 4
    made = bytearray()
    while rest:
        made.append(first | 0x80)
        first, rest = rest & 0x7F, rest >> 7
    made.append(first)
    return bytes(made)


def _distance(back: int) -> bytes:
    """Make the distance of an OFS_DELTA to its base."""
    made = [back & 0x7F]
    while back := back >> 7:
        back -= 1
        made.append(0x80 | back & 0x7F)
    return bytes(reversed(made))
