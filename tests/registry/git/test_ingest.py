"""A good push is taken whole: its index is git's, its sidecar lists what git lists, its refs are judged."""

import filecmp
import random
import time
from pathlib import Path

import pytest

from lfs.heavy import Heavy
from registry.git import ingest, intro
from registry.git.intro import Intro
from registry.git.packfile import BLOB, COMMIT, TAG, TREE
from registry.git.snapshot import ZERO
from registry.git.verdict import Job, Limits, PointerFound, Tip, Update
from tests.registry.git.packed import git, grow, new_repo
from tests.registry.git.pushed import MAIN, Bench, commit, one_commit, pack, pack_of, rev, sha, tree, whole

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "quarantine").mkdir()
    return Bench(tmp_path / "quarantine")


def listed(source, *revisions):
    text = git(source, "rev-list", "--objects", *revisions)
    return {bytes.fromhex(line[:40].decode()) for line in text.splitlines()}


def brought(bench, wanted, held=()):
    """Union of what the commits reach that `held` does not: what a fetch would send."""
    intros = [Intro.open(one.intro) for one in bench.bases]

    def find(one):
        return next((i, row) for i in intros if (row := i.commit(one)) is not None)

    def closure(tips):
        seen, todo = set(), list(tips)
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                i, row = find(one)
                todo += i.parents(row)
        return seen

    commits = closure(wanted) - closure(held)
    return {one for commit in commits for i, row in [find(commit)] for one in intro.ids(i.entries(row))}


@pytest.mark.parametrize("seed", range(6))
def test_index_and_sidecar_agree_with_git_on_random_histories(bench, tmp_path, seed):
    source = new_repo(tmp_path / "source")
    commits = grow(source, 40, seed=seed)
    git(source, "tag", "-a", "-m", "v1", "v1", commits[20])
    git(source, "tag", "-a", "-m", "v2", "v2", "v1")
    git(source, "tag", "-a", "-m", "tree", "t1", f"{commits[3]}^{{tree}}")
    tip, side = rev(source, "main"), rev(source, "side")
    steps = [commits[10], tip, side, rev(source, "v2"), rev(source, "t1")]
    held = ()
    for want in steps:
        verdict = bench.push(pack_of(source, (want,), held), (b"refs/tags/x", ZERO, want))
        if verdict.pack:
            git(tmp_path, "index-pack", "-o", "git.idx", verdict.pack.path)
            assert filecmp.cmp(tmp_path / "git.idx", verdict.pack.idx.path, shallow=False)
            assert Path(verdict.pack.path).read_bytes()[-20:].hex() == verdict.pack.sha1
        assert verdict.brings_exactly
        held = (*held, want)
    for want in (tip, side, rev(source, "v2"), commits[5]):
        assert brought(bench, [bytes.fromhex(want)]) == listed(source, want)
    chance = random.Random(seed)
    for _ in range(10):
        have, want = chance.sample(commits, 2)
        sent = brought(bench, [bytes.fromhex(want)], [bytes.fromhex(have)])
        assert listed(source, want, f"^{have}") <= sent <= listed(source, want)
    assert listed(source, "t1") == brought(bench, [bytes.fromhex(rev(source, "t1"))])


def test_generations_times_and_shapes(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    commits = grow(source, 30)
    bench.push_git(source, commits[15])
    bench.push_git(source, commits[-1], haves=(commits[15],), name=b"refs/heads/x")
    rows = {row.sha.hex(): (i, row) for one in bench.bases for i in [Intro.open(one.intro)] for row in i}
    for line in git(source, "rev-list", "--parents", "--timestamp", commits[-1]).decode().splitlines():
        stamp, one, *parents = line.split()
        i, row = rows[one]
        assert row.time == int(stamp)
        assert [parent.hex() for parent in i.parents(row)] == parents
        assert row.generation == 1 + max((rows[parent][1].generation for parent in parents), default=0)
        files = git(source, "ls-tree", "-r", "--name-only", one).splitlines()
        stats = next(stats for base in bench.bases if (stats := Intro.open(base.intro).tree_stats(row.tree)))
        assert stats.files == len(files)
        assert stats.depth == max(name.count(b"/") for name in files) + 1


def test_the_same_pack_has_the_same_sidecar_wherever_it_lands(tmp_path):
    source = new_repo(tmp_path / "source")
    commits = grow(source, 20)
    written = []
    for name, before in (("a", ()), ("b", (commits[3],))):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name)
        for one in before:
            bench.push_git(source, one)
        pack = bench.push(pack_of(source, (commits[-1],)), (MAIN, ZERO, commits[-1])).pack
        written.append(Path(pack.intro.path).read_bytes())
    assert written[0] == written[1]


