"""Plans equal what git says must be sent, and every emitted pack stands on its own."""

from __future__ import annotations

import random
import subprocess
from binascii import a2b_hex
from pathlib import Path

import pytest

from registry.git.depth import INFINITE, Depth, boundary
from registry.git.emit import emit, shares
from registry.git.filters import Filter, parse
from registry.git.plan import Ask, plan
from registry.git.view import View
from tests.registry.git.packed import ENVIRONMENT, Depot, git, grow, new_repo


class Story:
    """A random history pushed in a few packs, and questions to ask of it."""

    def __init__(self, folder: Path, seed: int, commits: int = 60, pushes: int = 4) -> None:
        self.chance = random.Random(seed)
        self.source = new_repo(folder / "source")
        self.commits = grow(self.source, commits, seed=seed)
        git(self.source, "tag", "-a", "-m", "one", "v1", self.commits[commits // 2])
        git(self.source, "tag", "-a", "-m", "nested", "v1-again", "v1")
        git(self.source, "tag", "-a", "-m", "tree", "t1", self.commits[-1] + "^{tree}")
        self.depot = Depot(folder)
        before: list[str] = []
        for at in range(1, pushes + 1):
            tips = self.commits[: at * commits // pushes]
            self.depot.add(self.source, tips, before)
            before = tips
        self.depot.add(self.source, ["v1", "v1-again", "t1"], self.commits)
        self.view = View(self.depot.snapshot(self.source), self.depot.manifests.manifest(self.depot.rows))
        self.tips = [git(self.source, "rev-parse", name).decode().strip() for name in ("main", "side")]

    def listed(self, *arguments: str) -> set[str]:
        text = git(self.source, "rev-list", "--objects", *arguments).decode()
        return {line.split()[0] for line in text.splitlines()}

    def planned(self, ask: Ask) -> set[str]:
        ids = plan(self.view, ask).ids
        assert ids is not None
        assert len(ids) == len(set(ids))
        return {id.hex() for id in ids}

    def ids(self, shas: list[str]) -> tuple[bytes, ...]:
        return tuple(a2b_hex(sha) for sha in shas)


@pytest.fixture(scope="module", params=[1, 2, 3])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("story"), request.param)


def index(folder: Path, pack: bytes, *, thin: bool = False) -> None:
    """Let git judge a pack; without `thin` it must hold all its bases."""
    arguments = ["git", "index-pack", "--strict", "--stdin", *(["--fix-thin"] if thin else [])]
    subprocess.run(arguments, cwd=folder, input=pack, check=True, capture_output=True, env=ENVIRONMENT)


def test_a_plain_plan_equals_rev_list(story: Story) -> None:
    for sha in [*story.tips, *story.chance.sample(story.commits, 6)]:
        assert story.planned(Ask(story.ids([sha]))) == story.listed(sha)


def test_a_plan_against_haves_sends_all_that_is_missing_and_nothing_far(story: Story) -> None:
    for _ in range(40):
        wants = story.chance.sample(story.commits, 2)
        haves = story.chance.sample(story.commits, story.chance.randint(1, 3))
        sent = story.planned(Ask(story.ids(wants), story.ids(haves)))
        assert sent >= story.listed(*wants) - story.listed(*haves)
        assert sent <= story.listed(*wants)
        commits = git(story.source, "rev-list", *wants, "--not", *haves).decode().split()
        assert sent & set(story.commits) == set(commits)


def test_every_emitted_pack_passes_strict_indexing(story: Story, tmp_path: Path) -> None:
    for number in range(12):
        haves = story.chance.sample(story.commits, 2)
        ask = Ask(story.ids(story.tips), story.ids(haves), thin=number % 2 == 0, ofs=number % 3 != 0)
        client = new_repo(tmp_path / f"client{number}")
        index(client, git(story.source, "pack-objects", "--revs", "--stdout", "-q", input="\n".join(haves).encode()))
        made = plan(story.view, ask)
        pack = b"".join(emit(story.view.manifest, shares(story.view.manifest, made), ofs=ask.ofs, had=made.had))
        index(client, pack, thin=ask.thin)
        git(client, "update-ref", "refs/heads/main", story.tips[0])
        git(client, "update-ref", "refs/heads/side", story.tips[1])
        git(client, "fsck", "--full", "--strict")


def test_all_packs_at_once_hold_each_object_once(story: Story, tmp_path: Path) -> None:
    snapshot = story.depot.snapshot(story.source, exact=True)
    view = View(snapshot, story.depot.manifests.manifest(snapshot.packs))
    made = plan(view, Ask(tuple(view.tips)))
    assert made.ids is None
    for ofs in (True, False):
        pack = b"".join(emit(view.manifest, shares(view.manifest, made), ofs=ofs, had=made.had))
        client = new_repo(tmp_path / f"client{ofs}")
        index(client, pack)
        found = git(client, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").decode().split()
        assert len(found) == int.from_bytes(pack[8:12], "big")
        assert set(found) == story.listed("--all")


@pytest.mark.parametrize(
    "spec", ["blob:none", "blob:limit=200", "tree:0", "tree:1", "tree:2", "combine:tree:3+blob:limit=300"]
)
def test_filters_equal_rev_list(story: Story, spec: str) -> None:
    theirs = story.listed("--filter=" + spec, *story.tips)
    assert story.planned(Ask(story.ids(story.tips), filter=parse(spec))) == theirs
    old = story.commits[20]
    sent = story.planned(Ask(story.ids(story.tips), story.ids([old]), filter=parse(spec)))
    assert theirs - story.listed(old) <= sent <= theirs


@pytest.mark.parametrize("count", [1, 2, 5, 30, INFINITE])
def test_depth_sends_what_a_shallow_clone_holds(story: Story, count: int, tmp_path: Path) -> None:
    wants = story.ids(story.tips)
    made = boundary(story.view.graph, Depth(count=count), wants, ())
    sent = story.planned(Ask(wants, boundary=made))
    arguments = ["--depth", str(count)] if count < INFINITE else []
    url = story.source.as_uri()
    git(tmp_path, "clone", "-q", "--bare", "--no-single-branch", "--no-tags", *arguments, url, "theirs")
    listing = git(tmp_path / "theirs", "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    assert sent == set(listing.decode().split())
    shallow = tmp_path / "theirs" / "shallow"
    theirs = set(shallow.read_text().split()) if shallow.exists() else set()
    assert {id.hex() for id in made.shallow} == {sha for sha in theirs if story.view.graph.at(a2b_hex(sha)).parents}


def test_a_shallow_client_that_deepens_ends_with_all_objects(story: Story, tmp_path: Path) -> None:
    wants = story.ids(story.tips)
    first = boundary(story.view.graph, Depth(count=2), wants, ())
    client = new_repo(tmp_path / "client")
    held: frozenset[bytes] = frozenset()
    common: tuple[bytes, ...] = ()
    steps = [Depth(count=2), Depth(count=4), Depth(count=3, relative=True), Depth(count=INFINITE)]
    for depth in steps:
        made = boundary(story.view.graph, depth, wants, held)
        ask = Ask(wants, common, held, made, thin=True)
        todo = plan(story.view, ask)
        pack = b"".join(emit(story.view.manifest, shares(story.view.manifest, todo), ofs=True, had=todo.had))
        held = made.cut
        (client / "shallow").write_text("".join(f"{id.hex()}\n" for id in sorted(held)))
        index(client, pack)
        common = wants
        for number, sha in enumerate(story.tips):
            git(client, "update-ref", f"refs/heads/b{number}", sha)
        git(client, "fsck", "--full", "--strict")
    assert first.shallow
    assert not held


def test_dates_and_exclusions_choose_as_git_does(story: Story, tmp_path: Path) -> None:
    middle = story.view.graph.at(a2b_hex(story.commits[30])).time
    git(tmp_path, "clone", "-q", "--mirror", story.source.as_uri(), "copy")
    git(tmp_path / "copy", "branch", "old", story.commits[10])
    url = (tmp_path / "copy").as_uri()
    main = story.ids([story.tips[0]])
    cases = [
        (Depth(since=middle), f"--shallow-since={middle}"),
        (Depth(excluded=story.ids([story.commits[10]])), "--shallow-exclude=old"),
    ]
    for number, (depth, argument) in enumerate(cases):
        made = boundary(story.view.graph, depth, main, ())
        folder = f"theirs{number}"
        git(tmp_path, "clone", "-q", "--bare", "--single-branch", "--no-tags", argument, url, folder)
        listing = git(tmp_path / folder, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
        # A clone of a single branch asks for the tags of what it gets, even with --no-tags.
        assert story.planned(Ask(main, boundary=made, tags=True)) == set(listing.decode().split())


def test_tags_come_along_with_what_they_name(story: Story) -> None:
    tag = git(story.source, "rev-parse", "v1").decode().strip()
    again = git(story.source, "rev-parse", "v1-again").decode().strip()
    sent = story.planned(Ask(story.ids(story.tips), tags=True))
    assert {tag, again} <= sent
    sent = story.planned(Ask(story.ids(story.tips), story.ids([story.commits[-2]]), tags=True))
    assert tag not in sent


def test_an_object_wanted_by_name_comes_whatever_the_filter_says(story: Story) -> None:
    tree = git(story.source, "rev-parse", "main^{tree}").decode().strip()
    blob = git(story.source, "ls-tree", "-r", "main").decode().split()[2]
    assert story.planned(Ask(story.ids([blob]), filter=Filter(depth=0))) == {blob}
    assert story.planned(Ask(story.ids([tree]))) == story.listed(tree)
    assert blob not in story.planned(Ask(story.ids([tree]), filter=parse("blob:none")))
