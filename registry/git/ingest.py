"""From a pack in quarantine to a verdict: scanned, completed, indexed, judged, connected, its sidecar written.

Pure over paths: no database, no network, so it runs in a worker process. `check_light` is the same on the caller's
thread for packs that cannot take long, such as those of Hub commits.

    scan → chains → thin bases appended → index → repeats → special files → connected → introduced → tips
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from registry.git import intro, packing
from registry.git.bases import Bases
from registry.git.chains import Chains
from registry.git.connect import Known, broken_links
from registry.git.contents import TOLD, Contents, Judgement
from registry.git.findings import judge_special, same_bytes
from registry.git.forest import Forest
from registry.git.introduce import Introduce
from registry.git.packfile import TREE, PackFile
from registry.git.scan import Entries, Scanner, count_of
from registry.git.tips import Tips
from registry.git.verdict import Job, PackFacts, PackRefused, PackTooLarge, Verdict, Written

_LIGHT_BYTES, _LIGHT_OBJECTS = 1 << 20, 2000
# A million entries in trees take eight seconds, and 8 MiB hold a quarter of that.
_LIGHT_UNFOLDED = 8 << 20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A pack after completion, open for reading, with what was learnt on the way."""

    path: Path
    sealed: packing.Sealed
    file: PackFile
    idx: Written
    shas: list[bytes]
    kinds: dict[bytes, int]
    borrowed: frozenset[bytes]


def check(job: Job, *, bases: Bases | None = None) -> Verdict:
    """Check one push. Whatever the pack holds, this answers; only damage below and a full disk raise.

    A thin pack is completed in place; index and sidecar are written beside the pack; the store makes them durable.
    `bases` spares opening the files of the manifest when the caller has them open.
    Raises: Damaged, OSError.
    """
    below = bases if bases is not None else Bases.open(job.bases)
    try:
        return Check(job, below).run()
    except PackRefused as error:
        return Verdict(unpack_error=error.message)


def check_light(job: Job, *, bases: Bases | None = None) -> Verdict | None:
    """Check one push on this thread; None if that could take long and a worker should do it."""
    if job.pack is not None and not _is_light(Path(job.pack)):
        return None
    small = replace(job.limits, expanded=_LIGHT_UNFOLDED, inflated=_LIGHT_UNFOLDED, introduced=100_000)
    below = bases if bases is not None else Bases.open(job.bases)
    try:
        return Check(replace(job, limits=small), below).run()
    except PackTooLarge:
        return None
    except PackRefused as error:
        return Verdict(unpack_error=error.message)


