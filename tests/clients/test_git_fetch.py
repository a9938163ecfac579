"""Real git fetches over a socket, in every protocol version it has."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dulwich import porcelain

from registry.git.snapshot import Ref
from tests.registry.git.packed import ENVIRONMENT, Depot, git, grow, new_repo
from tests.registry.git.serving import Door, door

pytestmark = pytest.mark.clients
NAME = "lab/model"


class World:
    """A source repository, its packs, and a door that serves them."""

    def __init__(self, folder: Path, running: Door, depot: Depot, source: Path, commits: list[str]) -> None:
        self.folder, self.door, self.depot, self.source, self.commits = folder, running, depot, source, commits
        self.url = f"{running.url}/{NAME}"
        self.version = 0

    def publish(self, *, exact: bool = False, hide: dict[str, str] | None = None) -> None:
        """Let the door serve the refs that the source has now."""
        self.version += 1
        made = self.depot.snapshot(self.source, version=self.version, exact=exact, repo_id=self.version)
        hidden = {name.encode(): Ref(name.encode(), sha) for name, sha in (hide or {}).items()}
        refs = dict(sorted({**made.refs, **hidden}.items()))
        kept = type(made)(**{name: getattr(made, name) for name in made.__slots__} | {"refs": refs})
        self.door.town.snapshots[NAME] = kept

    def listed(self, *arguments: str) -> set[str]:
        text = git(self.source, "rev-list", "--objects", *arguments).decode()
        return {line.split()[0] for line in text.splitlines()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    source = new_repo(tmp_path / "source")
    commits = grow(source, 40, seed=7)
    git(source, "tag", "-a", "-m", "one", "v1", commits[15])
    git(source, "tag", "light", commits[5])
    depot = Depot(tmp_path)
    depot.add(source, commits[:25])
    depot.add(source, (), commits[:25])
    with door(tmp_path, depot) as running:
        made = World(tmp_path, running, depot, source, commits)
        made.publish()
        yield made


@pytest.fixture(params=["2", "1", "0"])
def version(request: pytest.FixtureRequest) -> str:
    return f"protocol.version={request.param}"


def held(clone: Path) -> set[str]:
    listing = git(clone, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)", "--unordered")
    return set(listing.decode().split())


def whole(clone: Path) -> None:
    git(clone, "fsck", "--full", "--strict")


def test_clones_of_every_kind_are_whole(world: World, version: str) -> None:
    everything = world.listed("--all")
    git(world.folder, "-c", version, "clone", "-q", world.url, "plain")
    git(world.folder, "-c", version, "clone", "-q", "--bare", world.url + ".git", "bare")
    git(world.folder, "-c", version, "clone", "-q", "--mirror", world.url, "mirror")
    git(world.folder, "-c", version, "clone", "-q", "--single-branch", "--no-tags", "-b", "side", world.url, "single")
    for name in ("plain", "bare", "mirror", "single"):
        whole(world.folder / name)
    assert held(world.folder / "mirror") == held(world.folder / "bare") == everything
    # A clone of one branch asks for the tags of what it gets, even with --no-tags.
    assert held(world.folder / "single") == world.listed("side", "v1")
    theirs = git(world.folder / "mirror", "for-each-ref")
    assert theirs == git(world.source, "for-each-ref")


def test_a_repo_whose_packs_are_its_closure_is_cloned_as_stored(world: World, version: str) -> None:
    world.publish(exact=True)
    git(world.folder, "-c", version, "clone", "-q", "--mirror", world.url, "two-packs")
    world.depot.rows.clear()
    world.depot.add(world.source)
    world.publish(exact=True)
    builds = world.door.responses.builds
    git(world.folder, "-c", version, "clone", "-q", "--mirror", world.url, "one-pack")
    assert world.door.responses.builds == builds
    for name in ("two-packs", "one-pack"):
        whole(world.folder / name)
        assert held(world.folder / name) == world.listed("--all")


def test_shallow_clones_deepen_until_they_are_complete(world: World, version: str) -> None:
    git(world.folder, "-c", version, "clone", "-q", "--depth", "1", world.url, "shallow")
    clone = world.folder / "shallow"
    assert git(clone, "rev-list", "--count", "HEAD").strip() == b"1"
    for arguments in (["--deepen", "2"], ["--depth", "6"], ["--shallow-exclude", "light"], ["--unshallow"]):
        git(clone, "-c", version, "fetch", "-q", *arguments)
        whole(clone)
    assert not (clone / ".git" / "shallow").exists()
    assert git(clone, "rev-list", "--count", "HEAD") == git(world.source, "rev-list", "--count", "main")


def test_shallow_by_date_holds_what_git_would_send(world: World, version: str) -> None:
    middle = git(world.source, "show", "-s", "--format=%ct", world.commits[20]).decode().strip()
    arguments = ["clone", "-q", "--bare", f"--shallow-since={middle}"]
    git(world.folder, "-c", version, *arguments, world.url, "ours")
    git(world.folder, "-c", version, *arguments, world.source.as_uri(), "theirs")
    whole(world.folder / "ours")
    assert held(world.folder / "ours") == held(world.folder / "theirs")


def test_new_commits_are_fetched_into_full_and_shallow_clones(world: World, version: str) -> None:
    git(world.folder, "-c", version, "clone", "-q", world.url, "full")
    git(world.folder, "-c", version, "clone", "-q", "--depth", "3", world.url, "shallow")
    for number in range(3):
        old = git(world.source, "rev-parse", "main").decode().strip()
        tree = git(world.source, "rev-parse", f"{world.commits[number]}^{{tree}}").decode().strip()
        new = git(world.source, "commit-tree", "-p", old, "-m", f"new {number}", tree).decode().strip()
        git(world.source, "update-ref", "refs/heads/main", new)
        git(world.source, "tag", "-a", "-m", "t", f"new{number}", new)
        world.depot.add(world.source, (), [old])
        world.publish()
        for name in ("full", "shallow"):
            git(world.folder / name, "-c", version, "fetch", "-q")
            whole(world.folder / name)
            assert git(world.folder / name, "rev-parse", "origin/main").decode().strip() == new
        assert git(world.folder / "full", "rev-parse", f"new{number}")


def test_diverged_and_unrelated_clients_get_what_they_lack(world: World, version: str) -> None:
    git(world.folder, "-c", version, "clone", "-q", "--single-branch", "-b", "side", "--no-tags", world.url, "client")
    client = world.folder / "client"
    git(client, "commit", "--allow-empty", "-m", "mine")
    git(client, "-c", version, "fetch", "-q", world.url, "main:theirs")
    whole(client)
    stranger = new_repo(world.folder / "stranger")
    grow(stranger, 50, seed=99)
    git(stranger, "-c", version, "fetch", "-q", world.url, "main:theirs")
    whole(stranger)


def test_partial_clones_fetch_the_rest_when_they_need_it(world: World) -> None:
    for number, spec in enumerate(["blob:none", "blob:limit=100", "tree:0"]):
        clone = world.folder / f"partial{number}"
        git(world.folder, "clone", "-q", "--no-checkout", f"--filter={spec}", world.url, clone.name)
        expected = world.listed("--filter=" + spec, "--all") | {git(world.source, "rev-parse", "v1").decode().strip()}
        lazy = git(clone, "rev-list", "--objects", "--missing=allow-promisor", "--all").decode()
        assert lazy
        assert held(clone) == expected
        git(clone, "checkout", "-q", "main")
        git(clone, "log", "-p", "--all", "--", "d0")
        assert git(clone, "rev-parse", "HEAD^{tree}") == git(world.source, "rev-parse", "main^{tree}")
        assert git(clone, "status", "--porcelain") == b""


def test_a_filter_goes_with_a_depth(world: World) -> None:
    git(world.folder, "clone", "-q", "--depth", "2", "--filter=blob:none", world.url, "thin")
    assert git(world.folder / "thin", "status", "--porcelain") == b""
    git(world.folder / "thin", "fetch", "-q", "--unshallow")
    assert git(world.folder / "thin", "rev-list", "--count", "HEAD") == git(world.source, "rev-list", "--count", "main")


def test_any_reachable_sha_may_be_fetched_and_no_other(world: World, version: str) -> None:
    tree = git(world.source, "rev-parse", "main^{tree}").decode().strip()
    secret = git(world.source, "commit-tree", "-p", "main", "-m", "secret", tree).decode().strip()
    world.depot.add(world.source, [secret], ["main"])
    world.publish(hide={"refs/weightroom/secret": secret})
    client = new_repo(world.folder / "client")
    git(client, "-c", version, "fetch", "-q", "--depth", "1", world.url, world.commits[12])
    assert git(client, "rev-parse", "FETCH_HEAD").decode().strip() == world.commits[12]
    for sha in (secret, "1" * 40):
        said = git(client, "-c", version, "fetch", world.url, sha, check=False).decode()
        assert f"not our ref {sha}" in said
    assert b"secret" not in git(client, "-c", version, "ls-remote", world.url)


def test_a_have_outside_what_is_shown_is_not_acknowledged(world: World) -> None:
    tree = git(world.source, "rev-parse", "main^{tree}").decode().strip()
    secret = git(world.source, "commit-tree", "-p", "main", "-m", "secret", tree).decode().strip()
    world.depot.add(world.source, [secret], ["main"])
    world.publish(hide={"refs/weightroom/secret": secret})
    client = new_repo(world.folder / "client")
    git(client, "fetch", "-q", world.source.as_uri(), f"{world.commits[3]}:refs/heads/old")
    (client / "packed-refs").write_text("")
    pack = git(world.source, "pack-objects", "--revs", "--stdout", "-q", input=f"{secret}\n".encode())
    git(client, "index-pack", "--stdin", input=pack)
    git(client, "update-ref", "refs/heads/mine", secret)
    trace = dict(ENVIRONMENT, GIT_TRACE_PACKET="1")
    done = subprocess.run(
        ["git", "fetch", "-q", world.url, "side:side"], cwd=client, env=trace, capture_output=True, check=True
    )
    assert f"ACK {secret}".encode() not in done.stderr
    assert f"have {secret}".encode() in done.stderr


def test_an_empty_repo_can_be_cloned_and_keeps_its_branch_name(world: World) -> None:
    empty = new_repo(world.folder / "empty")
    git(empty, "symbolic-ref", "HEAD", "refs/heads/trunk")
    world.door.town.snapshots["datasets/lab/none"] = Depot(world.folder / "other").snapshot(empty, repo_id=77)
    url = f"{world.door.url}/datasets/lab/none"
    git(world.folder, "-c", "protocol.version=2", "clone", "-q", url, "none2")
    assert git(world.folder / "none2", "symbolic-ref", "HEAD") == b"refs/heads/trunk\n"
    git(world.folder, "-c", "protocol.version=0", "clone", "-q", url, "none0")
    assert git(world.folder, "-c", "protocol.version=0", "ls-remote", url) == b""


def test_many_refs_are_listed_by_prefix(world: World, version: str) -> None:
    lines = "".join(f"create refs/tags/many/{n:05} {world.commits[n % 40]}\n" for n in range(6000))
    git(world.source, "update-ref", "--stdin", input=lines.encode())
    world.publish()
    listing = git(world.folder, "-c", version, "ls-remote", "--refs", world.url)
    assert listing == git(world.folder, "ls-remote", "--refs", world.source.as_uri())
    some = git(world.folder, "-c", version, "ls-remote", world.url, "refs/tags/many/0001*", "refs/heads/main")
    assert len(some.splitlines()) == 11


def test_dulwich_clones(world: World) -> None:
    repo = porcelain.clone(world.url, str(world.folder / "dulwich"))
    assert repo.head().decode() == git(world.source, "rev-parse", "main").decode().strip()
    repo.close()
    whole(world.folder / "dulwich")


def test_eight_equal_clones_build_one_pack(world: World) -> None:
    builds = world.door.responses.builds
    with ThreadPoolExecutor(8) as pool:
        arguments = ["clone", "-q", "--bare", "--depth", "5", world.url]
        list(pool.map(lambda n: git(world.folder, *arguments, f"clone{n}"), range(8)))
    assert world.door.responses.builds == builds + 1
    for number in range(8):
        whole(world.folder / f"clone{number}")


def test_a_client_that_leaves_in_the_middle_harms_nobody(world: World) -> None:
    blob = bytes(range(256)) * (64 << 10)
    sha = git(world.source, "hash-object", "-w", "--stdin", input=blob + world.folder.name.encode()).decode().strip()
    git(world.source, "config", "core.compression", "0")
    tree = git(world.source, "mktree", input=f"100644 blob {sha}\tbig\n".encode()).decode().strip()
    commit = git(world.source, "commit-tree", "-m", "big", tree).decode().strip()
    git(world.source, "update-ref", "refs/heads/big", commit)
    world.depot.add(world.source, [commit])
    world.publish()
    head = git(world.source, "rev-parse", "big").decode().strip()
    body = f"0011command=fetch00010009done\n0032want {head}\n0000".encode()
    place = urlsplit(world.door.url)
    for _ in range(12):
        with socket.create_connection((place.hostname, place.port)) as raw:
            lines = [f"POST /{NAME}/git-upload-pack HTTP/1.1", "Host: x", "Git-Protocol: version=2"]
            lines += ["Content-Type: application/x-git-upload-pack-request", f"Content-Length: {len(body)}", "", ""]
            raw.sendall("\r\n".join(lines).encode() + body)
            assert b"200 OK" in raw.recv(4000)
    git(world.folder, "clone", "-q", "-b", "big", world.url, "after")
    assert (world.folder / "after" / "big").stat().st_size > len(blob)
