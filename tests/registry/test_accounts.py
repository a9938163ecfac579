"""Accounts: names are unique without case, tokens are seen once and end at once, the last admin stays."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry.access import Access
from registry.accounts import AccountAbsent, Accounts
from registry.db import Database, now
from registry.errors import BadBody, BadName, BadToken, Exists, NotAllowed
from registry.tables.identity import tokens as token_table
from registry.tables.work import events


@pytest.fixture
def accounts(database: Database) -> Accounts:
    made = Accounts(database)
    made.create_user("ada", fullname="Ada L.")
    return made


def test_a_user_has_a_namespace_of_their_name(accounts: Accounts, database: Database) -> None:
    actor = Access(database).actor(accounts.create_token("ADA"))
    assert (actor.name, actor.is_admin, actor.token_role) == ("ada", False, "write")
    assert Access(database).may_create(actor, "ada") == actor.namespace_id


@pytest.mark.parametrize("name", ["Ada", "ADA", "ada"])
def test_a_name_is_taken_whatever_its_case(accounts: Accounts, name: str) -> None:
    with pytest.raises(Exists):
        accounts.create_user(name)
    with pytest.raises(Exists):
        accounts.create_org(name, "ada")


@pytest.mark.parametrize("name", ["api", "Datasets", "a/b", "", "-x", "a..b", "x.git"])
def test_a_name_that_would_shadow_a_route_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(BadName):
        accounts.create_user(name)


def test_the_plain_token_is_nowhere_in_the_database(accounts: Accounts, database: Database) -> None:
    token = accounts.create_token("ada", "read", label="laptop")
    with database.read() as connection:
        rows = connection.execute(sa.select(token_table)).all() + connection.execute(sa.select(events)).all()
    assert token not in repr(rows)
    assert [(row.label, row.role, row.last_used_at) for row in accounts.tokens("ada")] == [("laptop", "read", None)]


def test_a_revoked_token_is_refused_at_once(accounts: Accounts, database: Database) -> None:
    token = accounts.create_token("ada")
    (row,) = accounts.tokens("ada")
    accounts.revoke_token("ada", row.id)
    with pytest.raises(BadToken):
        Access(database).actor(token)
    assert accounts.tokens("ada") == []
    with pytest.raises(AccountAbsent):
        accounts.revoke_token("ada", row.id)


def test_nobody_revokes_the_token_of_another(accounts: Accounts, database: Database) -> None:
    accounts.create_user("bob")
    token = accounts.create_token("ada")
    with pytest.raises(AccountAbsent):
        accounts.revoke_token("bob", accounts.tokens("ada")[0].id)
    assert Access(database).actor(token).name == "ada"


def test_a_token_ends_when_it_was_to_end(accounts: Accounts, database: Database) -> None:
    token = accounts.create_token("ada", expires_at=now() + timedelta(hours=1))
    assert Access(database).actor(token).name == "ada"
    with pytest.raises(BadToken):
        Access(database, clock=lambda: now() + timedelta(hours=2)).actor(token)


def test_only_admins_have_admin_tokens(accounts: Accounts) -> None:
    with pytest.raises(NotAllowed):
        accounts.create_token("ada", "admin")
    with pytest.raises(BadBody):
        accounts.create_token("ada", "root")  # type: ignore[arg-type]  # what a command line may send
    with pytest.raises(AccountAbsent, match="weightroom user create"):
        accounts.create_token("eve")


def test_members_have_their_role_in_the_organisation(accounts: Accounts, database: Database) -> None:
    bob = accounts.create_user("bob")
    accounts.create_org("lab", "ada", fullname="The Lab")
    accounts.set_member("LAB", "bob", "read")
    actor = Access(database).actor(accounts.create_token("bob"))
    with pytest.raises(NotAllowed):
        Access(database).may_create(actor, "lab")
    accounts.set_member("lab", "bob", "write")
    Access(database).may_create(actor, "lab")
    assert [(one.org, one.fullname, one.role) for one in accounts.memberships(bob.id)] == [("lab", "The Lab", "write")]
    accounts.remove_member("lab", "bob")
    assert accounts.memberships(bob.id) == []


def test_an_organisation_keeps_its_last_admin(accounts: Accounts) -> None:
    accounts.create_org("lab", "ada")
    with pytest.raises(NotAllowed):
        accounts.set_member("lab", "ada", "read")
    with pytest.raises(NotAllowed):
        accounts.remove_member("lab", "ada")
    accounts.create_user("bob")
    accounts.set_member("lab", "bob", "admin")
    accounts.remove_member("lab", "ada")


def test_a_user_is_no_organisation(accounts: Accounts) -> None:
    with pytest.raises(AccountAbsent):
        accounts.set_member("ada", "ada", "read")


def test_a_password_is_known_and_never_kept(accounts: Accounts, database: Database) -> None:
    accounts.create_user("bob", password="correct horse battery")
    assert accounts.knows("Bob", "correct horse battery")
    assert not accounts.knows("bob", "correct horse batterie")
    assert not accounts.knows("ada", "correct horse battery")
    with pytest.raises(BadBody):
        accounts.set_password("bob", "short")


def test_the_first_admin_is_made_once(database: Database) -> None:
    accounts = Accounts(database)
    made: list[str | None] = []
    threads = [threading.Thread(target=lambda: made.append(accounts.first_admin())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (token,) = [one for one in made if one is not None]
    actor = Access(database).actor(token)
    assert (actor.name, actor.superuser) == ("admin", True)
    assert accounts.first_admin() is None