def _is_light(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
        size = os.fstat(file.fileno()).st_size
    return size <= _LIGHT_BYTES and int.from_bytes(head[8:12], "big") <= _LIGHT_OBJECTS


class Check:
    """One push on its way to a verdict."""

    def __init__(self, job: Job, bases: Bases) -> None:
        self._job, self._bases = job, bases
        self._judgement = Judgement(job.portable, job.allow)
        self._store = bases
        self._repeated: set[bytes] = set()
        self._forest = Forest(self._read_tree, bases.tree_stats)
        self._contents = Contents(self._forest, self._judgement, bases.count, min(TOLD, job.limits.blob))

    def run(self) -> Verdict:
        """Take all steps.

        Raises: PackRefused, Damaged, OSError.
        """
        if self._job.pack is None:
            return self._judge(None)
        unpacked = self._unpack(Path(self._job.pack))
        return self._judge(unpacked if unpacked.shas else None)

    def _read_tree(self, sha: bytes) -> bytes | None:
        found = self._store.read(sha, self._job.limits.tree)
        return found[1] if found and found[0] == TREE else None

    # The pack as a file

    def _unpack(self, path: Path) -> Unpacked:
        """Take the pack apart, complete it, index it."""
        limits = self._job.limits
        sealed = packing.digest(path)
        with _mapped(path) as data:
            self._contents.most_ids += count_of(data, limits)
            if data[-20:] != sealed.sha1:
                raise PackRefused("pack trailer does not match its bytes")
            scanner = Scanner(data, limits, self._contents)
            entries = scanner.run()
            chains = Chains(scanner, limits, self._contents, self._bases.read)
            chains.resolve()
        if chains.borrowed:
            sealed = self._complete(path, entries, chains.borrowed)
        return self._index(path, sealed, entries, frozenset(chains.borrowed))

    def _complete(self, path: Path, entries: Entries, borrowed: dict[bytes, tuple[int, bytes]]) -> packing.Sealed:
        """Append the bases that a thin pack lacks, so that it stands alone."""
        objects = [(sha, *borrowed[sha]) for sha in sorted(borrowed)]
        sealed, added = packing.append(path, objects, len(entries.offsets))
        for (sha, kind, content), (_, offset, crc) in zip(objects, added, strict=True):
            entries.offsets.append(offset)
            entries.crcs.append(crc)
            entries.kinds.append(kind)
            entries.shas.append(sha)
            self._contents.most_ids += 1
            self._contents.take(kind, sha, content)
        return sealed

    def _index(self, path: Path, sealed: packing.Sealed, entries: Entries, borrowed: frozenset[bytes]) -> Unpacked:
        kinds = dict(zip(entries.shas, entries.kinds, strict=True))
        if len(kinds) != len(entries.shas):
            raise PackRefused("pack holds an object twice")
        data = packing.index(entries.shas, entries.offsets, entries.crcs, sealed.sha1)
        idx = _write(path.with_suffix(".idx"), data)
        file = PackFile(sealed.sha256, path, Path(idx.path))
        self._store = self._bases.with_pack(file)
        return Unpacked(path, sealed, file, idx, entries.shas, kinds, borrowed)

    # What the objects mean

    def _judge(self, unpacked: Unpacked | None) -> Verdict:
        """Judge what was unpacked, or only the new values of refs."""
        known = Known(unpacked.kinds if unpacked else {}, self._bases)
        refused = self._refusal(unpacked, known)
        if refused:
            return Verdict(refusals={None: refused}, warnings=self._warnings())
        introduced = Introduce(self._contents, self._forest, known, self._job.limits)
        introduced.run()
        tips = Tips(self._job, self._contents, self._forest, known, introduced)
        for path in introduced.long_paths:
            self._judgement.hear(*tips.long_path(path))
        self._judgement.hear("pack", tips.deep_trees())
        too_big = tips.too_big()
        if self._judgement.refused or too_big:
            return Verdict(refusals={None: too_big or self._first_refusal()}, warnings=self._warnings())
        pack = self._write_intro(unpacked, introduced) if unpacked else None
        return tips.verdict(pack, self._gained(unpacked), self._warnings())

    def _refusal(self, unpacked: Unpacked | None, known: Known) -> str | None:
        """Find what keeps the pack out before its history is read."""
        if unpacked:
            self._check_repeats(unpacked)
        judge_special(self._contents, self._store)
        if self._judgement.refused:
            return self._first_refusal()
        broken = next(broken_links(self._contents, known), None)
        return f"missing necessary objects: {broken}" if broken else None

    def _check_repeats(self, unpacked: Unpacked) -> None:
        """Compare objects that the manifest has already: another content under one id is an attack on SHA-1."""
        self._repeated = set(self._bases.among([sha for sha in unpacked.shas if sha not in unpacked.borrowed]))
        for sha in self._repeated:
            place = self._bases.find(sha)
            offset = unpacked.file.find(sha)
            if place is None or offset is None or not same_bytes(place, (unpacked.file, offset), self._store):
                raise PackRefused(f"object {sha.hex()} collides with another of the same id")

    def _first_refusal(self) -> str:
        refused = self._judgement.refused
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        return refused[0] + more

    def _warnings(self) -> tuple[str, ...]:
        return tuple(f"warning: {text}" for text in self._judgement.told) + tuple(
            f"error: {text}" for text in self._judgement.refused[:10]
        )

    def _gained(self, unpacked: Unpacked | None) -> Iterable[bytes]:
        """Name the objects that the manifest did not have before."""
        if unpacked is None:
            return ()
        return [sha for sha in unpacked.shas if sha not in self._repeated and sha not in unpacked.borrowed]

    def _write_intro(self, unpacked: Unpacked, introduced: Introduce) -> PackFacts:
        contents = self._contents
        data = intro.encode(introduced.rows.values(), self._forest.all_stats(), contents.pointers.values())
        return PackFacts(
            path=str(unpacked.path),
            id=unpacked.sealed.sha256,
            sha1=unpacked.sealed.sha1.hex(),
            bytes=unpacked.sealed.bytes,
            objects=len(unpacked.shas),
            commits=len(contents.commits),
            idx=unpacked.idx,
            intro=_write(unpacked.path.with_suffix(".intro"), data),
        )


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise PackRefused("not a pack")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _write(path: Path, data: bytes) -> Written:
    """Write a file; what makes it durable under its final name is the store."""
    path.write_bytes(data)
    return Written(str(path), hashlib.sha256(data).hexdigest(), len(data))
