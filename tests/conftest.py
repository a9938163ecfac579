"""Whole registries for tests that come from outside, by the doors: each kind of rows and bytes once per worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import postgres, s3
from tests.services.house import House, open_house
from tests.services.programs import Git, need

# Tests are busier than any user; what the limits do has tests of its own.
QUIET = {"LIMIT_API": "0", "LIMIT_RESOLVE": "0", "LIMIT_GIT": "0", "LIMIT_LFS": "0"}


@pytest.fixture(scope="session")
def small_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A registry on SQLite and a folder."""
    with open_house(tmp_path_factory.mktemp("small"), **QUIET) as house:
        yield house


@pytest.fixture(scope="session")
def large_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A registry on PostgreSQL and a bucket."""
    folder = tmp_path_factory.mktemp("large")
    with postgres.fresh_database(postgres.server()) as database, s3.moto() as endpoint:
        s3.make_bucket(endpoint, "weights")
        settings = {
            "DATABASE": database,
            "STORAGE": f"s3://weights/prod?endpoint={endpoint.url}&region={endpoint.region}&style=path",
            "S3_ACCESS_KEY": endpoint.access_key,
            "S3_SECRET_KEY": endpoint.secret_key,
        }
        with open_house(folder, **settings, **QUIET) as house:
            yield house


@pytest.fixture(
    params=[
        "small",
        pytest.param("large", marks=[pytest.mark.postgres, pytest.mark.s3, pytest.mark.xdist_group("large")]),
    ]
)
def house(request: pytest.FixtureRequest) -> House:
    """A registry; each test that takes it runs on both kinds."""
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """git with a home of this test's own."""
    need("git")
    return Git(tmp_path / "home")
