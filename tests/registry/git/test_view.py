"""Who may see what: exactly what shown refs reach, however many other objects the packs hold."""

from __future__ import annotations

import random
from binascii import a2b_hex
from pathlib import Path

import pytest

from registry.git.graph import Reach
from registry.git.snapshot import Ref, Snapshot
from registry.git.view import View, Views
from tests.registry.git.packed import Depot, git, grow, new_repo


class Town:
    """A history stored in one manifest, of which a snapshot shows a part."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.source = new_repo(folder / "source")
        self.commits = grow(self.source, 60, seed=seed)
        git(self.source, "tag", "-a", "-m", "one", "v1", self.commits[20])
        git(self.source, "tag", "-a", "-m", "two", "v1-again", "v1")
        self.depot = Depot(folder)
        self.depot.add(self.source, self.commits[:35])
        self.depot.add(self.source, (), self.commits[:35])

    def view(self, **shown: str) -> View:
        refs = {f"refs/{name}".encode(): Ref(f"refs/{name}".encode(), sha) for name, sha in sorted(shown.items())}
        snapshot = Snapshot(1, b"refs/heads/main", refs, 1, 1, 0, None, tuple(self.depot.rows))
        return View(snapshot, self.depot.manifests.manifest(snapshot.packs))

    def listed(self, *arguments: str) -> set[str]:
        return set(git(self.source, "rev-list", "--objects", "--no-object-names", *arguments).decode().split())


@pytest.fixture(scope="module", params=[1, 2])
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Town:
    return Town(tmp_path_factory.mktemp("town"), request.param)


def test_exactly_what_shown_refs_reach_is_served(town: Town) -> None:
    everything = town.listed("--all")
    for tip in (town.commits[8], town.commits[40], "v1-again"):
        sha = git(town.source, "rev-parse", tip).decode().strip()
        view = town.view(heads=sha)
        reached = town.listed(sha)
        assert {one for one in everything if view.serves(a2b_hex(one))} == reached
        shown = [one for one in town.commits if view.has_commit(a2b_hex(one))]
        assert shown == [one for one in town.commits if one in reached]


def test_refs_straight_to_trees_and_blobs_open_what_lies_under_them(town: Town) -> None:
    tree = git(town.source, "rev-parse", f"{town.commits[12]}^{{tree}}").decode().strip()
    view = town.view(odd=tree)
    assert {one for one in town.listed("--all") if view.serves(a2b_hex(one))} == town.listed(tree)


def test_hidden_refs_open_nothing(town: Town) -> None:
    refs = {name: Ref(name, town.commits[-1]) for name in (b"refs/internal/x", b"refs/weightroom/keep")}
    snapshot = Snapshot(1, b"refs/heads/main", refs, 1, 1, 0, None, tuple(town.depot.rows))
    view = View(snapshot, town.depot.manifests.manifest(snapshot.packs))
    assert view.names == []
    assert not any(view.serves(a2b_hex(one)) for one in town.listed("--all"))


def test_reach_answers_in_any_order_of_questions(town: Town) -> None:
    chance = random.Random(4)
    graph = town.depot.manifests.manifest(town.depot.rows).graph
    for _ in range(20):
        tips = chance.sample(town.commits, 2)
        reach = Reach(graph, map(a2b_hex, tips))
        expected = set(git(town.source, "rev-list", *tips).decode().split())
        asked = chance.sample(town.commits, len(town.commits))
        assert {one for one in asked if reach.commit(a2b_hex(one))} == expected


def test_all_reach_agrees_with_git(town: Town) -> None:
    chance = random.Random(5)
    graph = town.depot.manifests.manifest(town.depot.rows).graph
    for _ in range(40):
        wants, common = chance.sample(town.commits, 2), chance.sample(town.commits, 2)
        ours = graph.all_reach(map(a2b_hex, wants), set(map(a2b_hex, common)))
        reached = [set(git(town.source, "rev-list", want).decode().split()) for want in wants]
        assert ours == all(one.intersection(common) for one in reached)


def test_a_view_is_kept_until_its_snapshot_changes(town: Town) -> None:
    views = Views(town.depot.manifests, keep=2)
    first = town.depot.snapshot(town.source)
    assert views.view(first) is views.view(town.depot.snapshot(town.source))
    exact = town.depot.snapshot(town.source, exact=True)
    assert views.view(exact).exact
    assert not views.view(first).exact
    assert views.view(town.depot.snapshot(town.source, version=2)) is not views.view(first)
