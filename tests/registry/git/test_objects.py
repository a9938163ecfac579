"""Objects read from stored packs are what git reads, from any thread, and cost no more than they must."""

from __future__ import annotations

import zlib
from binascii import a2b_hex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dulwich.objects import Commit

from registry.errors import Damaged, RevisionAbsent
from registry.git.objects import ManifestStore
from registry.git.packfile import OFS_DELTA, REF_DELTA, PackFile
from tests.registry.git.packed import Depot, git, grow, new_repo

KINDS = {"commit": 1, "tree": 2, "blob": 3, "tag": 4}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Depot, Path]:
    folder = tmp_path_factory.mktemp("stored")
    source = new_repo(folder / "source")
    commits = grow(source, 50, seed=5)
    git(source, "tag", "-a", "-m", "one", "v1", commits[4])
    depot = Depot(folder)
    depot.add(source, commits[:30])
    depot.add(source, (), commits[:30])
    return depot, source


def listing(source: Path) -> list[tuple[str, str, int]]:
    """Every object that a ref reaches: id, type, size."""
    reached = git(source, "rev-list", "--objects", "--no-object-names", "--all")
    text = git(source, "cat-file", "--batch-check", input=reached).decode()
    return [(sha, kind, int(size)) for sha, kind, size in map(str.split, text.splitlines())]


def test_every_object_reads_as_git_reads_it(stored: tuple[Depot, Path]) -> None:
    depot, source = stored
    manifest = depot.manifests.manifest(depot.rows)
    deltas = {
        manifest.place(a2b_hex(sha)).file.header(manifest.place(a2b_hex(sha)).offset).kind
        for sha, *_ in listing(source)
    }
    assert OFS_DELTA in deltas
    for sha, kind, size in listing(source):
        assert manifest.contains(sha)
        assert (manifest.kind(sha), manifest.size(sha)) == (KINDS[kind], size)
        found, content = manifest.read(sha)
        assert (found, content) == (KINDS[kind], git(source, "cat-file", kind, sha))


def test_many_threads_read_one_manifest(stored: tuple[Depot, Path]) -> None:
    depot, source = stored
    store = ManifestStore(depot.cache, memory=1 << 16)
    expected = {sha: size for sha, _, size in listing(source)}

    def read(number: int) -> bool:
        manifest = store.manifest(depot.rows)
        shas = list(expected)[number:] + list(expected)[:number]
        return all(len(manifest.read(sha)[1]) == expected[sha] for sha in shas)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(0, 80, 10)))


def test_parsed_objects_and_trees_are_dulwichs_own(stored: tuple[Depot, Path]) -> None:
    depot, source = stored
    manifest = depot.manifests.manifest(depot.rows)
    tip = git(source, "rev-parse", "main").decode().strip()
    commit = manifest.get(tip)
    assert isinstance(commit, Commit)
    names = [name for name, _, _ in manifest.tree(a2b_hex(commit.tree))]
    assert names == git(source, "ls-tree", "--name-only", tip).split()
    with pytest.raises(Damaged):
        manifest.tree(a2b_hex(tip))


def test_equal_pack_lists_share_a_manifest_and_an_open_pack(stored: tuple[Depot, Path]) -> None:
    depot, _ = stored
    assert depot.manifests.manifest(depot.rows) is depot.manifests.manifest(list(depot.rows))
    alone = depot.manifests.manifest(depot.rows[:1])
    assert alone.packs[0] is depot.manifests.manifest(depot.rows).packs[0]


def test_an_absent_object_is_named(stored: tuple[Depot, Path]) -> None:
    manifest = stored[0].manifests.manifest(stored[0].rows)
    assert not manifest.contains("1" * 40)
    for ask in (manifest.read, manifest.kind, manifest.size, manifest.get):
        with pytest.raises(RevisionAbsent, match="1" * 40):
            ask("1" * 40)


def test_a_pack_with_deltas_by_id_reads_the_same(stored: tuple[Depot, Path], tmp_path: Path) -> None:
    source = stored[1]
    depot = Depot(tmp_path)
    revs = git(source, "for-each-ref", "--format=%(objectname)")
    depot.store_pack(source, git(source, "pack-objects", "--revs", "--stdout", "-q", input=revs))
    manifest = depot.manifests.manifest(depot.rows)
    file = manifest.packs[0].file
    assert REF_DELTA in {file.header(offset).kind for offset in file.offsets()}
    for sha, _, size in listing(source):
        assert len(manifest.read(sha)[1]) == manifest.size(sha) == size


def test_damage_is_reported_and_never_served(stored: tuple[Depot, Path], tmp_path: Path) -> None:
    depot, source = stored
    lease = depot.cache.lease(depot.rows[-1])
    good = PackFile("good", lease.pack, lease.idx)
    sha, _, size = max((one for one in listing(source) if good.find(a2b_hex(one[0]))), key=lambda one: one[2])
    offset = good.find(a2b_hex(sha))
    assert offset is not None
    start, stop = good.header(offset).data, good.end_of(offset)
    spoiled = bytearray(lease.pack.read_bytes())
    spoiled[start:stop] = zlib.compress(b"x")[: stop - start].ljust(stop - start, b"\0")
    (tmp_path / "bad.pack").write_bytes(spoiled)
    bad = PackFile("bad", tmp_path / "bad.pack", lease.idx)
    with pytest.raises(Damaged):
        bad.inflate(bad.header(offset))
    (tmp_path / "bad.pack").write_bytes(b"PACK" + bytes(40))
    with pytest.raises(Damaged):
        PackFile("bad", tmp_path / "bad.pack", lease.idx)
    assert size > 100
