"""The schema that revisions build is the one that the tables describe, forwards, backwards and under races."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from registry import schema
from registry.db import Database, now
from registry.errors import Damaged
from registry.locks import LockRows
from registry.tables.identity import namespaces, users
from registry.tables.meta import metadata
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.repos import repos
from registry.tables.work import events
from registry.tables.xet import (
    xet_arrivals,
    xet_domains,
    xet_file_xorbs,
    xet_files,
    xet_grants,
    xet_ingests,
    xet_keys,
    xet_links,
    xet_marks,
    xet_xorb_domains,
    xet_xorbs,
)
from tests.registry.people import add_repo, add_user
from tests.services import postgres


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without a schema."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/50%.db")
        yield database
        database.dispose()
        return
    with postgres.fresh_database(postgres.server()) as url:
        database = Database(url)
        yield database
        database.dispose()


def checks(database: Database) -> dict[str, set[str]]:
    """Name the check constraints of each table, which Alembic does not compare."""
    inspector = sa.inspect(database.engine)
    return {
        table: {f"{found['name']}: {found['sqltext']}" for found in inspector.get_check_constraints(table)}
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def test_migrating_builds_what_the_tables_describe(empty: Database) -> None:
    assert schema.current(empty) == schema.BASE
    assert schema.migrate(empty) == (schema.BASE, schema.head())
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    migrated = checks(empty)
    schema.revert(empty, schema.BASE)
    metadata.create_all(empty.engine)
    assert migrated == checks(empty)


def test_migrating_twice_changes_nothing(empty: Database) -> None:
    schema.migrate(empty)
    assert schema.migrate(empty) == (schema.head(), schema.head())


def test_the_first_revision_goes_back_with_rows_in_place(empty: Database) -> None:
    schema.migrate(empty)
    with empty.write() as connection:
        values = {"name": "ada", "name_fold": "ada", "kind": "user", "fullname": "", "created_at": now()}
        made = connection.execute(sa.insert(namespaces).values(values)).inserted_primary_key
        connection.execute(sa.insert(users).values(namespace_id=made[0], created_at=now()))
    schema.revert(empty, schema.BASE)
    assert schema.current(empty) == schema.BASE
    assert sa.inspect(empty.engine).get_table_names() == ["alembic_version"]
    assert schema.migrate(empty) == (schema.BASE, schema.head())


def test_locks_pass_through_the_second_revision(empty: Database) -> None:
    schema.migrate(empty)
    add_user(empty, "ann")
    add_repo(empty, "ann", "one")
    locks = LockRows(empty)
    first, _ = locks.create(1, 1, "a.bin")
    schema.revert(empty, "0001")
    schema.migrate(empty)
    assert locks.create(1, 1, "a.bin") == (first, False)
    assert locks.create(1, 1, "b.bin")[0].serial == 2


def test_going_back_from_the_third_revision_leaves_what_came_whole(empty: Database) -> None:
    schema.migrate(empty)
    fill_with_xet(empty)
    schema.revert(empty, "0002")
    with empty.read() as connection:
        sizes = connection.exec_driver_sql("SELECT name, lfs_bytes FROM repos").all()
        assert {(row.name, row.lfs_bytes) for row in sizes} == {("both", 70), ("chunked", 0), ("whole", 70)}
        assert connection.exec_driver_sql("SELECT DISTINCT oid FROM lfs_links").scalars().all() == [WHOLE]
        assert connection.exec_driver_sql("SELECT oid FROM lfs_objects").scalars().all() == [WHOLE]
        assert connection.exec_driver_sql("SELECT mode FROM lfs_uploads").scalars().all() == ["tus"]
    assert not [name for name in sa.inspect(empty.engine).get_table_names() if name.startswith("xet")]
    with pytest.raises(sa.exc.IntegrityError, match="ck_lfs_uploads_mode"):
        add_upload(empty, 1, CHUNKED, "xet")
    assert schema.migrate(empty) == ("0002", schema.head())
    # Their clients push it anew.
    add_upload(empty, 1, CHUNKED, "xet")
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize(
    ("days", "state", "stays"), [(6, "stored", True), (6, "deleting", False), (8, "stored", False)]
)
def test_going_back_from_the_third_revision_names_the_bytes_that_came_while_they_lie_there(
    empty: Database, days: int, state: str, stays: bool
) -> None:
    schema.migrate(empty)
    add_user(empty, "ann")
    repo, at = add_repo(empty, "ann", "one"), now() - timedelta(days=days)
    key = "xet/files/" + CHUNKED
    made = {"oid": CHUNKED, "size": 300, "key": key, "kind": "xet", "state": state, "stored_at": at}
    link = {"repo_id": repo, "oid": CHUNKED, "size": 300, "linked_at": at, "seen_at": at}
    # It was whole twice, by another upload each time.
    acts: list[dict[str, object]] = [
        {"at": at, "act": "object.chunked", "subject": CHUNKED, "body": {"was": was, "key": key, "bytes": 300}}
        for was in ("lfs/first", "lfs/second")
    ]
    with empty.write() as connection:
        connection.execute(sa.insert(lfs_objects), [made])
        connection.execute(sa.insert(lfs_links), [link])
        connection.execute(sa.insert(events), acts)
        connection.execute(sa.update(repos).values(lfs_bytes=300))
    schema.revert(empty, "0002")
    with empty.read() as connection:
        found = connection.exec_driver_sql("SELECT oid, key, kind FROM lfs_objects").all()
        assert [tuple(row) for row in found] == ([(CHUNKED, "lfs/second", "whole")] if stays else [])
        assert connection.exec_driver_sql("SELECT lfs_bytes FROM repos").scalar() == (300 if stays else 0)
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM lfs_links").scalar() == stays


WHOLE, CHUNKED = "a" * 64, "b" * 64


def fill_with_xet(database: Database) -> None:
    """Leave rows behind in every table of Xet: one object came whole, another by its chunks."""
    add_user(database, "ann")
    linked = {"whole": [WHOLE], "chunked": [CHUNKED], "both": [WHOLE, CHUNKED]}
    ids = {name: add_repo(database, "ann", name) for name in linked}
    at, hash = now(), b"\x07" * 32
    objects = [(WHOLE, 70, "lfs/aa/aa/whole", "whole"), (CHUNKED, 300, "xet/files/chunked", "xet")]
    sizes = {oid: size for oid, size, _, _ in objects}
    links = [(ids[name], oid) for name, oids in linked.items() for oid in oids]
    moments = {"promised_until": at, "verified_at": at, "scrubbed_at": at}
    proof = {"file": hash, "sha256": CHUNKED, "size": 300, "state": "proven", "created_at": at}
    rows: dict[sa.Table, list[dict[str, object]]] = {
        lfs_objects: [
            {"oid": oid, "size": size, "key": key, "kind": kind, "state": "stored", "stored_at": at}
            for oid, size, key, kind in objects
        ],
        lfs_links: [
            {"repo_id": repo, "oid": oid, "size": sizes[oid], "linked_at": at, "seen_at": at} for repo, oid in links
        ],
        xet_domains: [{"id": "d", "owner": "n1", "kind": "public"}],
        xet_keys: [{"domain_id": "d", "week": 1, "key": hash}],
        xet_xorbs: [
            {"hash": hash, "key": "x", "table_key": "t", "size": 9, "raw_size": 9, "chunks": 1, "state": "live"}
            | moments
        ],
        xet_xorb_domains: [{"domain_id": "d", "hash": hash}],
        xet_files: [{"hash": hash, "size": 300, "terms": b"", "created_at": at}],
        xet_file_xorbs: [{"file": hash, "xorb": hash}],
        xet_links: [{"repo_id": repo} | proof for repo, oid in links if oid == CHUNKED],
        xet_marks: [{"domain_id": "d", "chunk": hash, "file": hash, "xorb": hash}],
        xet_grants: [{"id": "g", "domain_id": "d", "hash": hash, "key": "k", "length": 1, "expires_at": at}],
        xet_arrivals: [{"namespace_id": 1, "hash": hash, "size": 1, "expires_at": at}],
        xet_ingests: [{"repo_id": ids["whole"], "oid": WHOLE, "state": "waiting", "created_at": at}],
    }
    assert {name for name in metadata.tables if name.startswith("xet_")} <= {table.name for table in rows}
    with database.write() as connection:
        for table, given in rows.items():
            connection.execute(sa.insert(table), given)
        sums = sa.select(sa.func.sum(lfs_links.c.size)).where(lfs_links.c.repo_id == repos.c.id).scalar_subquery()
        connection.execute(sa.update(repos).values(lfs_bytes=sums))
    for mode in ("tus", "xet"):
        add_upload(database, ids["both"], CHUNKED, mode)


def add_upload(database: Database, repo_id: int, oid: str, mode: str) -> None:
    """Insert an upload that waits for its proof."""
    at = now()
    row = {"repo_id": repo_id, "oid": oid, "size": 300, "mode": mode, "state": "arrived"}
    with database.write() as connection:
        made = row | {"id": f"{repo_id}{mode}", "created_at": at, "expires_at": at}
        connection.execute(sa.insert(lfs_uploads).values(made))


def test_processes_that_migrate_at_once_all_end_at_head(empty: Database) -> None:
    others = [Database(empty.url.render_as_string(hide_password=False)) for _ in range(4)]
    ends: list[str] = []
    threads = [threading.Thread(target=lambda one=one: ends.append(schema.migrate(one)[1])) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.dispose()
    assert ends == [schema.head()] * 4


def test_a_failed_revision_leaves_nothing_behind(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", fail)
        with pytest.raises(RuntimeError):
            schema.migrate(empty)
    assert sa.inspect(empty.engine).get_table_names() == []
    assert schema.migrate(empty)[1] == schema.head()


def test_a_database_of_a_newer_program_is_refused(empty: Database) -> None:
    schema.migrate(empty)
    with empty.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Damaged, match="install a newer"):
        schema.migrate(empty)


def test_foreign_keys_are_followed_again_after_a_migration(empty: Database) -> None:
    schema.migrate(empty)
    with pytest.raises(sa.exc.IntegrityError), empty.write() as connection:
        connection.execute(sa.insert(users).values(namespace_id=77, created_at=now()))
