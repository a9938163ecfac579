"""A house whose files come by Xet, as rows and real bytes, and a collection over it."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lfs.errors import Damaged
from lfs.local import LocalStore
from lfs.pointer import Pointer, canonical
from lfs.store import ObjectStore, file_key, xorb_keys
from lfs.xet import hashes
from lfs.xet.index import File, Filing, Leave, Part, Xorb, packed
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from registry.db import Database
from registry.git.snapshot import ZERO
from registry.linking import Linker, Proven
from registry.tables.objects import lfs_uploads
from registry.tables.xet import xet_domains, xet_files, xet_links, xet_marks, xet_xorbs
from registry.upkeep.gc import Scope
from registry.upkeep.reclaim import Line
from registry.uploads import Uploads
from registry.xorbs import XetRows
from tests.lfs.xet.xorbs import Made
from tests.registry.gate import MAIN, Gate
from tests.registry.upkeep.collecting import Collected


@dataclass(frozen=True, slots=True)
class Whole:
    """A file of some xorbs, each of them whole, as a client knows it."""

    file: File
    oid: str
    marks: tuple[tuple[bytes, bytes], ...]
    bytes: bytes

    @property
    def key(self) -> str:
        """Where it is served."""
        return file_key(hashes.text(self.file.hash))

    def filing(self, *, named: bool = True) -> Filing:
        """What a shard says of it; its SHA-256 only if it is `named`."""
        return Filing(self.file, self.oid if named else "", self.marks)


def whole(*xorbs: Made) -> Whole:
    """Make a file of xorbs."""
    parts, leaves, marks, at = [], [], [], 0
    for xorb in xorbs:
        table = xorb.table()
        parts.append(Part(xorb.hash, 0, table.chunks, at))
        leaves += list(table.leaves(0, table.chunks))
        marks += [(hash, xorb.hash) for hash in table.hashes(0, table.chunks)]
        at += table.raw_size
    data = b"".join(part for xorb in xorbs for part in xorb.parts)
    file = File(hashes.file(leaves), at, packed(parts))
    return Whole(file, hashlib.sha256(data).hexdigest(), tuple(marks), data)


@dataclass
class XetCollected(Collected):
    """A house whose clients upload by Xet; all goes by the clock that `later` turns. `raw` is the shelf itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        quotas = self.gate.linked.quotas
        self.raw: ObjectStore = self.gate.store
        self.index = XetRows(self.database, quotas, sharing="namespace", clock=self.clock)
        self.standing_on(self.raw)
        self.uploads = Uploads(self.database, quotas, clock=self.clock)
        self.linker = Linker(self.database, quotas, clock=self.clock)
        self._commits = itertools.count()

    def standing_on(self, shelf: ObjectStore) -> None:
        """Put the house upon another shelf; what is held of tables is forgotten."""
        self.raw, self.store = shelf, WithFiles(shelf, self.index, Tables(shelf))

    def domain(self, repo_id: int = 1) -> str:
        """The domain of a repo."""
        return self.index.domains.domain_for(repo_id).id

    def leave(self, repo_id: int = 1) -> Leave:
        """What a token of ann's says."""
        return Leave(repo_id, 1, self.domain(repo_id), "write", 1 << 40)

    def lay(self, made: Made) -> Xorb:
        """Store body and table under keys of a new proof, and no row."""
        key, table_key = xorb_keys(hashes.text(made.hash), secrets.token_hex(8))
        table = made.table()
        rows = table.to_bytes()
        self.raw.put(table_key, rows, len(rows))
        self.raw.put(key, made.body, len(made.body))
        return Xorb(made.hash, key, table_key, table.body_size, table.raw_size, table.chunks)

    def take(self, *xorbs: Made, repo_id: int = 1) -> list[Xorb]:
        """Take xorbs in, as if they were proven; return those that are served."""
        return [self._kept(self.lay(made), repo_id) for made in xorbs]

    def _kept(self, xorb: Xorb, repo_id: int) -> Xorb:
        served = self.index.keep(self.leave(repo_id), xorb)
        for key in {xorb.key, xorb.table} - {served.key, served.table}:
            self.raw.delete(key)
        return served

    def file(self, *files: Whole, repo_id: int = 1, named: bool = True, shard: str = "5" * 64) -> bool:
        """File a shard that names these files."""
        return self.index.file(self.leave(repo_id), [one.filing(named=named) for one in files], shard)

    def prove(self) -> list[str]:
        """Prove what waits, as the prover does; return the states of the uploads then."""
        for row in self.rows(sa.select(lfs_uploads).where(lfs_uploads.c.state == "arrived")):
            try:
                with self.store.open(row.key) as reader:
                    found = hashlib.sha256(reader.read_all()).hexdigest()
            except Damaged as error:
                self.uploads.fail(row.id, error.message)
                continue
            if found == row.oid:
                self.linker.finish(Proven(row.id, row.key, row.oid, row.size))
            else:
                self.uploads.fail(row.id, "It is something else.")
        return [row.state for row in self.rows(sa.select(lfs_uploads.c.state).order_by(lfs_uploads.c.id))]

    def bring(self, *xorbs: Made, repo_id: int = 1) -> Whole:
        """Upload a file of these xorbs whole: taken, filed, proven."""
        made = whole(*xorbs)
        self.take(*xorbs, repo_id=repo_id)
        self.file(made, repo_id=repo_id)
        self.prove()
        return made

    def commit(self, *files: Whole, force: bool = False) -> str:
        """Push a commit upon nothing with exactly these files; return its sha."""
        pointers = {f"{at}.bin": canonical(Pointer(one.oid, one.file.size)) for at, one in enumerate(files)}
        sha = self.gate.commit(pointers | {"n": b"%d" % next(self._commits)})
        old = self.gate.targets().get(MAIN, ZERO)
        assert force or old == ZERO
        assert self.gate.push((MAIN, old, sha)).error is None
        return sha

    def read(self, one: Whole) -> bytes:
        """Read a file as every door does."""
        with self.store.open(one.key) as reader:
            return reader.read_all()

    def run_now(self) -> list[Line]:
        """Collect without regard to promises."""
        return list(self.gc().run(Scope(yes=True, now=True)))

    def chunked(self, *, now: bool = False) -> list[tuple[str, str]]:
        """Collect; return what became of things of Xet. A dry run before it said the same."""
        planned = list(self.gc().plan(Scope(yes=True, now=now)))
        done = self.run_now() if now else self.run()
        assert planned == done
        kinds = ("xet", "file", "xorb", "grant")
        return [(line.act, line.kind) for line in done if line.kind in kinds or line.subject.startswith("xet/")]

    def rows(self, statement: sa.Select[Any]) -> list[Any]:
        """Read rows."""
        with self.database.read() as connection:
            return list(connection.execute(statement).all())

    def xorbs(self) -> dict[bytes, str]:
        """The states of all xorbs."""
        return {bytes(row.hash): row.state for row in self.rows(sa.select(xet_xorbs.c.hash, xet_xorbs.c.state))}

    def files(self) -> set[bytes]:
        """The files that there are."""
        return {bytes(row.hash) for row in self.rows(sa.select(xet_files.c.hash))}

    def links(self) -> set[tuple[int, bytes, str]]:
        """Which repo links which file, and how far its proof is."""
        return {(row.repo_id, bytes(row.file), row.state) for row in self.rows(sa.select(xet_links))}

    def marks(self) -> int:
        """How many marks there are."""
        return len(self.rows(sa.select(xet_marks.c.chunk)))

    def generations(self) -> dict[str, int]:
        """The generation of each domain."""
        return {row.id: row.generation for row in self.rows(sa.select(xet_domains))}


def chunking(database: Database, folder: Path, store: ObjectStore | None = None) -> XetCollected:
    """Make one on a disk shelf, or upon another."""
    shelf = store or LocalStore(folder / "objects", fsync=False, min_free=0)
    return XetCollected(Gate(database, folder, shelf=shelf))


def hashes_of(xorbs: Sequence[Made]) -> set[bytes]:
    """The names of some xorbs."""
    return {made.hash for made in xorbs}