def test_a_thin_pack_is_completed_and_stands_alone(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    old = grow(source, 5)[-1]
    new = grow(source, 9)[-1]
    bench.push_git(source, old)
    thin = pack_of(source, (new,), (old,))
    verdict = bench.push(thin, (MAIN, old, new))
    alone = new_repo(tmp_path / "alone")
    assert b"unresolved delta" in git(alone, "index-pack", "--stdin", input=thin, check=False)
    git(alone, "index-pack", "--stdin", input=Path(verdict.pack.path).read_bytes())
    assert verdict.pack.objects > int.from_bytes(thin[8:12], "big")
    assert verdict.fast_forward == {MAIN: True}


def test_tips_are_typed_and_peeled(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    tip = grow(source, 12)[-1]
    git(source, "tag", "-a", "-m", "one", "one", tip)
    git(source, "tag", "-a", "-m", "two", "two", "one")
    two, root = rev(source, "two"), rev(source, f"{tip}^{{tree}}")
    files = len(git(source, "ls-tree", "-r", tip).splitlines())
    updates = [(b"refs/tags/two", ZERO, two), (b"refs/tags/root", ZERO, root), (MAIN, ZERO, tip)]
    for pushed in (pack_of(source, (two,)), None):
        verdict = bench.push(pushed, *updates)
        assert verdict.tips[two] == Tip("tag", tip, files, 3)
        assert verdict.tips[root] == Tip("tree", None, files, 3)
        assert verdict.tips[tip] == Tip("commit", None, files, 3)


def test_branches_point_to_commits_and_to_what_exists(bench):
    data, tip = one_commit((b"100644", b"a", b"hello"))
    blob = sha(BLOB, b"hello").hex()
    odd, absent = b"refs/heads/odd", b"refs/heads/absent"
    updates = [(MAIN, ZERO, tip), (odd, ZERO, blob), (b"refs/tags/x", ZERO, blob), (absent, ZERO, "ab" * 20)]
    verdict = bench.check(data, *updates)
    assert verdict.refusals == {
        odd: "a branch must point to a commit, not to a blob",
        absent: "missing necessary objects",
    }
    assert verdict.tips[blob].type == "blob"


def test_ancestry_decides_what_is_a_fast_forward(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    commits = grow(source, 30, seed=3)
    main, side = rev(source, "main"), rev(source, "side")
    bench.push(pack_of(source, (main, side)), (MAIN, ZERO, main))
    chance = random.Random(5)
    pairs = [(main, side), (side, main), *(tuple(chance.sample(commits, 2)) for _ in range(40))]
    for old, new in pairs:
        done = git(source, "rev-list", "-1", old, f"^{new}")
        assert bench.check(None, (MAIN, old, new)).fast_forward[MAIN] == (not done.strip()), (old, new)
    assert bench.check(None, (MAIN, main, ZERO)).fast_forward == {MAIN: False}
    assert bench.check(None, (MAIN, "ab" * 20, main)).fast_forward == {MAIN: False}


def test_pointers_are_found_with_path_and_commit(bench):
    text = POINTER % (b"ab" * 32, 12345)
    data, tip = one_commit((b"100644", b"model.safetensors", text), (b"100644", b"z", b"plain"))
    found = PointerFound(sha(BLOB, text).hex(), "ab" * 32, 12345, "model.safetensors", tip)
    assert bench.push(data, (MAIN, ZERO, tip)).pointers == (found,)
    with Intro.open(bench.bases[0].intro) as read:
        assert [(row.oid.hex(), row.size) for row in read.pointers()] == [("ab" * 32, 12345)]


def test_a_pointer_hidden_in_an_earlier_push_is_found_when_a_commit_names_it(bench):
    text = POINTER % (b"cd" * 32, 5)
    data, tip = one_commit((b"100644", b"a", b"x"), also=(whole(BLOB, text),))
    verdict = bench.push(data, (MAIN, ZERO, tip))
    assert [(one.path, one.commit) for one in verdict.pointers] == [("", "")]
    assert not verdict.brings_exactly
    root = tree((b"100644", b"stolen", sha(BLOB, text)))
    top = commit(sha(TREE, root), bytes.fromhex(tip))
    verdict = bench.push(pack(whole(TREE, root), whole(COMMIT, top)), (MAIN, tip, sha(COMMIT, top).hex()))
    assert [(one.oid, one.path) for one in verdict.pointers] == [("cd" * 32, "stolen")]


def test_touched_locks_are_those_that_differ_from_every_parent(bench):
    def blob(text):
        return sha(BLOB, text)

    def shot(inner, outer):
        below = tree((b"100644", b"f", blob(inner)))
        root = tree((b"40000", b"d", sha(TREE, below)), (b"100644", b"o", blob(outer)))
        return [whole(TREE, below), whole(TREE, root)], sha(TREE, root)

    blobs = [whole(BLOB, text) for text in (b"1", b"2", b"3")]

    def id(one):
        return sha(COMMIT, one).hex()

    first, root1 = shot(b"1", b"1")
    left, root2 = shot(b"2", b"1")
    right, root3 = shot(b"1", b"2")
    merged, root4 = shot(b"2", b"2")
    c1 = commit(root1)
    c2, c3 = commit(root2, sha(COMMIT, c1)), commit(root3, sha(COMMIT, c1))
    c4 = commit(root4, sha(COMMIT, c2), sha(COMMIT, c3))
    gone = tree((b"100644", b"o", blob(b"2")))
    c5 = commit(sha(TREE, gone), sha(COMMIT, c4))
    locks = {"lock_paths": ("d/f", "o", "d", "absent", "o/x", "a//b", "")}
    start = bench.push(pack(*blobs, *first, whole(COMMIT, c1)), (MAIN, ZERO, id(c1)), **locks)
    assert start.touched == dict.fromkeys(("d/f", "o", "d"), id(c1))
    trees = {entry: None for entry in [*left, *right, *merged] if entry not in first}
    commits = [whole(COMMIT, one) for one in (c2, c3, c4)]
    done = bench.push(pack(*trees, *commits), (MAIN, id(c1), id(c4)), **locks)
    assert done.touched == {"d/f": id(c2), "d": id(c2), "o": id(c3)}
    removed = bench.push(pack(whole(TREE, gone), whole(COMMIT, c5)), (MAIN, id(c4), id(c5)), **locks)
    assert set(removed.touched) == {"d/f", "d"}


def test_large_files_are_told_and_larger_ones_are_sent_to_lfs(bench):
    big = random.Random(1).randbytes(11 << 20)
    data, tip = one_commit((b"100644", b"big.bin", big))
    verdict = bench.check(data, (MAIN, ZERO, tip))
    assert [(one.size, one.path, one.commit) for one in verdict.big_blobs] == [(11 << 20, "big.bin", tip)]
    verdict = bench.check(data, (MAIN, ZERO, tip), limits=Limits(blob=10 << 20))
    assert "git lfs migrate import" in verdict.refusals[None]
    assert "big.bin" in verdict.refusals[None]
    small, tip = one_commit((b"100644", b"small.bin", big[:5000]))
    assert "small.bin" in bench.check(small, (MAIN, ZERO, tip), limits=Limits(blob=4 << 10)).refusals[None]


def test_a_tag_that_lies_about_its_target_is_refused(bench):
    data, tip = one_commit((b"100644", b"a", b"x"))
    lie = b"object " + tip.encode() + b"\ntype tree\ntag v\ntagger Ada <a@b> 1 +0000\n\nm\n"
    bench.push(data, (MAIN, ZERO, tip))
    verdict = bench.check(pack(whole(TAG, lie)), (b"refs/tags/v", ZERO, sha(TAG, lie).hex()))
    assert "is named as a tree and is a commit" in verdict.refusals[None]


def test_an_empty_pack_and_no_pack_are_fine(bench):
    data, tip = one_commit((b"100644", b"a", b"x"))
    bench.push(data, (MAIN, ZERO, tip))
    for nothing in (pack(), None):
        verdict = bench.check(nothing, (b"refs/heads/b", ZERO, tip), (MAIN, tip, ZERO))
        assert verdict.pack is None
        assert verdict.refusals == {}
        assert set(verdict.tips) == {tip}


def test_a_repeat_of_what_is_there_is_taken_and_brings_nothing_new(bench):
    data, tip = one_commit((b"100644", b"a", b"x"))
    bench.push(data, (MAIN, ZERO, tip))
    verdict = bench.push(data, (b"refs/heads/b", ZERO, tip))
    assert verdict.brings_exactly
    assert verdict.pointers == ()


def test_what_only_hidden_or_refused_refs_reach_is_extra(bench):
    data, tip = one_commit((b"100644", b"a", b"x"))
    assert bench.check(data, (MAIN, ZERO, tip)).brings_exactly
    assert not bench.check(data, (b"refs/weightroom/x", ZERO, tip)).brings_exactly
    other, _ = one_commit((b"100644", b"a", b"x"), also=(whole(BLOB, b"more"),))
    assert not bench.check(other, (MAIN, ZERO, tip)).brings_exactly


def test_a_submodule_needs_no_object(bench):
    root = tree((b"160000", b"sub", b"\x12" * 20))
    top = commit(sha(TREE, root))
    verdict = bench.push(pack(whole(TREE, root), whole(COMMIT, top)), (MAIN, ZERO, sha(COMMIT, top).hex()))
    assert verdict.tips[sha(COMMIT, top).hex()].files == 1


def test_a_light_check_is_the_same_check(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    tip = grow(source, 10)[-1]
    data = pack_of(source, (tip,))
    heavy, light = (bench.check(data, (MAIN, ZERO, tip), light=light) for light in (False, True))
    assert heavy.pack.id == light.pack.id
    assert heavy.pack.intro.sha256 == light.pack.intro.sha256
    assert heavy.tips == light.tips


def test_speed_of_a_hub_commit_and_of_a_large_push(bench, tmp_path, capsys):
    source = new_repo(tmp_path / "source")
    commits = grow(source, 2400, files=400)
    data = pack_of(source, (commits[-2], rev(source, "main")))
    begun = time.perf_counter()
    verdict = bench.push(data, (MAIN, ZERO, commits[-2]))
    large = time.perf_counter() - begun
    small, tip = one_commit((b"100644", b"a", b"x"), (b"100644", b"b", b"y"))
    begun = time.perf_counter()
    for number in range(20):
        path = tmp_path / f"{number}.pack"
        path.write_bytes(small)
        assert ingest.check_light(Job(str(path), bench.bases, (Update(MAIN, ZERO, tip),))) is not None
    small_ms = (time.perf_counter() - begun) * 50
    with capsys.disabled():
        print(f"\n{verdict.pack.objects} objects in {large:.2f} s; a commit of 4 in {small_ms:.2f} ms")


@pytest.mark.parametrize("kind", ["unfolds", "large"])
def test_what_may_take_long_is_left_to_a_worker(bench, tmp_path, kind):
    content = b"x" * (9 << 20) if kind == "unfolds" else random.Random(1).randbytes(2 << 20)
    data, tip = one_commit((b"100644", b"a", content))
    path = tmp_path / "x.pack"
    path.write_bytes(data)
    job = Job(str(path), (), (Update(MAIN, ZERO, tip),))
    assert ingest.check_light(job) is None
    assert ingest.check(job).refusals == {}


def test_a_worker_process_gives_the_same_verdict(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    tip = grow(source, 10)[-1]
    path = tmp_path / "x.pack"
    path.write_bytes(pack_of(source, (tip,)))
    job = Job(str(path), bench.bases, (Update(MAIN, ZERO, tip),), lock_paths=("d0",))
    heavy = Heavy(workers=1, memory_bytes=2 << 30, deadline=60)
    try:
        assert heavy.submit(ingest.check, job) == ingest.check(job)
    finally:
        heavy.close()
