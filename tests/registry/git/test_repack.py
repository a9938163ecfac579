"""A roll-up holds every object once, as git reads it, with the index and sidecar that a push of it would get."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from registry.errors import Damaged
from registry.git import packing, repack
from registry.git.intro import Intro
from registry.git.packfile import OFS_DELTA, PackFile
from registry.git.snapshot import ZERO
from registry.git.verdict import PackFacts, PackPaths
from tests.registry.git.packed import git, grow, new_repo
from tests.registry.git.pushed import Bench, pack_of, rev

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 7\n" % (b"ab" * 32)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "quarantine").mkdir()
    return Bench(tmp_path / "quarantine")


def source(paths: PackPaths) -> repack.Source:
    """Name a pack by its own hash, as the store does."""
    return repack.Source(packing.digest(Path(paths.pack)).sha256, paths.pack, paths.idx, paths.intro)


def rolled(bench: Bench, *which: PackPaths, name: str = "rolled") -> PackFacts:
    """Roll packs up, given oldest first."""
    return repack.repack([source(one) for one in reversed(which)], str(bench.folder / f"{name}.pack"))


def members(pack: str, idx: str) -> set[bytes]:
    return {id for id, _ in PackFile("", Path(pack), Path(idx)).objects()}


def judged(made: PackFacts, folder: Path) -> Path:
    """Let git index and check a pack in a repository of its own."""
    client = new_repo(folder)
    git(client, "index-pack", "--strict", "--stdin", input=Path(made.path).read_bytes())
    git(client, "fsck", "--full", "--strict", "--no-dangling")
    return client


def random_pushes(bench: Bench, repo: Path, seed: int) -> None:
    """Push a random history in random steps, thin and whole, with tags and repeated objects."""
    commits = grow(repo, 40, seed=seed)
    chance = random.Random(seed)
    git(repo, "tag", "-a", "-m", "v1", "v1", commits[20])
    git(repo, "tag", "-a", "-m", "v2", "v2", "v1")
    git(repo, "tag", "-a", "-m", "tree", "t1", f"{commits[3]}^{{tree}}")
    held: list[str] = []
    for at in sorted(chance.sample(range(40), 7)):
        bench.push_git(repo, commits[at], haves=tuple(held), name=b"refs/heads/x%d" % at)
        # Sometimes what was pushed is forgotten, so that the next pack brings it again.
        held = [*held, commits[at]] if chance.random() < 0.7 else held[:1]
    for name in ("v2", "t1", "main", "side"):
        if git(repo, "rev-parse", "-q", "--verify", name, check=False):
            kind = b"heads" if name in ("main", "side") else b"tags"
            bench.push_git(repo, rev(repo, name), haves=tuple(held[:2]), name=b"refs/%b/%b" % (kind, name.encode()))


@pytest.mark.parametrize("seed", range(6))
def test_random_packs_roll_into_the_pack_that_git_and_ingest_expect(bench: Bench, tmp_path: Path, seed: int) -> None:
    random_pushes(bench, new_repo(tmp_path / "source"), seed)
    wanted = set().union(*(members(one.pack, one.idx) for one in bench.bases))
    made = rolled(bench, *bench.bases)
    assert members(made.path, made.idx.path) == wanted
    assert made.objects == len(wanted) < sum(len(members(one.pack, one.idx)) for one in bench.bases)
    client = judged(made, tmp_path / "client")
    theirs = next((client / "objects" / "pack").glob("*.idx"))
    assert theirs.read_bytes() == Path(made.idx.path).read_bytes()
    # The sidecar is a function of the pack: ingest, which walks every tree, writes the same bytes.
    (tmp_path / "fresh").mkdir()
    tips = [(b"refs/tags/t%d" % at, ZERO, id.hex()) for at, id in enumerate(sorted(wanted)[:1])]
    verdict = Bench(tmp_path / "fresh").push(Path(made.path).read_bytes(), *tips)
    assert verdict.pack is not None
    assert (verdict.pack.id, verdict.pack.sha1, verdict.pack.bytes) == (made.id, made.sha1, made.bytes)
    assert (verdict.pack.objects, verdict.pack.commits) == (made.objects, made.commits)
    assert Path(verdict.pack.intro.path).read_bytes() == Path(made.intro.path).read_bytes()
    assert (verdict.pack.idx.sha256, verdict.pack.intro.sha256) == (made.idx.sha256, made.intro.sha256)


def test_equal_packs_make_equal_bytes_and_a_rolled_pack_rolls_again(bench: Bench, tmp_path: Path) -> None:
    random_pushes(bench, new_repo(tmp_path / "source"), 7)
    first, again = rolled(bench, *bench.bases), rolled(bench, *bench.bases, name="again")
    assert (first.id, first.idx.sha256, first.intro.sha256) == (again.id, again.idx.sha256, again.intro.sha256)
    half = len(bench.bases) // 2
    older = rolled(bench, *bench.bases[:half], name="older")
    both = rolled(bench, PackPaths(older.path, older.idx.path, older.intro.path), *bench.bases[half:], name="both")
    assert members(both.path, both.idx.path) == members(first.path, first.idx.path)
    assert both.intro.sha256 == first.intro.sha256
    judged(both, tmp_path / "client")


def test_a_pack_that_holds_all_others_is_what_comes_out(bench: Bench, tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "source")
    commits = grow(repo, 12, seed=3)
    bench.push_git(repo, commits[4])
    bench.push_git(repo, commits[-1])
    made = rolled(bench, *bench.bases)
    assert made.id == source(bench.bases[1]).id


def one_file(repo: Path, versions: int) -> list[str]:
    """Make a history of one large file of which each version changes a little."""
    chance, lines = random.Random(1), []
    for number in range(versions):
        text = (
            b"".join(b"%d\n" % chance.randrange(1 << 60) for _ in range(3))
            if number
            else random.Random(2).randbytes(9000)
        )
        lines.append(text)
    stream = b""
    for number in range(versions):
        body = b"".join(lines[: number + 1])
        stream += b"commit refs/heads/main\nmark :%d\ncommitter A <a@b.c> %d +0000\ndata 1\nx" % (number + 1, number)
        stream += b"\nM 644 inline f\ndata %d\n%b\n" % (len(body), body)
    git(repo, "fast-import", "--quiet", "--done", "--export-marks=marks", input=stream + b"done\n")
    table = dict(line.split() for line in (repo / "marks").read_text().splitlines())
    return [table[f":{number + 1}"] for number in range(versions)]


def test_deltas_of_many_pushes_stay_deltas_and_do_not_chain_without_end(bench: Bench, tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "source")
    commits = one_file(repo, 70)
    for at, sha in enumerate(commits):
        bench.push_git(repo, sha, haves=tuple(commits[at - 1 : at]))
    made = rolled(bench, *bench.bases)
    client = judged(made, tmp_path / "client")
    # Every push was completed with a whole copy of the version before; few of them are needed.
    assert made.bytes * 10 < sum(Path(one.pack).stat().st_size for one in bench.bases)
    listing = git(client, "verify-pack", "-v", *map(str, (client / "objects" / "pack").glob("*.idx"))).decode()
    depths = [int(line.split()[5]) for line in listing.splitlines() if len(line.split()) == 7]
    assert 10 < max(depths) <= repack.DEEPEST


def test_pointers_of_all_packs_are_listed(bench: Bench, tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "source")
    first = one_file(repo, 1)[0]
    bench.push_git(repo, first)
    blob = git(repo, "hash-object", "-w", "--stdin", input=POINTER).decode().strip()
    tree = git(repo, "mktree", input=f"100644 blob {blob}\tw.bin\n".encode()).decode().strip()
    second = git(repo, "commit-tree", tree, "-p", first, "-m", "m").decode().strip()
    bench.push(pack_of(repo, (second,), (first,)), (b"refs/heads/p", ZERO, second))
    with Intro.open(rolled(bench, *bench.bases).intro.path) as merged:
        assert [row.blob.hex() for row in merged.pointers()] == [blob]


def test_rot_does_not_come_out_under_a_new_name(bench: Bench, tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "source")
    commits = grow(repo, 6, seed=4)
    bench.push_git(repo, commits[2])
    bench.push_git(repo, commits[5], haves=(commits[2],))
    sources = [source(one) for one in bench.bases]
    data = bytearray(Path(sources[0].pack).read_bytes())
    data[len(data) // 2] ^= 1
    Path(sources[0].pack).write_bytes(data)
    with pytest.raises(Damaged):
        repack.repack(sources, str(bench.folder / "rolled.pack"))


def test_deltas_are_copied_not_unfolded(bench: Bench, tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "source")
    commits = grow(repo, 30, seed=9)
    for at, sha in enumerate(commits[::6]):
        bench.push_git(repo, sha, haves=tuple(commits[::6][:at]))
    made = rolled(bench, *bench.bases)
    file = PackFile("", Path(made.path), Path(made.idx.path))
    kinds = [file.header(offset).kind for offset in file.offsets()]
    assert kinds.count(OFS_DELTA) > 5
    assert made.bytes <= sum(Path(one.pack).stat().st_size for one in bench.bases)
