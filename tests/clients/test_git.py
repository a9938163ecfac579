"""Stock git against a whole registry: clone, fetch, push and what it says when something is refused."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.services.house import House
from tests.services.programs import Git

pytestmark = pytest.mark.clients
_numbers = itertools.count()


@pytest.fixture
def repo(house: House, tmp_path: Path) -> str:
    """A new repo with its first commit; its full name."""
    name = f"{tmp_path.name[:40].strip('-_.').replace('--', '-').replace('..', '.')}-{next(_numbers)}"
    return create(house, name)


def create(house: House, name: str, **options: object) -> str:
    """Make a repo by the API; return its full name."""
    body = json.dumps({"name": name, "type": "model"} | options).encode()
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(house.url + "/api/repos/create", body, headers)) as answer:
        return str(json.load(answer)["name"])


def refs(git: Git, url: str) -> dict[str, str]:
    """What `git ls-remote` shows."""
    lines = git("ls-remote", url).splitlines()
    return {name: sha for sha, name in (line.split("\t") for line in lines)}


@pytest.fixture
def work(house: House, repo: str, git: Git, tmp_path: Path) -> Path:
    """A clone of the repo with one commit pushed."""
    folder = tmp_path / "work"
    git("clone", "-q", house.remote(repo), str(folder))
    git.commit(folder, {"a.txt": "one\n", "dir/b.txt": "two\n"}, "first")
    git("push", "-q", "origin", "HEAD", at=folder)
    return folder


@pytest.mark.parametrize("version", ["0", "1", "2"])
def test_what_is_pushed_is_what_is_cloned(
    house: House, repo: str, work: Path, git: Git, tmp_path: Path, version: str
) -> None:
    git("-c", f"protocol.version={version}", "clone", "-q", house.remote(repo), "again", at=tmp_path)
    assert git("rev-parse", "HEAD", at=tmp_path / "again") == git("rev-parse", "HEAD", at=work)
    assert (tmp_path / "again" / "dir" / "b.txt").read_text() == "two\n"
    git("fsck", "--full", "--strict", at=tmp_path / "again")


def test_a_public_repo_is_cloned_without_a_token_with_and_without_git_suffix(
    house: House, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    for number, suffix in enumerate(("", ".git")):
        git("clone", "-q", f"{house.url}/{repo}{suffix}", f"c{number}", at=tmp_path)
    assert git.attempt("push", "-q", f"{house.url}/{repo}", "HEAD:main", at=work).returncode != 0


def test_a_private_repo_is_cloned_by_its_readers_alone(house: House, git: Git, tmp_path: Path) -> None:
    name = create(house, f"hidden-{tmp_path.name[-12:].strip('-_.')}", visibility="private")
    git("clone", "-q", house.remote(name), "mine", at=tmp_path)
    anonymous = git.attempt("clone", "-q", f"{house.url}/{name}", "theirs", at=tmp_path)
    assert "could not read Username" in anonymous.stderr
    absent = git.attempt("clone", "-q", f"{house.url}/ann/absent", "x", at=tmp_path)
    assert "could not read Username" in absent.stderr
    wrong = git.attempt("clone", "-q", house.remote(name, "hf_wrong"), "x", at=tmp_path)
    assert "Authentication failed" in wrong.stderr


def test_fetch_brings_what_is_new_and_pull_moves_on(
    house: House, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    git("clone", "-q", house.remote(repo), "other", at=tmp_path)
    shas = []
    for n in range(3):
        shas.append(git.commit(work, {"a.txt": f"{n}\n"}))
        git("push", "-q", at=work)
    git("pull", "-q", at=tmp_path / "other")
    assert git("rev-parse", "HEAD", at=tmp_path / "other") == shas[-1]
    git("fsck", "--full", "--strict", at=tmp_path / "other")


def test_shallow_clones_deepen_and_become_whole(house: House, repo: str, work: Path, git: Git, tmp_path: Path) -> None:
    for n in range(5):
        git.commit(work, {"a.txt": f"{n}\n"})
    git("push", "-q", at=work)
    total = int(git("rev-list", "--count", "HEAD", at=work))
    git("clone", "-q", "--depth", "1", house.remote(repo), "thin", at=tmp_path)
    thin = tmp_path / "thin"
    assert git("rev-list", "--count", "HEAD", at=thin) == "1"
    git("fetch", "-q", "--deepen", "2", at=thin)
    assert git("rev-list", "--count", "HEAD", at=thin) == "3"
    sha = git.commit(work, {"a.txt": "new\n"})
    git("push", "-q", at=work)
    git("pull", "-q", at=thin)
    assert git("rev-parse", "HEAD", at=thin) == sha
    git("fetch", "-q", "--unshallow", at=thin)
    assert int(git("rev-list", "--count", "HEAD", at=thin)) == total + 1
    git("fsck", "--full", "--strict", at=thin)


def test_a_shallow_clone_can_push(house: House, repo: str, work: Path, git: Git, tmp_path: Path) -> None:
    git("clone", "-q", "--depth", "1", house.remote(repo), "thin", at=tmp_path)
    sha = git.commit(tmp_path / "thin", {"new.txt": "x\n"})
    git("push", "-q", at=tmp_path / "thin")
    assert refs(git, house.remote(repo))["refs/heads/main"] == sha


def test_a_partial_clone_fetches_the_rest_when_it_needs_it(
    house: House, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    git("clone", "-q", "--filter=blob:none", "--no-checkout", house.remote(repo), "part", at=tmp_path)
    git("checkout", "-q", "main", at=tmp_path / "part")
    assert (tmp_path / "part" / "dir" / "b.txt").read_text() == "two\n"


def test_branches_and_tags_come_and_go(house: House, repo: str, work: Path, git: Git) -> None:
    git("branch", "side", at=work)
    git("tag", "v1", at=work)
    git("tag", "-a", "v2", "-m", "second", at=work)
    git("push", "-q", "origin", "side", "v1", "v2", at=work)
    shown = refs(git, house.remote(repo))
    head = git("rev-parse", "HEAD", at=work)
    assert shown["refs/heads/side"] == shown["refs/tags/v1"] == shown["refs/tags/v2^{}"] == head
    assert shown["refs/tags/v2"] == git("rev-parse", "v2", at=work) != head
    git("push", "-q", "origin", "--delete", "side", "v1", at=work)
    shown = refs(git, house.remote(repo))
    assert "refs/heads/side" not in shown
    assert "refs/tags/v1" not in shown


def test_history_is_rewritten_only_by_force(house: House, repo: str, work: Path, git: Git) -> None:
    before = git("rev-parse", "HEAD", at=work)
    git.commit(work, {"a.txt": "two\n"})
    git("push", "-q", at=work)
    git("reset", "-q", "--hard", before, at=work)
    sha = git.commit(work, {"a.txt": "other\n"})
    plain = git.attempt("push", "-q", at=work)
    assert plain.returncode != 0
    assert refs(git, house.remote(repo))["refs/heads/main"] != sha
    git("push", "-q", "--force", at=work)
    assert refs(git, house.remote(repo))["refs/heads/main"] == sha


def test_an_atomic_push_with_one_bad_ref_moves_nothing(house: House, repo: str, work: Path, git: Git) -> None:
    before = refs(git, house.remote(repo))
    git.commit(work, {"a.txt": "two\n"})
    done = git.attempt("push", "--atomic", "origin", "HEAD:refs/heads/good", "HEAD:refs/weightroom/bad", at=work)
    assert done.returncode != 0
    assert refs(git, house.remote(repo)) == before


def test_what_is_refused_is_said_where_the_user_looks(house: House, repo: str, work: Path, git: Git) -> None:
    done = git.attempt("push", "origin", "--delete", "main", at=work)
    assert "deletion of the current branch prohibited" in done.stderr
    done = git.attempt("push", "origin", "HEAD:refs/anything/x", at=work)
    assert "only refs/heads/*" in done.stderr


def test_of_eight_pushers_one_wins_and_all_are_told_the_truth(
    house: House, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    clones = []
    for n in range(8):
        git("clone", "-q", house.remote(repo), f"p{n}", at=tmp_path)
        clones.append(tmp_path / f"p{n}")
    shas = [git.commit(clone, {"a.txt": f"{n}\n"}) for n, clone in enumerate(clones)]
    results: dict[str, int] = {}

    def push(clone: Path, sha: str) -> None:
        results[sha] = git.attempt("push", "-q", "origin", "HEAD:main", at=clone).returncode

    racers = [threading.Thread(target=push, args=pair) for pair in zip(clones, shas, strict=True)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    won = [sha for sha, status in results.items() if status == 0]
    assert won == [refs(git, house.remote(repo))["refs/heads/main"]]


def test_a_large_push_travels_in_chunks(house: House, repo: str, work: Path, git: Git, tmp_path: Path) -> None:
    noise = "".join(f"{n * n * 7919 % 104729:x} {n}\n" for n in range(400_000)).encode()
    sha = git.commit(work, {"noise.txt": noise})
    git("push", "-q", at=work)
    git("clone", "-q", house.remote(repo), "again", at=tmp_path)
    assert git("rev-parse", "HEAD", at=tmp_path / "again") == sha
    assert (tmp_path / "again" / "noise.txt").read_bytes() == noise


def test_a_raw_sha_is_fetched_if_a_branch_reaches_it(
    house: House, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    old = git("rev-parse", "HEAD", at=work)
    git.commit(work, {"a.txt": "two\n"})
    git("push", "-q", at=work)
    git("init", "-q", "fresh", at=tmp_path)
    git("fetch", "-q", house.remote(repo), old, at=tmp_path / "fresh")
    done = git.attempt("fetch", "-q", house.remote(repo), "1" * 40, at=tmp_path / "fresh")
    assert "not our ref" in done.stderr


def test_datasets_and_spaces_have_their_own_addresses(house: House, git: Git, tmp_path: Path) -> None:
    for kind, prefix, more in (("dataset", "datasets/", {}), ("space", "spaces/", {"sdk": "gradio"})):
        name = create(house, f"typed-{tmp_path.name[-12:].strip('-_.')}", type=kind, **more)
        git("clone", "-q", house.remote(prefix + name), kind, at=tmp_path)
        sha = git.commit(tmp_path / kind, {"x.txt": kind})
        git("push", "-q", at=tmp_path / kind)
        assert refs(git, house.remote(prefix + name))["HEAD"] == sha


def test_credentials_may_come_in_a_header(house: House, repo: str, work: Path, git: Git) -> None:
    sha = git.commit(work, {"a.txt": "two\n"})
    header = f"http.extraHeader=Authorization: Bearer {house.token}"
    git("-c", header, "push", "-q", f"{house.url}/{repo}", "HEAD:main", at=work)
    assert refs(git, f"{house.url}/{repo}")["refs/heads/main"] == sha
