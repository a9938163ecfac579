"""Whole registries for tests that come from outside, by the doors: each kind of rows and bytes once per worker."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.services import postgres, s3
from tests.services.ceph import ceph
from tests.services.house import House, open_house
from tests.services.programs import Git, need, newest_git_lfs

# The same examples in every run; how long one takes says more of the machine than of the code.
settings.register_profile("weightroom", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weightroom")

# Tests are busier than any user; what the limits do has tests of its own.
QUIET = {"LIMIT_API": "0", "LIMIT_RESOLVE": "0", "LIMIT_GIT": "0", "LIMIT_LFS": "0", "LIMIT_XET": "0"}
# Files of tests are smaller than any user's.
LITTLE = {"MULTIPART_THRESHOLD": "8MiB", "PART_SIZE": "5MiB"}


@pytest.fixture(scope="session")
def small_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A registry on SQLite and a folder."""
    with open_house(tmp_path_factory.mktemp("small"), **QUIET, **LITTLE) as house:
        yield house


@pytest.fixture(scope="session")
def large_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A registry on PostgreSQL and a bucket."""
    folder = tmp_path_factory.mktemp("large")
    with postgres.fresh_database(postgres.server()) as database, s3.moto() as endpoint:
        s3.make_bucket(endpoint, "weights")
        with open_house(folder, DATABASE=database, **bucket(endpoint), **QUIET, **LITTLE) as house:
            yield house


@pytest.fixture(scope="session")
def ceph_house(tmp_path_factory: pytest.TempPathFactory, ceph_server: s3.S3Endpoint) -> Iterator[House]:
    """A registry on a bucket that enforces hashes; tests that take it carry `s3` and `xdist_group("ceph")`."""
    name = f"weights-{secrets.token_hex(4)}"
    s3.make_bucket(ceph_server, name)
    with open_house(tmp_path_factory.mktemp("ceph"), **bucket(ceph_server, name), **QUIET, **LITTLE) as house:
        assert house.enforced() == "content_sha256"
        yield house


def bucket(endpoint: s3.S3Endpoint, name: str = "weights") -> dict[str, str]:
    """Settings that put bytes into a bucket."""
    return {
        "STORAGE": f"s3://{name}/prod?endpoint={endpoint.url}&region={endpoint.region}&style=path",
        "S3_ACCESS_KEY": endpoint.access_key,
        "S3_SECRET_KEY": endpoint.secret_key,
    }


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


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[s3.S3Endpoint]:
    """A Ceph gateway; tests that take it carry `xdist_group("ceph")`, so that there is one."""
    with ceph() as endpoint:
        yield endpoint


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """git with a home of this test's own."""
    need("git")
    return Git(tmp_path / "home")


@pytest.fixture(params=["oldest git-lfs", "newest git-lfs"])
def lfs_git(request: pytest.FixtureRequest, tmp_path: Path) -> Git:
    """git with a git-lfs set up; each test that takes it runs with the oldest supported and the newest."""
    need("git", "git-lfs")
    programs = newest_git_lfs().parent if request.param.startswith("newest") else None
    made = Git(tmp_path / "home", programs=programs)
    made("lfs", "install", "--skip-repo")
    return made
