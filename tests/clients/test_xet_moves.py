"""Chunks are found from where their repo is: not from open repos once it is closed, and then from the closed ones."""

from __future__ import annotations

import itertools

import pytest

from tests.clients.chunking import chunker, file_of
from tests.clients.hostile import Site
from tests.lfs.xet.xorbs import Made, random_xorb

pytestmark = pytest.mark.clients
_seeds = itertools.count(70_000)
NOWHERE = {"chunk": 404, "xorb": 404, "file": 404, "v1": 404, "v2": 404}


def fresh() -> Made:
    """Make a xorb that no other test has."""
    return random_xorb(next(_seeds))


def change(site: Site, repo: str, **settings: object) -> None:
    """Change settings of a repo."""
    answer = site.ask("PUT", f"/api/models/{repo}/settings", json=settings)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("closing", [{"private": True}, {"gated": "auto"}], ids=["private", "gated"])
def test_a_closed_repo_is_not_asked_after_from_an_open_one(site: Site, closing: dict[str, object]) -> None:
    repo, public, sibling, xorb = site.repo(), site.repo(), site.repo(private=True), fresh()
    file = chunker(site, repo).store(xorb)
    before = chunker(site, public)
    assert before.statuses(xorb, file) == NOWHERE | {"chunk": 200, "grant": 200, "xorb": 200}
    change(site, repo, **closing)
    for open_one in (before, chunker(site, public)):
        found, absent = open_one.statuses(xorb, file), open_one.statuses(other := fresh(), file_of(other))
        assert found == absent
        assert found.pop("grant") in (201, 404)
        assert found == NOWHERE
    # Who remembers the xorb from before is refused, and begins afresh under another address.
    assert before.file(xorb).status_code == 400
    assert chunker(site, public).cas != before.cas
    for closed_one in (chunker(site, repo), chunker(site, sibling)):
        found = closed_one.statuses(xorb, file)
        assert (found["chunk"], found["grant"], found["xorb"]) == (200, 200, 200)
    assert chunker(site, repo).file(xorb).status_code == 200


def test_a_repo_that_is_opened_is_asked_after_from_open_ones(site: Site) -> None:
    repo, public, xorb = site.repo(private=True), site.repo(), fresh()
    file = chunker(site, repo).store(xorb)
    assert chunker(site, public).statuses(xorb, file)["chunk"] == 404
    change(site, repo, private=False)
    for one in (repo, public):
        found = chunker(site, one).statuses(xorb, file)
        assert (found["chunk"], found["grant"], found["xorb"]) == (200, 200, 200)
    assert chunker(site, public).file(xorb).status_code == 200
