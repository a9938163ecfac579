"""Shallow boundaries: arguments that exclude each other, tags, roots, and clients that are shallow already."""

from __future__ import annotations

from binascii import a2b_hex
from pathlib import Path

import pytest

from registry.errors import BadBody
from registry.git.depth import INFINITE, Depth, boundary
from registry.git.graph import Graph
from tests.registry.git.packed import Depot, git, new_repo


class Line:
    """Five commits in a row, one a minute, and a tag of the last."""

    def __init__(self, folder: Path) -> None:
        source = new_repo(folder / "source")
        tree = git(source, "mktree", input=b"").decode().strip()
        shas: list[str] = []
        for number in range(5):
            parent = ["-p", shas[-1]] if shas else []
            stamp = {"GIT_COMMITTER_DATE": f"{1_700_000_000 + 60 * number} +0000"}
            made = git(source, "commit-tree", *parent, "-m", str(number), tree, more=stamp)
            shas.append(made.decode().strip())
        git(source, "update-ref", "refs/heads/main", shas[-1])
        git(source, "tag", "-a", "-m", "t", "v1", shas[-1])
        depot = Depot(folder)
        depot.add(source)
        self.graph: Graph = depot.manifests.manifest(depot.rows).graph
        self.ids = [a2b_hex(sha) for sha in shas]
        self.tag = a2b_hex(git(source, "rev-parse", "v1").decode().strip())


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return Line(tmp_path_factory.mktemp("line"))


def test_a_depth_counts_commits_from_the_want_through_tags(line: Line) -> None:
    for want in (line.ids[4], line.tag):
        made = boundary(line.graph, Depth(count=2), [want], ())
        assert (made.shallow, made.unshallow, made.cut) == ((line.ids[3],), (), frozenset([line.ids[3]]))


def test_a_depth_that_covers_everything_makes_nothing_shallow(line: Line) -> None:
    for count in (5, 6, 100):
        assert boundary(line.graph, Depth(count=count), [line.ids[4]], ()).shallow == ()


def test_a_shallow_client_deepens_shortens_and_completes(line: Line) -> None:
    held = frozenset([line.ids[3]])
    deeper = boundary(line.graph, Depth(count=3), [line.ids[4]], held)
    assert (deeper.shallow, deeper.unshallow, deeper.wants) == ((line.ids[2],), (line.ids[3],), (line.ids[2],))
    relative = boundary(line.graph, Depth(count=2, relative=True), [line.ids[4]], held)
    assert (relative.shallow, relative.unshallow) == ((line.ids[1],), (line.ids[3],))
    shorter = boundary(line.graph, Depth(count=1), [line.ids[4]], held)
    assert (shorter.shallow, shorter.unshallow, shorter.cut) == ((line.ids[4],), (), held | {line.ids[4]})
    full = boundary(line.graph, Depth(count=INFINITE), [line.ids[4]], held)
    assert (full.shallow, full.unshallow, full.wants, full.cut) == ((), (line.ids[3],), (line.ids[2],), frozenset())


def test_without_a_depth_the_boundary_stays(line: Line) -> None:
    held = frozenset([line.ids[1]])
    made = boundary(line.graph, Depth(), [line.ids[4]], held)
    assert (made.shallow, made.unshallow, made.cut) == ((), (), held)


def test_dates_and_exclusions_may_be_combined(line: Line) -> None:
    made = boundary(line.graph, Depth(since=1_700_000_060, excluded=(line.ids[2],)), [line.ids[4]], ())
    assert made.shallow == (line.ids[3],)
    assert boundary(line.graph, Depth(since=1_700_000_180), [line.ids[4]], ()).shallow == (line.ids[3],)


@pytest.mark.parametrize(
    "depth", [Depth(count=2, since=5), Depth(count=2, excluded=(b"x" * 20,)), Depth(since=1_800_000_000)]
)
def test_what_leaves_nothing_or_contradicts_itself_is_refused(line: Line, depth: Depth) -> None:
    with pytest.raises(BadBody):
        boundary(line.graph, depth, [line.ids[4]], ())
