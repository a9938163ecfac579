"""The door for one object: a real client gets that object in by its chunks, and nobody anything else."""

from __future__ import annotations

import hashlib
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from lfs.errors import BadToken
from lfs.local import LocalStore
from lfs.store import FILES, lfs_key
from lfs.xet.index import Leave
from lfs.xet.ingest import Destination, NotSent
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from lfs.xet.tokens import XetTokens
from registry.db import Database
from registry.errors import RepoAbsent
from registry.quota import Quotas
from registry.routes.inner import InnerDoor
from registry.tables.objects import lfs_objects, lfs_uploads
from registry.tables.repos import repos
from registry.tables.xet import xet_files, xet_links, xet_xorbs
from registry.xet_ingests import Due
from registry.xorbs import XetRows
from tests.registry import people
from tests.registry.linked import Linked

BODY = random.Random(11).randbytes(2 << 20)
OID = hashlib.sha256(BODY).hexdigest()


class Ground:
    """A repo with a whole object, the door for it, and a sender."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        people.add_user(database, "ann")
        self.repo = people.add_repo(database, "ann", "one")
        quotas = Quotas(database, default=None)
        self.rows = XetRows(database, quotas, sharing="namespace")
        shelf = LocalStore(folder / "shelf", min_free=0, fsync=False)
        tables = Tables(shelf)
        self.store = WithFiles(shelf, self.rows, tables)
        self.work = folder / "work"
        self.work.mkdir()
        self.told = 0
        self.door = InnerDoor(
            database=database,
            quotas=quotas,
            sharing="namespace",
            store=self.store,
            tables=tables,
            folder=self.work,
            told=self.tell,
        )
        self.store.put(lfs_key(OID), BODY, len(BODY), OID)
        Linked(database).link(self.repo, OID, len(BODY), lfs_key(OID))
        self.due = Due(self.repo, OID, len(BODY), lfs_key(OID), 1)

    def tell(self) -> None:
        self.told += 1

    def send(self, due: Due) -> bool:
        return self.door.send(due, lambda: True)

    def all(self, table: sa.Table) -> list[sa.Row[tuple[object, ...]]]:
        with self.database.read() as connection:
            return list(connection.execute(sa.select(table)))


@pytest.fixture
def ground(sqlite_database: Database, tmp_path: Path) -> Ground:
    return Ground(sqlite_database, tmp_path)


@pytest.fixture
def opened(ground: Ground) -> Iterator[Destination]:
    with ground.door.opened(ground.due) as destination:
        yield destination


def ask(to: Destination, verb: str, path: str, token: str = "") -> int:
    headers = {"authorization": f"Bearer {token or to.token}"}
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.request(verb, to.cas_url + path, headers=headers).status_code


def test_the_object_comes_in_and_waits_for_its_proof(ground: Ground) -> None:
    assert ground.send(ground.due)
    (link,) = ground.all(xet_links)
    assert (link.repo_id, link.sha256, link.size, link.actor_id, link.state) == (
        ground.repo,
        OID,
        len(BODY),
        None,
        "declared",
    )
    (upload,) = [row for row in ground.all(lfs_uploads) if row.mode == "xet"]
    assert (upload.state, upload.oid, upload.key.startswith(FILES)) == ("arrived", OID, True)
    assert ground.told == 1
    with ground.store.open(upload.key) as reader:
        assert reader.read_all() == BODY
    (whole,) = ground.all(lfs_objects)
    assert (whole.kind, whole.key) == ("whole", lfs_key(OID))
    assert list(ground.work.iterdir()) == []


def test_sending_it_again_stores_nothing_more(ground: Ground) -> None:
    assert ground.send(ground.due)
    before = [ground.all(table) for table in (xet_files, xet_xorbs, lfs_uploads)]
    assert ground.send(ground.due)
    after = [ground.all(table) for table in (xet_files, xet_xorbs, lfs_uploads)]
    assert [len(rows) for rows in after] == [len(rows) for rows in before]


def test_bytes_that_are_not_the_object_are_not_filed(ground: Ground) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    due = replace(ground.due, oid=other, key=lfs_key(other))
    ground.store.put(due.key, BODY, len(BODY))
    with pytest.raises(NotSent, match=f"{other} hash to {OID}"):
        ground.send(due)
    assert ground.all(xet_links) == ground.all(xet_files) == []
    assert [row.mode for row in ground.all(lfs_uploads)] == ["proxy"]


def test_it_is_closed_afterwards(ground: Ground) -> None:
    with ground.door.opened(ground.due) as destination:
        assert ask(destination, "GET", f"/v1/chunks/default/{OID}") == 404
    port = urlsplit(destination.cas_url).port or 0
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_it_speaks_of_what_comes_in_and_of_nothing_else(opened: Destination) -> None:
    assert ask(opened, "POST", f"/v1/xorbs/default/{OID}") == 400
    for path in (f"/v2/reconstructions/{OID}", f"/v1/files/{OID}", f"/v1/xorb-grants/default/{OID}"):
        assert ask(opened, "GET", path) == ask(opened, "POST", path) == 404
    assert urlsplit(opened.cas_url).hostname == "127.0.0.1"


def test_neither_door_takes_the_tokens_of_the_other(ground: Ground, opened: Destination) -> None:
    public = XetTokens([b"the secret of the server, so long"], time.time)
    with pytest.raises(BadToken):
        public.read(opened.token)
    # Not even one that the server signed for nobody.
    nobody = Leave(ground.repo, 0, ground.rows.domains.domain_for(ground.repo).id, "write", public.until())
    with pytest.raises(BadToken):
        ground.rows.enter(nobody, 0)
    assert ask(opened, "POST", f"/v1/xorbs/default/{OID}", public.issue(nobody)) == 401


def test_it_shuts_when_the_repo_goes_or_is_closed(ground: Ground, opened: Destination) -> None:
    with ground.database.write() as connection:
        connection.execute(sa.update(repos).values(visibility="private"))
    assert ask(opened, "POST", f"/v1/xorbs/default/{OID}") == 401
    with ground.database.write() as connection:
        connection.execute(sa.update(repos).values(deleted_at=people.START))
    assert ask(opened, "POST", f"/v1/xorbs/default/{OID}") == 404
    with pytest.raises(RepoAbsent), ground.door.opened(ground.due):
        pass
