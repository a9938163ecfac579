"""What must never enter a repo is refused with its reason, and what is refused leaves the manifest as it was."""

import time

import pytest

from registry.git.packfile import BLOB, COMMIT, TAG, TREE
from registry.git.snapshot import ZERO
from registry.git.verdict import Limits
from tests.registry.git.packed import grow, new_repo
from tests.registry.git.pushed import MAIN, Bench, commit, one_commit, pack, pack_of, rev, sha, tree, whole


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "q").mkdir()
    return Bench(tmp_path / "q")


def refusal(verdict):
    assert verdict.unpack_error is None
    assert verdict.pack is None
    return verdict.refusals[None]


HOSTILE = [b".git", b".GIT", b"git~1", b"..", b".", b"..\\x", b".git::$INDEX_ALLOCATION", ".g\u200cit".encode()]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_whatever_is_forgiven(bench, name):
    data, tip = one_commit((b"100644", name, b"x"))
    everything = frozenset({"hasDotgit", "hasDot", "hasDotdot", "backslashInName"})
    assert "tree" in refusal(bench.check(data, (MAIN, ZERO, tip), portable="off", allow=everything))


def test_names_of_other_systems_follow_the_policy(bench):
    data, tip = one_commit((b"100644", b"aux", b"x"))
    assert "deviceName" in refusal(bench.check(data, (MAIN, ZERO, tip)))
    warned = bench.check(data, (MAIN, ZERO, tip), portable="warn")
    assert warned.refusals == {}
    assert "deviceName" in warned.warnings[0]
    assert bench.check(data, (MAIN, ZERO, tip), portable="off").warnings == ()


def test_old_history_may_be_forgiven_by_rule(bench):
    data, tip = one_commit((b"100666", b"a", b"x"))
    assert "badFilemode" in refusal(bench.check(data, (MAIN, ZERO, tip)))
    assert bench.check(data, (MAIN, ZERO, tip), allow=frozenset({"badFilemode"})).refusals == {}


def test_hostile_modules_are_found_under_any_name(bench):
    evil = b'[submodule "../../x"]\n\tpath = a\n'
    for name in (b".gitmodules", b"gitmod~1", ".gitmodule\u200cs".encode()):
        data, tip = one_commit((b"100644", name, evil))
        assert "gitmodulesName" in refusal(bench.check(data, (MAIN, ZERO, tip)))


def test_a_blob_that_came_under_a_harmless_name_is_judged_again(bench):
    evil = b'[submodule "a"]\n\turl = -u./x\n'
    data, tip = one_commit((b"100644", b"notes.txt", evil))
    bench.push(data, (MAIN, ZERO, tip))
    root = tree((b"100644", b".gitmodules", sha(BLOB, evil)))
    top = commit(sha(TREE, root), bytes.fromhex(tip))
    pushed = pack(whole(TREE, root), whole(COMMIT, top))
    assert "gitmodulesUrl" in refusal(bench.check(pushed, (MAIN, tip, sha(COMMIT, top).hex())))


def test_links_are_judged_by_their_target(bench):
    data, tip = one_commit((b"120000", b"l", b"a" * 5000))
    assert "symlinkTargetLength" in refusal(bench.check(data, (MAIN, ZERO, tip)))
    data, tip = one_commit((b"120000", b"l", b"/etc/passwd"))
    assert "symlinkPointsOutside" in bench.check(data, (MAIN, ZERO, tip)).warnings[0]


def test_malformed_commits_and_tags_are_refused(bench):
    root = tree()
    bad = commit(sha(TREE, root)).replace(b"+0000", b"0000")
    pushed = pack(whole(TREE, root), whole(COMMIT, bad))
    assert "badTimezone" in refusal(bench.check(pushed, (MAIN, ZERO, sha(COMMIT, bad).hex())))
    bad = b"object " + sha(TREE, root).hex().encode() + b"\ntype tree\n\n"
    pushed = pack(whole(TREE, root), whole(TAG, bad))
    assert "missingTagEntry" in refusal(bench.check(pushed, (MAIN, ZERO, sha(TAG, bad).hex())))


def test_every_missing_object_refuses_the_push(bench):
    blob, inner = b"content", tree((b"100644", b"f", sha(BLOB, b"content")))
    root = tree((b"40000", b"d", sha(TREE, inner)))
    first = commit(sha(TREE, root))
    second = commit(sha(TREE, root), sha(COMMIT, first))
    tag = b"object " + sha(COMMIT, second).hex().encode() + b"\ntype commit\ntag v\ntagger A <a@b> 1 +0000\n\nm\n"
    entries = [(BLOB, blob), (TREE, inner), (TREE, root), (COMMIT, first), (COMMIT, second), (TAG, tag)]
    update = (b"refs/tags/v", ZERO, sha(TAG, tag).hex())
    for left_out in entries[:-1]:
        data = pack(*(whole(*one) for one in entries if one != left_out))
        assert refusal(bench.check(data, update)).startswith("missing necessary objects")
    verdict = bench.check(pack(*(whole(*one) for one in entries[:-1])), update)
    assert verdict.refusals == {update[0]: "missing necessary objects"}
    assert bench.check(pack(*(whole(*one) for one in entries)), update).refusals == {}


