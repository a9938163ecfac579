"""Sites for hostile clients: each house is furnished with people once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.hostile import Site, unharmed
from tests.services.house import House


@pytest.fixture(scope="session")
def sites() -> Iterator[dict[str, Site]]:
    """The sites made so far, by address."""
    made: dict[str, Site] = {}
    yield made
    for site in made.values():
        site.client.close()


@pytest.fixture
def site(house: House, sites: dict[str, Site]) -> Iterator[Site]:
    """Either kind of house with people in it; it must be well after the test."""
    found = sites.get(house.url) or sites.setdefault(house.url, Site(house))
    with unharmed(found):
        yield found


@pytest.fixture
def small_site(small_house: House, sites: dict[str, Site]) -> Iterator[Site]:
    """The small house with people in it; it must be well after the test."""
    found = sites.get(small_house.url) or sites.setdefault(small_house.url, Site(small_house))
    with unharmed(found):
        yield found


@pytest.fixture
def kept(small_site: Site) -> Iterator[str]:
    """A repo whose refs are the same after the test."""
    name = small_site.repo()
    before = small_site.refs(name)
    yield name
    assert small_site.refs(name) == before


@pytest.fixture
def own(site: Site) -> Iterator[str]:
    """A repo whose branch is where it was after the test."""
    repo = site.repo()
    before = site.refs(repo)
    yield repo
    assert site.refs(repo) == before


@pytest.fixture
def small(small_site: Site) -> Iterator[str]:
    """The same in the small house."""
    repo = small_site.repo()
    before = small_site.refs(repo)
    yield repo
    assert small_site.refs(repo) == before
