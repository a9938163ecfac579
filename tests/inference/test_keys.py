"""Keys: who a bearer is, for how long an answer is believed, and what the registry is asked with."""

from __future__ import annotations

import hashlib

import pytest

from inference.errors import InvalidKey, Unavailable
from inference.keys import KNOWN_SECONDS, REFUSED_SECONDS, Caller, Keys, read_hashes


class House:
    """A registry's users, a clock, and a count of the questions."""

    def __init__(self) -> None:
        self.users = {"hf_ada": "ada"}
        self.now = 0.0
        self.asked = 0
        self.away = False

    def whoami(self, token: str) -> str:
        self.asked += 1
        if self.away:
            raise Unavailable("away", code="registry_unavailable")
        if token not in self.users:
            raise InvalidKey("no")
        return self.users[token]

    def keys(self) -> Keys:
        return Keys("registry", whoami=self.whoami, clock=lambda: self.now)


def test_an_open_house_asks_nobody_and_reads_with_its_own_token() -> None:
    keys = Keys("none", own_token="hf_own")
    assert keys.caller(None) == keys.caller("anything") == Caller("local", "hf_own")
    assert not keys.personal


def test_a_file_of_hashes_lets_in_who_holds_a_key() -> None:
    digest = hashlib.sha256(b"sesame").hexdigest()
    keys = Keys("file", hashes=read_hashes(f"{digest}\n\n"), own_token="hf_own")
    assert keys.caller("sesame").token == "hf_own"
    assert "sesame" not in keys.caller("sesame").actor
    for wrong in (None, "other", digest):
        with pytest.raises(InvalidKey):
            keys.caller(wrong)


def test_a_registry_token_is_its_users_and_is_passed_on() -> None:
    house = House()
    assert house.keys().caller("hf_ada") == Caller("ada", "hf_ada")
    assert house.keys().personal


def test_nobody_in_particular_may_see_what_the_registry_shows_to_all() -> None:
    assert House().keys().caller(None) == Caller("anonymous", None)


def test_the_registry_is_asked_once_a_minute_and_a_revoked_token_ends_then() -> None:
    house = House()
    keys = house.keys()
    keys.caller("hf_ada")
    house.users.clear()
    house.now = KNOWN_SECONDS - 1
    assert keys.caller("hf_ada").actor == "ada"
    assert house.asked == 1
    house.now = KNOWN_SECONDS
    with pytest.raises(InvalidKey):
        keys.caller("hf_ada")


def test_a_refusal_is_believed_for_seconds_only() -> None:
    house = House()
    keys = house.keys()
    for _ in range(3):
        with pytest.raises(InvalidKey):
            keys.caller("hf_new")
    assert house.asked == 1
    house.users["hf_new"] = "new"
    house.now = REFUSED_SECONDS
    assert keys.caller("hf_new").actor == "new"


def test_a_registry_that_is_away_refuses_nobody_for_good() -> None:
    house = House()
    keys = house.keys()
    house.away = True
    with pytest.raises(Unavailable):
        keys.caller("hf_ada")
    house.away = False
    assert keys.caller("hf_ada").actor == "ada"


def test_a_token_is_never_shown() -> None:
    assert "hf_ada" not in repr(House().keys().caller("hf_ada"))
