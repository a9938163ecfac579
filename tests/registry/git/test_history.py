"""Histories are read as git itself reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.errors import RevisionAbsent
from registry.git import history, tree
from registry.git.objects import Manifest
from tests.registry.git.packed import Depot, git, grow, new_repo


class Story:
    """A random history with merges, stored in two packs."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.source = new_repo(folder / "source")
        self.commits = grow(self.source, 60, seed=seed)
        self.depot = Depot(folder)
        self.depot.add(self.source, self.commits[:30])
        self.depot.add(self.source, self.commits, self.commits[:30])
        self.tip = git(self.source, "rev-parse", "main").decode().strip()

    @property
    def manifest(self) -> Manifest:
        return self.depot.manifests.manifest(self.depot.rows)

    def lines(self, *arguments: str) -> list[str]:
        return git(self.source, *arguments).decode().splitlines()


@pytest.fixture(scope="module", params=[1, 2, 3])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("history"), request.param)


def test_a_log_lists_what_git_log_lists_in_its_order(story: Story) -> None:
    found = history.log(story.manifest, story.tip)
    assert history.part(found, 0, history.length(found)) == story.lines("log", "--format=%H", story.tip)


def test_a_log_is_cut_into_pages_that_neither_lose_nor_repeat(story: Story) -> None:
    found = history.log(story.manifest, story.tip)
    pages = [history.part(found, start, 7) for start in range(0, history.length(found) + 7, 7)]
    assert [sha for page in pages for sha in page] == story.lines("log", "--format=%H", story.tip)
    assert pages[-1] == []


def test_the_last_change_of_every_file_is_the_one_git_log_finds(story: Story) -> None:
    paths = list(tree.names(story.manifest, story.tip))
    found = history.last_changes(story.manifest, story.tip, paths)
    expected = {path: story.lines("log", "-1", "--format=%H", story.tip, "--", path.decode())[0] for path in paths}
    assert found == expected


def test_a_folder_changes_with_what_it_holds(story: Story) -> None:
    folders = set(tree.names(story.manifest, story.tip, folders=True)) - set(tree.names(story.manifest, story.tip))
    assert folders
    found = history.last_changes(story.manifest, story.tip, folders)
    for path in folders:
        assert found[path] == story.lines("log", "-1", "--format=%H", story.tip, "--", path.decode())[0]


def test_a_search_that_grows_too_long_ends_and_is_right_as_far_as_it_came(story: Story) -> None:
    paths = list(tree.names(story.manifest, story.tip, folders=True))
    whole = history.last_changes(story.manifest, story.tip, paths)
    sizes = []
    for budget in (0, 50, 500, 5000, 10**9):
        found = history.last_changes(story.manifest, story.tip, paths, budget=budget)
        assert found.items() <= whole.items()
        sizes.append(len(found))
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (0, len(paths))


def test_a_commit_reads_as_git_shows_it(story: Story) -> None:
    found = history.commit(story.manifest, story.tip)
    shown = git(story.source, "show", "-s", "--format=%T%x00%P%x00%an%x00%ae%x00%at%x00%s", story.tip).decode()
    row = shown.strip().split("\0")
    stamp = str(int(found.date.timestamp()))
    assert [found.tree, " ".join(found.parents), found.author, found.email, stamp, found.title] == row


def test_title_and_body_are_parted_at_the_first_empty_line(tmp_path: Path) -> None:
    manifest, shas = _stored(tmp_path, b"two lines\nof title\n\nbody\n\nmore\n", b"", b"\n\nlate\n")
    read = [history.commit(manifest, sha) for sha in shas]
    assert [(one.title, one.body) for one in read] == [("two lines of title", "body\n\nmore"), ("", ""), ("late", "")]


def test_odd_encodings_and_times_do_not_break_a_reader(tmp_path: Path) -> None:
    source = new_repo(tmp_path / "source")
    empty = git(source, "hash-object", "-w", "-t", "tree", "/dev/null").decode().strip()
    shas = []
    for person, extra in (
        ("A <a@b> 99999999999999999999 +0000", ""),
        ("nobody", "\nencoding hex"),
        ("", "\nencoding latin-1"),
    ):
        raw = f"tree {empty}\nauthor {person}\ncommitter A <a@b> 1700000000 +0000{extra}\n\n".encode() + b"caf\xe9\n"
        shas.append(
            git(source, "hash-object", "-w", "-t", "commit", "--literally", "--stdin", input=raw).decode().strip()
        )
    depot = Depot(tmp_path)
    depot.add(source, shas)
    far, broken, latin = (history.commit(depot.manifests.manifest(depot.rows), sha) for sha in shas)
    assert far.date.year == 9999
    assert (broken.author, broken.date) == ("", datetime.fromtimestamp(0, UTC))
    assert (broken.title, latin.title) == ("caf\N{REPLACEMENT CHARACTER}", "café")


def test_what_is_no_commit_is_no_revision(story: Story) -> None:
    blob = story.lines("rev-parse", f"{story.tip}^{{tree}}")[0]
    with pytest.raises(RevisionAbsent):
        history.commit(story.manifest, blob)
    with pytest.raises(RevisionAbsent):
        history.log(story.manifest, "0" * 40)
    with pytest.raises(RevisionAbsent):
        history.last_changes(story.manifest, "0" * 40, [])


def _stored(folder: Path, *messages: bytes) -> tuple[Manifest, list[str]]:
    source = new_repo(folder / "source")
    empty = git(source, "hash-object", "-w", "-t", "tree", "/dev/null").decode().strip()
    shas = [git(source, "commit-tree", empty, input=message).decode().strip() for message in messages]
    depot = Depot(folder)
    depot.add(source, shas)
    return depot.manifests.manifest(depot.rows), shas
