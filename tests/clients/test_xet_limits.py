"""Who asks too much of the Xet door is told to come later, and what was begun by others goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.limits import USER_FACTOR
from tests.clients.chunking import Chunker, chunker, file_of
from tests.clients.hostile import Site
from tests.lfs.xet.xorbs import random_xorb
from tests.services.house import open_house

pytestmark = pytest.mark.clients

LIMIT = 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with open_house(tmp_path / "house", LIMIT_XET=str(LIMIT)) as house, Site(house) as made:
        yield made


def asked(who: Chunker, file: str) -> int:
    """Ask until it is too much; return how often it was answered."""
    for count in range(10 * LIMIT * USER_FACTOR):
        answer = who.ask("GET", f"/v2/reconstructions/{file}")
        if answer.status_code != 200:
            assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (429, True)
            assert "WEIGHTROOM_LIMIT_XET" in answer.json()["error"]
            return count
    raise AssertionError("nothing was too much")


def test_a_user_is_counted_wherever_their_token_is_used_and_strangers_by_address(site: Site) -> None:
    repo, first, second = site.repo(), random_xorb(8_901), random_xorb(8_902)
    owner, guest = chunker(site, repo), chunker(site, repo, "read", None)
    file = owner.store(first)
    # What the address has used up does not keep those out who say who they are.
    assert asked(guest, file) <= LIMIT
    assert asked(chunker(site, repo, "read"), file) >= LIMIT * (USER_FACTOR - 1)
    # Another token of theirs counts with the first; what brings bytes goes on, and a chunk is not looked for.
    again = chunker(site, repo)
    assert again.store(second) == file_of(second)
    assert again.statuses(second, file_of(second)) == {
        "chunk": 404,
        "grant": 429,
        "xorb": 429,
        "file": 429,
        "v1": 429,
        "v2": 429,
    }
