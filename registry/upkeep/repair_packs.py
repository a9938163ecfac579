"""Repairs packs, with what the bytes of sound packs say.

    index, sidecar   made again from the pack (a sidecar: and the other packs of a repo), put back under their key
    pack             put back from a copy that a server on this machine checked and kept
    row              corrected by the pack, whose hash is its name

A put leaves an existing key alone, so bad bytes are deleted just before: a reader between the two finds nothing where
it would have found damage. A pack that nothing can replace is left, since most of its objects may be sound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import ObjectStore
from registry.db import Database, lock_repo, now
from registry.errors import Damaged
from registry.git import rebuild
from registry.git.snapshot import PackRow, pack_key
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.objects import packs, repo_packs
from registry.tables.repos import repos
from registry.tables.work import events
from registry.upkeep.faults import IdlePack, LostCompanion, LostPack, Mended, Unopened, WrongFacts
from registry.upkeep.pack_files import PackFiles

Noun = Literal["index", "sidecar"]
NOUNS: tuple[Noun, ...] = ("index", "sidecar")
_COLUMNS = {"index": ("idx_oid", "idx_bytes"), "sidecar": ("intro_oid", "intro_bytes")}
_USERS = (
    sa.select(repos.c.id, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name)
    .select_from(
        repo_packs.join(repos, repos.c.id == repo_packs.c.repo_id).join(
            namespaces, namespaces.c.id == repos.c.namespace_id
        )
    )
    .where(repo_packs.c.pack_id == sa.bindparam("pack"), repos.c.deleted_at.is_(None))
    .order_by(repos.c.id)
)
_LISTED = (
    sa.select(*(packs.c[name] for name in PackRow.__slots__))
    .select_from(repo_packs.join(packs, packs.c.id == repo_packs.c.pack_id))
    .where(repo_packs.c.repo_id == sa.bindparam("repo"))
    .order_by(repo_packs.c.ordinal.desc())
)
_Fault = LostPack | LostCompanion | WrongFacts | IdlePack | Unopened


class PackRepair:
    """Mends packs of one house.

    `folder` takes copies of what has to be read from a bucket; `copies` are the folders where servers of this machine
    keep packs that they checked.
    """

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        *,
        folder: Path,
        copies: Sequence[Path] = (),
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = database
        self._files = PackFiles(store, folder)
        self._copies = tuple(copies)
        self._clock = clock

    def mend(self, fault: _Fault) -> Mended:
        """Do what can be done. Raises: Damaged, Busy, OSError, lfs errors of the store."""
        match fault:
            case LostPack(row):
                return self._pack(row)
            case LostCompanion(row, noun):
                return self._companion(row, noun)
            case WrongFacts(row):
                return self._facts(row)
            case IdlePack(pack):
                return self._idle(pack)
            case Unopened(rows):
                return self._every(rows)

    def _every(self, rows: Sequence[PackRow]) -> Mended:
        """Read all files of some packs and mend those that are damaged; if none is, one is not of its pack."""
        done = []
        for row in rows:
            if self._files.flaw(row.id):
                done.append(self._pack(row))
            done += [self._companion(row, noun) for noun in NOUNS if self._files.flaw(_oid(row, noun))]
        done = done or [mended for row in rows for mended in self._strange(row)]
        if not done:
            return Mended(False, "left as it is: every file of its packs is sound")
        return Mended(all(one.whole for one in done), "; ".join(dict.fromkeys(one.text for one in done)))

    def _strange(self, row: PackRow) -> Iterator[Mended]:
        """Make index and sidecar again, and replace those that are sound and of another pack."""
        with self._files.local(row.id) as path:
            found = None if path is None else rebuild.facts(path)
            size = 0 if path is None else path.stat().st_size
        if found is None:
            return
        if (found.objects, size) != (row.objects, row.bytes):
            yield self._facts(row)
        if _sha256(found.index) != row.idx_oid:
            yield self._replace(row, "index", found.index)
        sidecar = self._sidecar(row)
        if _sha256(sidecar) != row.intro_oid:
            yield self._replace(row, "sidecar", sidecar)

    # The pack itself

    def _pack(self, row: PackRow) -> Mended:
        if not self._files.flaw(row.id):
            return self._facts(row)
        for folder in self._copies:
            path = folder / row.id
            if path.is_file() and _sha256_of(path) == row.id:
                # As an open file: a path may be adopted, and this one is a server's own.
                with path.open("rb") as file:
                    self._files.put_back(row.id, file, path.stat().st_size)
                self._tell_alone("pack.restored", row.id, {"from": "copy"})
                return Mended(True, "put back from a copy that a server on this machine had checked")
        return Mended(False, self._advice(row.id))

    def _advice(self, pack: str) -> str:
        users = self._users(pack)
        if not users:
            return "no repo uses it: it is left to be reclaimed"
        names = ", ".join(list(users.values())[:10]) + (f" and {len(users) - 10} more" if len(users) > 10 else "")
        return (
            f"nothing here replaces it; used by {names}. Put {pack_key(pack)} back from a backup, or delete and create "
            "the repo and, in a whole clone, `git lfs push --all origin`, `git push --force origin --all`, then --tags"
        )

    def _facts(self, row: PackRow) -> Mended:
        """Correct the row by the pack, whose hash proves it."""
        with self._files.local(row.id) as path:
            if path is None:
                return Mended(False, "its pack has to be mended first")
            found = rebuild.facts(path)
            values = {"git_sha1": found.sha1, "objects": found.objects, "bytes": path.stat().st_size}
        self._correct(row, values)
        return Mended(True, f"its row says what the pack says: {found.objects} objects, {values['bytes']} bytes")

    def _idle(self, pack: str) -> Mended:
        if flaw := self._files.flaw(pack):
            return Mended(False, f"its pack has to be mended first: it {flaw}")
        kept = sa.update(packs).where(packs.c.id == pack, packs.c.state.in_(["stored", "condemned"]))
        with self._db.write() as connection:
            if connection.execute(kept.values(state="live", condemned_at=None)).rowcount != 1:
                return Mended(False, "left as it is: its bytes are being deleted")
            self._tell(connection, "pack.kept", pack, {})
        return Mended(True, "it is kept")

    # Index and sidecar

    def _companion(self, row: PackRow, noun: Noun) -> Mended:
        with self._files.local(row.id) as path:
            if path is None:
                return Mended(False, "its pack has to be mended first")
            data = rebuild.facts(path).index if noun == "index" else self._sidecar(row)
        return self._replace(row, noun, data)

    def _sidecar(self, row: PackRow) -> bytes:
        """Make a sidecar upon the other packs of a repo that has this one. Raises: Damaged (none has what it needs)."""
        told = "no repo uses the pack"
        for repo in self._users(row.id):
            try:
                return self._files.sidecar(row, self._listed(repo))
            except Damaged as error:
                told = error.message
        raise Damaged(f"the sidecar cannot be made: {told}")

    def _replace(self, row: PackRow, noun: Noun, data: bytes) -> Mended:
        oid = _sha256(data)
        self._files.put_back(oid, data, len(data))
        name, size = _COLUMNS[noun]
        values = {name: oid, size: len(data)}
        if (getattr(row, name), getattr(row, size)) != (oid, len(data)):
            self._correct(row, values)
            return Mended(True, f"made again from its pack; the row names it: {oid}")
        self._tell_alone("pack.restored", row.id, {"file": noun, "oid": oid})
        return Mended(True, "made again from its pack and put back")

    # Rows

    def _correct(self, row: PackRow, values: Mapping[str, object]) -> None:
        """Change the row of a pack, and the version of every list that it is in: lists are remembered by version."""
        with self._db.write() as connection:
            for repo in self._users(row.id):
                lock_repo(connection, repo)
            connection.execute(sa.update(packs).where(packs.c.id == row.id).values(values))
            using = sa.select(repo_packs.c.repo_id).where(repo_packs.c.pack_id == row.id)
            listing = sa.update(repos).where(repos.c.id.in_(using))
            connection.execute(listing.values(manifest_version=repos.c.manifest_version + 1))
            self._tell(connection, "pack.corrected", row.id, dict(values))

    def _users(self, pack: str) -> dict[int, str]:
        with self._db.read() as connection:
            rows = connection.execute(_USERS, {"pack": pack}).all()
        return {row.id: RepoId(row.type, row.namespace, row.name).web for row in rows}

    def _listed(self, repo: int) -> list[PackRow]:
        with self._db.read() as connection:
            return [PackRow(*row) for row in connection.execute(_LISTED, {"repo": repo})]

    def _tell_alone(self, act: str, subject: str, body: dict[str, object]) -> None:
        with self._db.write() as connection:
            self._tell(connection, act, subject, body)

    def _tell(self, connection: Connection, act: str, subject: str, body: dict[str, object]) -> None:
        event = {"at": self._clock(), "act": act, "subject": subject, "body": body}
        connection.execute(sa.insert(events).values(event))


def _oid(row: PackRow, noun: Noun) -> str:
    return row.idx_oid if noun == "index" else row.intro_oid


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
