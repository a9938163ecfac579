"""Leave that a token of the Hub was asked for ends with that token, whatever else its user may still do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from lfs.errors import BadToken
from lfs.xet.index import Leave, Scope
from registry.accounts import Accounts
from registry.db import Database
from registry.tables.identity import tokens, users
from tests.contracts.xet_grounds import ANN, FAR, MINE, RowsGround
from tests.registry import people

SCOPES: tuple[Scope, ...] = ("read", "write")


@pytest.fixture
def ground(database: Database) -> RowsGround:
    return RowsGround(database)


def given(ground: RowsGround, user: int = ANN, repo: int = MINE, scope: Scope = "write", role: str = "write") -> Leave:
    """Make a user a token, and return the leave that it was asked for."""
    people.add_token(ground.database, user, role)
    with ground.database.read() as connection:
        made = connection.execute(sa.select(sa.func.max(tokens.c.id))).scalar_one()
    return Leave(repo, user, ground.domain(repo), scope, 0, made)


def change(ground: RowsGround, leave: Leave, **values: object) -> None:
    with ground.database.write() as connection:
        connection.execute(sa.update(tokens).where(tokens.c.id == leave.token_id).values(values))


def revoke(ground: RowsGround, leave: Leave) -> None:
    Accounts(ground.database).revoke_token("ann", leave.token_id)


def end(ground: RowsGround, leave: Leave) -> None:
    change(ground, leave, expires_at=ground.clock.moment())


def remove(ground: RowsGround, leave: Leave) -> None:
    with ground.database.write() as connection:
        connection.execute(sa.delete(tokens).where(tokens.c.id == leave.token_id))


@pytest.mark.parametrize("ending", [revoke, end, remove])
@pytest.mark.parametrize("scope", SCOPES)
def test_leave_ends_with_its_token_and_with_no_other(
    ground: RowsGround, ending: Callable[[RowsGround, Leave], None], scope: Scope
) -> None:
    first, second = given(ground, scope=scope), given(ground, scope=scope)
    change(ground, first, expires_at=ground.clock.moment() + timedelta(seconds=1))
    for leave in (first, second):
        ground.index.enter(leave, 0)
    ending(ground, first)
    # Also of what everybody may read: whoever sends a token says whose request this is.
    with pytest.raises(BadToken, match="ask for a new one"):
        ground.index.enter(first, 0)
    ground.index.enter(second, 0)


def test_the_token_of_another_user_holds_nothing(ground: RowsGround) -> None:
    bob = people.add_user(ground.database, "bob")
    theirs = given(ground, bob)
    for leave in (replace(theirs, actor_id=ANN), replace(theirs, actor_id=0, scope="read")):
        with pytest.raises(BadToken):
            ground.index.enter(leave, 0)


def test_a_token_that_was_narrowed_writes_no_more(ground: RowsGround) -> None:
    write, read = given(ground), given(ground, scope="read")
    for leave in (write, read):
        change(ground, leave, role="read")
    ground.index.enter(read, 0)
    with pytest.raises(BadToken):
        ground.index.enter(write, 0)


def test_an_admin_comes_in_everywhere_by_a_token_for_that(ground: RowsGround) -> None:
    root = people.add_user(ground.database, "root", is_admin=True)
    for scope in SCOPES:
        leave = given(ground, root, FAR, scope, "admin")
        ground.index.enter(leave, 0)
        change(ground, leave, role="write")
        with pytest.raises(BadToken):
            ground.index.enter(leave, 0)
        change(ground, leave, role="admin")
    with ground.database.write() as connection:
        connection.execute(sa.update(users).where(users.c.id == root).values(is_admin=False))
    with pytest.raises(BadToken):
        ground.index.enter(leave, 0)
