"""Accounts as their owners and others see them."""

import pytest

from registry.access import ANONYMOUS, Access
from registry.accounts import AccountAbsent
from registry.errors import NeedsLogin
from registry.profiles import OrgRole, Profiles
from tests.registry import people


@pytest.fixture
def profiles(database):
    user = people.add_user(database, "ann")
    lab = people.add_namespace(database, "Lab", "org")
    people.add_member(database, lab, user, "write")
    people.add_repo(database, "ann", "one")
    people.add_repo(database, "ann", "secret", visibility="private")
    return Profiles(database)


def test_a_user_sees_names_orgs_and_the_token_in_use(profiles, database):
    actor = Access(database).actor(people.add_token(database, 1, "read"))
    me = profiles.me(actor)
    assert (me.name, me.email, me.token_role) == ("ann", None, "read")
    assert [(org.name, org.role) for org in me.orgs] == [("Lab", "write")]


def test_nobody_has_no_profile(profiles):
    with pytest.raises(NeedsLogin):
        profiles.me(ANONYMOUS)


def test_others_see_public_repos_only(profiles):
    ann, lab = profiles.user("Ann"), profiles.org("LAB")
    assert (ann.name, dict(ann.repos)) == ("ann", {"model": 1})
    assert lab.people == (OrgRole(1, "ann", "", "write"),)


def test_users_and_organisations_are_not_taken_for_one_another(profiles):
    for ask in (lambda: profiles.user("lab"), lambda: profiles.org("ann"), lambda: profiles.user("none")):
        with pytest.raises(AccountAbsent):
            ask()
