"""Trees are listed as git lists them, in pages that fit together, and LFS files show their true size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lfs.pointer import Pointer, canonical
from registry.errors import BadBody, EntryAbsent, RevisionAbsent
from registry.git import tree
from registry.git.objects import Manifest
from tests.registry.git.packed import Depot, git, grow, new_repo

OID = hashlib.sha256(b"weights").hexdigest()
FILES = {
    "README.md": b"# hi\n",
    "a.txt": b"file beside a folder of a longer name\n",
    "a/b/deep.bin": canonical(Pointer(OID, 5_000_000_000)),
    "a/b/zz": b"",
    "a/c": b"c" * 2000,
    "a0": b"sorts behind the folder a\n",
    "snow ☃/é.txt": b"x",
}


class Source:
    """Some files in one commit, and an empty commit."""

    def __init__(self, folder: Path) -> None:
        self.source = new_repo(folder / "source")
        lines = [f"100644 {self._blob(data)}\t{path}\n" for path, data in FILES.items()]
        lines.append(f"120000 {self._blob(canonical(Pointer(OID, 7)))}\tlink\n")
        lines.append(f"160000 {'1' * 40}\tmodule\n")
        more = {"GIT_INDEX_FILE": str(folder / "index")}
        git(self.source, "update-index", "--index-info", input="".join(lines).encode(), more=more)
        root = git(self.source, "write-tree", more=more).decode().strip()
        self.tip = git(self.source, "commit-tree", root, input=b"files").decode().strip()
        empty = git(self.source, "hash-object", "-w", "-t", "tree", "/dev/null").decode().strip()
        self.empty = git(self.source, "commit-tree", empty, input=b"nothing").decode().strip()
        self.depot = Depot(folder)
        self.depot.add(self.source, [self.tip, self.empty])

    def _blob(self, data: bytes) -> str:
        return git(self.source, "hash-object", "-w", "--stdin", input=data).decode().strip()

    @property
    def manifest(self) -> Manifest:
        return self.depot.manifests.manifest(self.depot.rows)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(tmp_path_factory.mktemp("tree"))


def _paths(page: tree.Page) -> list[str]:
    return [entry.path.decode() for entry in page.entries]


def test_everything_below_is_listed_as_git_lists_it(source: Source) -> None:
    page = tree.listing(source.manifest, source.tip, b"", recursive=True, limit=1000)
    listed = git(source.source, "ls-tree", "-r", "-t", "-z", source.tip).decode().split("\0")[:-1]
    listed = [line for line in listed if not line.startswith("160000")]
    rows = [f"{entry.mode:06o} {entry.sha}\t{entry.path.decode()}" for entry in page.entries]
    assert rows == [f"{line.split()[0]} {line.split()[2].split(chr(9))[0]}\t{line.split(chr(9))[1]}" for line in listed]
    assert not page.more


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(("folder", "recursive"), [(b"", True), (b"", False), (b"a", True), (b"a/b", False)])
def test_pages_of_any_size_fit_together(source: Source, folder: bytes, recursive: bool, size: int) -> None:
    whole = tree.listing(source.manifest, source.tip, folder, recursive=recursive, limit=1000)
    found: list[tree.Entry] = []
    more = True
    while more:
        after = found[-1].path if found else None
        page = tree.listing(source.manifest, source.tip, folder, recursive=recursive, limit=size, after=after)
        assert len(page.entries) <= size
        found += page.entries
        more = page.more
    assert tuple(found) == whole.entries


def test_a_large_random_tree_pages_like_git(tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "source")
    grow(repo, 120, files=200)
    depot = Depot(tmp_path)
    depot.add(repo)
    manifest, tip = depot.manifests.manifest(depot.rows), git(repo, "rev-parse", "main").decode().strip()
    found, after, more = [], None, True
    while more:
        page = tree.listing(manifest, tip, b"", recursive=True, limit=7, after=after)
        found += [entry.path for entry in page.entries]
        after, more = found[-1], page.more
    assert found == git(repo, "ls-tree", "-r", "-t", "--name-only", "-z", tip).split(b"\0")[:-1]


def test_an_lfs_file_has_the_size_of_its_object(source: Source) -> None:
    entry = tree.entry(source.manifest, source.tip, b"a/b/deep.bin")
    assert entry.pointer == Pointer(OID, 5_000_000_000)
    assert (entry.size, entry.git_size) == (5_000_000_000, len(FILES["a/b/deep.bin"]))


def test_links_and_folders_are_no_lfs_files(source: Source) -> None:
    link, folder = (tree.entry(source.manifest, source.tip, path) for path in (b"link", b"a"))
    assert link.pointer is None
    assert (folder.size, folder.folder) == (0, True)


def test_submodules_are_left_out(source: Source) -> None:
    assert tree.find(source.manifest, source.tip, b"module") is None
    assert b"module" not in list(tree.names(source.manifest, source.tip))


def test_a_blob_is_what_git_holds(source: Source) -> None:
    for path, data in FILES.items():
        entry = tree.entry(source.manifest, source.tip, path.encode())
        assert tree.blob(source.manifest, entry) == data


@pytest.mark.parametrize("path", [b"nope", b"README.md/x", b"a/", b"/a", b"a//b", b".", b"..", b"\xff"])
def test_an_absent_path_names_the_commit_that_lacks_it(source: Source, path: bytes) -> None:
    with pytest.raises(EntryAbsent) as caught:
        tree.entry(source.manifest, source.tip, path)
    assert caught.value.commit == source.tip


def test_every_path_is_found_alone_and_together(source: Source) -> None:
    whole = tree.listing(source.manifest, source.tip, b"", recursive=True, limit=1000).entries
    assert [tree.find(source.manifest, source.tip, entry.path) for entry in whole] == list(whole)
    paths = [b"nope", *(entry.path for entry in whole), b"a/nope", b"module"]
    assert tree.find_all(source.manifest, source.tip, paths) == list(whole)


def test_only_a_folder_can_be_listed(source: Source) -> None:
    for path in (b"README.md", b"nope"):
        with pytest.raises(EntryAbsent):
            tree.listing(source.manifest, source.tip, path, recursive=False, limit=1)
    assert tree.listing(source.manifest, source.empty, b"", recursive=True, limit=1) == tree.Page((), more=False)


@pytest.mark.parametrize("after", [b"nope", b"b", b"a/nope", b"README.md/x", b"", b"a//"])
def test_a_cursor_of_another_listing_is_refused(source: Source, after: bytes) -> None:
    with pytest.raises(BadBody):
        tree.listing(source.manifest, source.tip, b"", recursive=True, limit=1, after=after)
    with pytest.raises(BadBody):
        tree.listing(source.manifest, source.tip, b"a", recursive=False, limit=1, after=b"a/b/zz")


def test_names_are_files_and_on_request_folders(source: Source) -> None:
    files = list(tree.names(source.manifest, source.tip))
    assert sorted(files) == sorted(path.encode() for path in [*FILES, "link"])
    both = set(tree.names(source.manifest, source.tip, folders=True))
    assert both - set(files) == {b"a", b"a/b", "snow ☃".encode()}


def test_an_unknown_commit_has_no_tree(source: Source) -> None:
    with pytest.raises(RevisionAbsent):
        tree.entry(source.manifest, "0" * 40, b"README.md")
