"""A prepared look-up fails as the rest of the database does: in our words, and only for as long as there is cause."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.errors import Busy
from registry.tables.identity import namespaces
from tests.registry import people
from tests.services.house import free_port

NAMED = sa.select(namespaces.c.id, namespaces.c.created_at).where(namespaces.c.name_fold == sa.bindparam("name"))


def test_a_row_comes_back_as_the_usual_path_gives_it(database: Database) -> None:
    people.add_namespace(database, "ann")
    look = database.prepare(NAMED)
    with database.read() as connection:
        usual = connection.execute(NAMED, {"name": "ann"}).one()
    assert look.first({"name": "ann"}) == tuple(usual)
    assert look.first({"name": "bob"}) is None


@pytest.mark.postgres
def test_a_server_that_is_down_is_a_reason_to_come_back() -> None:
    database = Database(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none")
    for ask in (lambda: database.prepare(NAMED).first({"name": "ann"}), lambda: _read(database)):
        with pytest.raises(Busy, match="try again"):
            ask()
    database.dispose()


@pytest.mark.postgres
def test_a_connection_that_died_in_use_costs_one_request(postgres_database: Database) -> None:
    look = postgres_database.prepare(NAMED)
    look.first({"name": "ann"})

    @sa.event.listens_for(postgres_database.engine, "checkout", once=True)
    def die(connection: sa.engine.interfaces.DBAPIConnection, record: object, proxy: object) -> None:
        connection.close()

    with pytest.raises(Busy, match="try again"):
        look.first({"name": "ann"})
    assert look.first({"name": "ann"}) is None


def test_a_pool_with_nothing_left_is_a_reason_to_come_back(sqlite_database: Database) -> None:
    small = Database(sqlite_database.url.render_as_string(), pool=1, patience=0.1)
    look = small.prepare(NAMED)
    with ExitStack() as held:
        with pytest.raises(Busy, match="try again"):
            _take_all(small, held)
        with pytest.raises(Busy, match="try again"):
            look.first({"name": "ann"})
    assert look.first({"name": "ann"}) is None
    small.dispose()


def _take_all(database: Database, held: ExitStack) -> None:
    while True:
        held.enter_context(database.read())


def _read(database: Database) -> object:
    with database.read() as connection:
        return connection.execute(sa.text("SELECT 1")).scalar()


def test_lists_of_any_length_find_what_the_usual_path_finds(database: Database) -> None:
    names = [f"ann{number}" for number in range(9)]
    for name in names:
        people.add_namespace(database, name)
    listed = sa.select(namespaces.c.name, namespaces.c.created_at).where(
        namespaces.c.name_fold.in_(sa.bindparam("names", expanding=True)),
        namespaces.c.created_at > sa.bindparam("after"),
    )
    look = database.prepare(listed.order_by(namespaces.c.name))
    for count in (1, 2, 3, 8, 9):
        asked = {"names": names[:count], "after": datetime(2000, 1, 1, tzinfo=UTC)}
        with database.read() as connection:
            usual = [tuple(row) for row in connection.execute(listed.order_by(namespaces.c.name), asked)]
            assert [tuple(row) for row in look.within(connection, asked)] == usual
        assert [row.name for row in look.every(asked)] == names[:count]
    assert look.every({"names": names, "after": datetime(2100, 1, 1, tzinfo=UTC)}) == []


def test_a_change_reaches_the_rows_it_names_and_no_other(database: Database) -> None:
    for name in ("ann", "bob", "eve"):
        people.add_namespace(database, name)
    here = namespaces.c.name_fold == sa.bindparam("named")
    change = database.prepare_change(sa.update(namespaces).where(here).values(quota=sa.bindparam("room")))
    with database.write() as connection:
        change.put(connection, [{"named": "ann", "room": 1}, {"room": 2, "named": "bob"}])
        change.put(connection, [])
    with database.read() as connection:
        found = connection.execute(sa.select(namespaces.c.quota).order_by(namespaces.c.name)).scalars().all()
    assert found == [1, 2, None]
