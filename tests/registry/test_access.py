"""Who may do what: rights are read on every request, and what may not be seen looks absent."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry import tokens
from registry.access import ANONYMOUS, Access
from registry.db import Database
from registry.errors import BadToken, Gated, GatedLogin, NeedsLogin, NotAllowed, RegistryError, RepoAbsent
from registry.names import RepoId
from registry.tables.identity import tokens as token_table
from registry.tables.identity import users
from registry.tables.repos import moves, refs, repos
from tests.registry import people

OPEN, SECRET = RepoId("model", "ann", "open"), RepoId("model", "ann", "secret")


@pytest.fixture
def ann(database: Database) -> int:
    """A user with a public and a private repo."""
    user_id = people.add_user(database, "ann")
    people.add_repo(database, "ann", "open")
    people.add_repo(database, "ann", "secret", visibility="private")
    return user_id


@pytest.fixture
def access(database: Database) -> Access:
    """Rights at a fixed time."""
    return Access(database, clock=lambda: people.START)


def test_everybody_reads_a_public_repo(access: Access, ann: int) -> None:
    visit = access.visit(None, OPEN)
    assert visit.actor == ANONYMOUS
    assert visit.repo.repo_id == OPEN
    assert visit.may("read")
    assert not visit.may("write")


def test_a_hidden_repo_looks_like_an_absent_one(access: Access, database: Database, ann: int) -> None:
    stranger = people.add_token(database, people.add_user(database, "bob"))
    for token, kind in ((None, NeedsLogin), (stranger, RepoAbsent)):
        said = []
        for repo in (SECRET, RepoId("model", "ann", "nothing"), RepoId("model", "nobody", "nothing")):
            with pytest.raises(kind) as caught:
                access.visit(token, repo)
            said.append(caught.value.message.replace(repo.full, "X"))
        assert len(set(said)) == 1


def test_the_owner_may_do_everything_with_a_write_token(access: Access, database: Database, ann: int) -> None:
    visit = access.visit(people.add_token(database, ann), SECRET, "admin")
    assert (visit.actor.name, visit.role) == ("ann", "admin")


def test_a_read_token_of_the_owner_only_reads(access: Access, database: Database, ann: int) -> None:
    token = people.add_token(database, ann, "read")
    assert access.visit(token, SECRET).role == "read"
    with pytest.raises(NotAllowed, match="not write"):
        access.visit(token, SECRET, "write")


@pytest.mark.parametrize(("role", "may_write"), [("read", False), ("write", True), ("admin", True)])
def test_members_have_their_role_in_the_organisation(
    access: Access, database: Database, role: str, may_write: bool
) -> None:
    lab = people.add_namespace(database, "lab", "org")
    people.add_repo(database, "lab", "m", visibility="private")
    bob = people.add_user(database, "bob")
    people.add_member(database, lab, bob, role)
    visit = access.visit(people.add_token(database, bob), RepoId("model", "lab", "m"))
    assert (visit.role, visit.may("write")) == (role, may_write)


def test_an_instance_admin_needs_an_admin_token(access: Access, database: Database, ann: int) -> None:
    root = people.add_user(database, "root", is_admin=True)
    with pytest.raises(RepoAbsent):
        access.visit(people.add_token(database, root, "write"), SECRET)
    assert access.visit(people.add_token(database, root, "admin"), SECRET).role == "admin"


def test_an_admin_token_of_an_ordinary_user_gives_no_more(access: Access, database: Database, ann: int) -> None:
    bob = people.add_user(database, "bob")
    with pytest.raises(RepoAbsent):
        access.visit(people.add_token(database, bob, "admin"), SECRET)


def test_a_wrong_token_is_refused_also_where_none_is_needed(access: Access, ann: int) -> None:
    for token in (tokens.mint(), "hf_short", "", "x" * 5000):
        for repo in (OPEN, RepoId("model", "ann", "nothing")):
            with pytest.raises(BadToken):
                access.visit(token, repo)
        with pytest.raises(BadToken):
            access.actor(token)


@pytest.mark.parametrize("how", ["revoked", "expired", "disabled"])
def test_a_withdrawn_token_stops_at_once(access: Access, database: Database, ann: int, how: str) -> None:
    expires = people.START if how == "expired" else people.START + timedelta(seconds=1)
    token = people.add_token(database, ann, expires_at=expires)
    if how != "expired":
        assert access.actor(token).name == "ann"
    with database.write() as connection:
        if how == "revoked":
            connection.execute(sa.update(token_table).values(revoked_at=people.START))
        elif how == "disabled":
            connection.execute(sa.update(users).values(disabled_at=people.START))
    with pytest.raises(BadToken):
        access.visit(token, OPEN)


def test_case_does_not_matter_and_answers_are_canonical(access: Access, ann: int) -> None:
    assert access.visit(None, RepoId("model", "ANN", "Open")).repo.repo_id == OPEN


def test_the_old_name_of_a_moved_repo_still_leads_there(access: Access, database: Database, ann: int) -> None:
    repo_id = access.visit(None, OPEN).repo.id
    with database.write() as connection:
        connection.execute(sa.insert(moves).values(type="model", old_fold="ann/before", repo_id=repo_id))
    assert access.visit(None, RepoId("model", "ann", "Before")).repo.repo_id == OPEN
    with pytest.raises(RegistryError):
        access.visit(None, RepoId("dataset", "ann", "before"))


def test_without_anonymous_reading_everybody_logs_in(database: Database, ann: int) -> None:
    with pytest.raises(NeedsLogin):
        Access(database, anonymous_read=False).visit(None, OPEN)


def test_the_tip_of_a_ref_comes_along(access: Access, database: Database, ann: int) -> None:
    repo_id = access.visit(None, OPEN).repo.id
    with database.write() as connection:
        row = {"repo_id": repo_id, "name": b"refs/heads/main", "target": "a" * 40, "updated_at": people.START}
        connection.execute(sa.insert(refs).values(row))
    assert access.visit(None, OPEN, ref=b"refs/heads/main").tip == "a" * 40
    assert access.visit(None, OPEN, ref=b"refs/heads/other").tip is None


def test_creating_needs_a_right_on_the_namespace(access: Access, database: Database, ann: int) -> None:
    lab = people.add_namespace(database, "lab", "org")
    people.add_member(database, lab, ann, "write")
    people.add_namespace(database, "other", "org")
    actor = access.actor(people.add_token(database, ann))
    assert access.may_create(actor, "Lab") == lab
    assert access.may_create(actor, "ann") == actor.namespace_id
    for namespace in ("other", "nobody"):
        with pytest.raises(NotAllowed):
            access.may_create(actor, namespace)
    with pytest.raises(NotAllowed):
        access.may_create(access.actor(people.add_token(database, ann, "read")), "ann")
    with pytest.raises(NeedsLogin):
        access.may_create(ANONYMOUS, "ann")


def test_use_of_a_token_is_noted_once_a_minute(access: Access, database: Database, ann: int) -> None:
    actor = access.actor(people.add_token(database, ann))
    access.touch(actor)
    with database.read() as connection:
        assert connection.execute(sa.select(token_table.c.last_used_at)).scalar_one() == people.START
    access.touch(ANONYMOUS)


def test_a_gate_lets_in_whoever_has_a_right_of_their_own(access: Access, database: Database, ann: int) -> None:
    lab = people.add_namespace(database, "lab", "org")
    people.add_repo(database, "lab", "m")
    bob, root = people.add_user(database, "bob"), people.add_user(database, "root", is_admin=True)
    people.add_member(database, lab, bob, "read")
    with database.write() as connection:
        connection.execute(sa.update(repos).values(gated="auto"))
    asked = RepoId("model", "lab", "m")
    for token, repo in (
        (people.add_token(database, ann, "read"), OPEN),
        (people.add_token(database, bob), asked),
        (people.add_token(database, root, "admin"), asked),
    ):
        access.visit(token, repo).check_gate("http://hub.test")
    for token in (people.add_token(database, ann), people.add_token(database, root)):
        with pytest.raises(Gated, match="not in the authorized list"):
            access.visit(token, asked).check_gate("http://hub.test")
    with pytest.raises(GatedLogin, match="log in"):
        access.visit(None, asked).check_gate("http://hub.test")