def test_an_object_of_the_wrong_kind_is_a_missing_one(bench):
    root = tree((b"40000", b"d", sha(BLOB, b"x")))
    top = commit(sha(TREE, root))
    data = pack(whole(BLOB, b"x"), whole(TREE, root), whole(COMMIT, top))
    assert "is named as a tree and is a blob" in refusal(bench.check(data, (MAIN, ZERO, sha(COMMIT, top).hex())))


def test_a_disconnected_pack_is_refused(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    commits = grow(source, 20)
    data = pack_of(source, (commits[-1],), (commits[10],), "--delta-base-offset")
    assert refusal(bench.check(data, (MAIN, ZERO, commits[-1]))).startswith("missing necessary objects")


def test_a_thin_pack_over_an_absent_base_is_refused(bench, tmp_path):
    source = new_repo(tmp_path / "source")
    grow(source, 30)
    tip, old = rev(source, "main"), rev(source, "main~5")
    verdict = bench.check(pack_of(source, (tip,), (old,)), (MAIN, old, tip))
    assert verdict.unpack_error.startswith("unresolved deltas")


def test_more_names_than_objects_is_refused_without_keeping_them(bench):
    entries = [(b"100644", b"%06d" % n, (n + 1).to_bytes(20, "big")) for n in range(50_000)]
    root = tree(*entries)
    top = commit(sha(TREE, root))
    verdict = bench.check(pack(whole(TREE, root), whole(COMMIT, top)), (MAIN, ZERO, sha(COMMIT, top).hex()))
    assert refusal(verdict).startswith("missing necessary objects")


def bomb(levels, wide=10):
    """`wide` to the power of `levels` paths in as many trees as levels."""
    objects = [(BLOB, b"boom")]
    at, mode = sha(BLOB, b"boom"), b"100644"
    for _ in range(levels):
        content = tree(*((mode, b"%d" % n, at) for n in range(wide)))
        objects.append((TREE, content))
        at, mode = sha(TREE, content), b"40000"
    top = commit(at)
    return pack(*(whole(*one) for one in [*objects, (COMMIT, top)])), sha(COMMIT, top).hex()


@pytest.mark.parametrize("levels", [7, 20, 100])
def test_a_tree_of_endless_paths_is_counted_not_walked(bench, levels):
    data, tip = bomb(levels)
    begun = time.process_time()
    verdict = bench.check(data, (MAIN, ZERO, tip), (b"refs/tags/same", ZERO, tip))
    assert time.process_time() - begun < 2
    assert "files; at most 1000000" in verdict.refusals[MAIN]
    assert set(verdict.refusals) == {MAIN, b"refs/tags/same"}


def test_folders_have_a_depth_limit(bench):
    data, tip = bomb(128, wide=1)
    assert bench.check(data, (MAIN, ZERO, tip)).refusals == {}
    data, tip = bomb(129, wide=1)
    assert "treeTooDeep" in refusal(bench.check(data, (MAIN, ZERO, tip)))


def test_long_paths_are_refused(bench):
    at, mode, objects = sha(BLOB, b"x"), b"100644", [whole(BLOB, b"x")]
    for n in range(18):
        content = tree((mode, b"%03d" % n + b"n" * 240, at))
        objects.append(whole(TREE, content))
        at, mode = sha(TREE, content), b"40000"
    top = commit(at)
    data = pack(*objects, whole(COMMIT, top))
    assert "longPath" in refusal(bench.check(data, (MAIN, ZERO, sha(COMMIT, top).hex())))
    assert bench.check(data, (MAIN, ZERO, sha(COMMIT, top).hex()), portable="off").refusals == {}


def test_commits_that_swap_whole_trees_are_bounded(bench):
    trees, objects = [], []
    for n in range(2):
        blobs = [b"%d %d" % (n, i) for i in range(200)]
        root = tree(*((b"100644", b"%04d" % i, sha(BLOB, text)) for i, text in enumerate(blobs)))
        objects += [whole(BLOB, text) for text in blobs] + [whole(TREE, root)]
        trees.append(sha(TREE, root))
    top, commits = commit(trees[0]), []
    for n in range(60):
        commits.append(top)
        top = commit(trees[n % 2], sha(COMMIT, top), text=b"%d" % n)
    tip = sha(COMMIT, commits[-1]).hex()
    data = pack(*objects, *(whole(COMMIT, one) for one in commits))
    assert bench.check(data, (MAIN, ZERO, tip)).unpack_error is None
    verdict = bench.check(data, (MAIN, ZERO, tip), limits=Limits(introduced=1000))
    assert "replace whole trees too often" in verdict.unpack_error


def test_another_content_under_a_known_id_is_refused(bench, monkeypatch):
    """A SHA-1 collision cannot be made here, so the manifest is damaged instead: one blob's bytes are exchanged."""
    data, tip = one_commit((b"100644", b"a", b"hello"))
    bench.push(data, (MAIN, ZERO, tip))
    other, _ = one_commit((b"100644", b"a", b"hellx"))
    place = bench.bases[0].pack
    with open(place, "r+b") as file:
        assert len(whole(BLOB, b"hello")) == len(whole(BLOB, b"hellx"))
        file.seek(12)
        file.write(other[12 : 12 + len(whole(BLOB, b"hellx"))])
    verdict = bench.check(data, (b"refs/heads/b", ZERO, tip))
    assert "collides with another" in verdict.unpack_error
