"""Every way in which people let git-lfs log in, from nothing but a clone URL; and what a wrong token is told."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.test_git import create
from tests.services.house import House, open_house
from tests.services.programs import Git

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("logins")]
WRONG = "hf_" + "w" * 37
_numbers = itertools.count()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that shows nothing to people without a token; no token is in its log in the end."""
    with open_house(tmp_path_factory.mktemp("closed"), ANONYMOUS_READ="off") as house:
        yield house
        said = house.log.read_text()
    assert "info/lfs" in said
    assert not [word for word in (house.token, WRONG, basic(house.token)) if word in said]


def basic(token: str) -> str:
    """Write a token as the header of Basic has it."""
    return base64.b64encode(f"ann:{token}".encode()).decode()


def _in_url(git: Git, house: House) -> str:
    return house.url.replace("//", f"//ann:{house.token}@")


def _as_user(git: Git, house: House) -> str:
    return house.url.replace("//", f"//{house.token}:@")


def _stored(git: Git, house: House) -> str:
    (git.home / "tokens").write_text(_in_url(git, house) + "\n")
    git("config", "--global", "credential.helper", f"store --file={git.home}/tokens")
    return house.url


def _bearer(git: Git, house: House) -> str:
    git("config", "--global", f"http.{house.url}/.extraheader", f"Authorization: Bearer {house.token}")
    return house.url


def _basic(git: Git, house: House) -> str:
    git("config", "--global", f"http.{house.url}/.extraheader", f"Authorization: Basic {basic(house.token)}")
    return house.url


def _netrc(git: Git, house: House) -> str:
    (git.home / ".netrc").write_text(f"machine 127.0.0.1 login ann password {house.token}\n")
    return house.url


def round_trip(git: Git, tmp_path: Path, push_to: str, *, pull_from: str = "") -> None:
    """Clone, push weights, lock them, and clone again."""
    git("clone", "-q", pull_from or push_to, "work", at=tmp_path)
    work = tmp_path / "work"
    git.commit(work, {"model.safetensors": b"weights" * 1000})
    git("push", "-q", at=work)
    git("lfs", "lock", "model.safetensors", at=work)
    git("lfs", "unlock", "model.safetensors", at=work)
    git("clone", "-q", pull_from or push_to, "again", at=tmp_path)
    assert (tmp_path / "again/model.safetensors").read_bytes() == b"weights" * 1000


@pytest.mark.parametrize("way", [_in_url, _as_user, _stored, _bearer, _basic, _netrc])
def test_one_login_serves_git_and_git_lfs(
    closed: House, lfs_git: Git, tmp_path: Path, way: Callable[[Git, House], str]
) -> None:
    repo = create(closed, f"by{way.__name__}-{next(_numbers)}", private=True)
    round_trip(lfs_git, tmp_path, f"{way(lfs_git, closed)}/{repo}")


def test_git_lfs_may_have_an_address_of_its_own(closed: House, lfs_git: Git, tmp_path: Path) -> None:
    repo = create(closed, f"own-{next(_numbers)}", private=True)
    at = f"{_in_url(lfs_git, closed)}/{repo}"
    lfs_git("config", "--global", "lfs.url", f"{at}.git/info/lfs")
    (lfs_git.home / ".netrc").write_text(f"machine 127.0.0.1 login ann password {closed.token}\n")
    round_trip(lfs_git, tmp_path, f"{closed.url}/{repo}")


def test_a_public_repo_is_pulled_by_anybody_and_pushed_by_who_has_a_token(
    small_house: House, lfs_git: Git, tmp_path: Path
) -> None:
    repo = create(small_house, f"open-{next(_numbers)}")
    private = f"{_in_url(lfs_git, small_house)}/{repo}"
    lfs_git("config", "--global", f"url.{_in_url(lfs_git, small_house)}/.pushInsteadOf", f"{small_house.url}/")
    lfs_git("clone", "-q", f"{small_house.url}/{repo}", "work", at=tmp_path)
    lfs_git.commit(tmp_path / "work", {"model.safetensors": b"weights" * 1000})
    lfs_git("push", "-q", at=tmp_path / "work")
    lfs_git("clone", "-q", f"{small_house.url}/{repo}", "again", at=tmp_path)
    assert (tmp_path / "again/model.safetensors").read_bytes() == b"weights" * 1000
    assert lfs_git("ls-remote", private, "refs/heads/main").split()[0] == lfs_git(
        "rev-parse", "HEAD", at=tmp_path / "work"
    )


def test_who_has_no_token_reads_nothing_of_a_closed_house(closed: House, lfs_git: Git, tmp_path: Path) -> None:
    repo = create(closed, f"shut-{next(_numbers)}")
    assert lfs_git.attempt("clone", f"{closed.url}/{repo}", at=tmp_path).returncode != 0
    lfs_git("clone", "-q", closed.remote(repo), "work", at=tmp_path)
    lfs_git.commit(tmp_path / "work", {"model.safetensors": b"w"})
    lfs_git("push", "-q", at=tmp_path / "work")
    lfs_git("remote", "set-url", "origin", f"{closed.url}/{repo}", at=tmp_path / "work")
    (tmp_path / "work/.git/lfs/objects").rename(tmp_path / "taken")
    refused = lfs_git.attempt("lfs", "fetch", at=tmp_path / "work")
    assert refused.returncode != 0
    assert "redentials for" in refused.stderr or "could not read Username" in refused.stderr


def test_a_wrong_token_is_told_what_to_do_and_never_shown_by_us(closed: House, lfs_git: Git, tmp_path: Path) -> None:
    repo = create(closed, f"wrong-{next(_numbers)}")
    wrong = closed.remote(repo, WRONG)
    cloned = lfs_git.attempt("clone", wrong, at=tmp_path)
    assert cloned.returncode != 0
    assert "Log in with a valid one" in cloned.stderr or "Authentication failed" in cloned.stderr
    lfs_git("clone", "-q", closed.remote(repo), "work", at=tmp_path)
    lfs_git.commit(tmp_path / "work", {"model.safetensors": b"w"})
    lfs_git("config", "lfs.url", f"{wrong}.git/info/lfs", at=tmp_path / "work")
    for act in (["push"], ["lfs", "push", "origin", "main"], ["lfs", "lock", "model.safetensors"]):
        done = lfs_git.attempt(*act, at=tmp_path / "work")
        assert done.returncode != 0
        told = [line for line in done.stderr.splitlines() if "Invalid credentials" in line]
        assert any("Log in with a valid one" in line for line in told), done.stderr
        assert not any(WRONG in line for line in told)
