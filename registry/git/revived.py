"""LFS pointers that ref updates bring back: of objects that the packs hold and no ref has reached.

Packs keep what refs have left behind, so a push may name an old commit without sending it. Its pointers are not new,
yet their links may have been collected since: the gate has to look at them as at new ones.
Ids are raw 20 bytes.
"""

from __future__ import annotations

from binascii import a2b_hex
from collections.abc import Iterable, Iterator
from dataclasses import replace

from registry.errors import Damaged
from registry.git.intro import Intro, PointerRow
from registry.git.objects import Manifest
from registry.git.reach import Flaw, walk
from registry.git.snapshot import ZERO, Snapshot
from registry.git.verdict import PackFacts, PointerFound, Update, Verdict


def with_revived(manifest: Manifest, snapshot: Snapshot, updates: Iterable[Update], verdict: Verdict) -> Verdict:
    """Add the pointers that old objects bring back to those that the gate must find linked.

    Raises: Damaged.
    """
    if verdict.unpack_error is not None or not snapshot.packs:
        return verdict
    starts = {a2b_hex(update.new) for update in updates if update.new != ZERO} | _below(verdict.pack)
    tips = {a2b_hex(ref.target) for ref in snapshot.refs.values()}
    old = {start for start in starts - tips if manifest.find(start) is not None}
    if not old:
        return verdict
    known = {pointer.blob for pointer in verdict.pointers}
    found = {blob: row for blob, row in _reached(manifest, old, tips) if blob not in known}
    more = (PointerFound(blob, row.oid.hex(), row.size) for blob, row in sorted(found.items()))
    return replace(verdict, pointers=(*verdict.pointers, *more))


def _below(pack: PackFacts | None) -> set[bytes]:
    """Name the commits and tags that a pack builds upon and does not hold."""
    if pack is None:
        return set()
    with Intro.open(pack.intro.path, verify=False) as intro:
        own = {row.sha for row in intro}
        return {parent for row in intro for parent in intro.parents(row) if parent not in own}


def _reached(manifest: Manifest, starts: set[bytes], tips: set[bytes]) -> Iterator[tuple[str, PointerRow]]:
    """Yield the pointers that `starts` reach and `tips` do not, and perhaps some that both do."""
    graph = manifest.graph
    wants = {id for id in starts if graph.node(id) is not None}
    common = [id for id in tips if graph.node(id) is not None]
    for node in graph.new(wants, common) if wants else ():
        for id in node.introduced:
            row = _pointer(manifest, id)
            if row is not None:
                yield id.hex(), row
    # A tree or a blob that is named itself has no row in any sidecar.
    for one in walk(manifest, [id.hex() for id in starts - wants]):
        if isinstance(one, Flaw):
            raise Damaged(f"object {one.sha} {one.text}; run `weightroom fsck`.")
        yield one.blob, PointerRow(a2b_hex(one.blob), bytes.fromhex(one.pointer.oid), one.pointer.size)


def _pointer(manifest: Manifest, blob: bytes) -> PointerRow | None:
    for pack in manifest.packs:
        found = pack.intro.pointer(blob)
        if found is not None:
            return found
    return None
