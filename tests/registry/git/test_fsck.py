"""What commits, tags, trees, paths and ref names may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.git import fsck
from registry.git.filenames import Severity, Special, check_name

SHA = b"\x11" * 20


def refused(findings):
    return {one.id for one in findings if one.severity is Severity.REFUSE}


def portable(findings):
    return {one.id for one in findings if one.severity is Severity.PORTABLE}


def warned(findings):
    return {one.id for one in findings if one.severity is Severity.WARN}


def tree(*entries):
    return b"".join(mode + b" " + name + b"\0" + SHA for mode, name in entries)


TREE = b"tree " + b"1" * 40


WHO = b"A U Thor <a@example.org> 1700000000 +0100"


COMMIT = TREE + b"\nauthor " + WHO + b"\ncommitter " + WHO + b"\n\nmessage\n"


TAG = b"object " + b"1" * 40 + b"\ntype commit\ntag v1\ntagger " + WHO + b"\n\nmessage\n"


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "a/./b", "../a", "a/..", "a\0b", "a\\..\\b", "\ud800"])
def test_paths_that_are_no_paths_are_refused(path):
    assert refused(fsck.check_path(path))


@pytest.mark.parametrize(
    "path", ["model.safetensors", "a/b c/d.txt", "été/ñ.bin", ".gitattributes", ".gitignore", "a/.gitattributes"]
)
def test_plain_paths_pass(path):
    assert fsck.check_path(path) == []


def test_a_special_file_is_no_folder():
    assert "gitmodulesBlob" in refused(fsck.check_path(".gitmodules/x"))
    assert "gitattributesBlob" in refused(fsck.check_path("a/GITATT~1/x"))


def test_long_and_deep_paths_are_refused():
    assert portable(fsck.check_path("a" * 256)) == {"longName"}
    assert portable(fsck.check_path("/".join(["a" * 200] * 21))) == {"longPath"}
    assert not fsck.check_path("/".join(["a"] * 128))
    assert refused(fsck.check_path("/".join(["a"] * 129))) == {"deepPath"}


def test_other_special_files_as_links_are_told():
    for name, key in (
        (b".gitattributes", "gitattributesSymlink"),
        (b".gitignore", "gitignoreSymlink"),
        (b".mailmap", "mailmapSymlink"),
    ):
        assert warned(fsck.check_tree(tree((b"120000", name)))) == {key}
    assert "gitattributesBlob" in refused(fsck.check_tree(tree((b"160000", b".gitattributes"))))


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ([(b"100644", b"b"), (b"100644", b"a")], "treeNotSorted"),
        ([(b"40000", b"a"), (b"100644", b"a.b")], "treeNotSorted"),
        ([(b"100644", b"a"), (b"100644", b"a")], "duplicateEntries"),
        ([(b"100644", b"a"), (b"40000", b"a")], "duplicateEntries"),
        ([(b"100644", b"a"), (b"100644", b"a.c"), (b"40000", b"a")], "duplicateEntries"),
        ([(b"100600", b"a")], "badFilemode"),
        ([(b"0100644", b"a")], "zeroPaddedFilemode"),
        ([(b"040000", b"a")], "zeroPaddedFilemode"),
        ([(b"644", b"a")], "badFilemode"),
    ],
)
def test_malformed_trees_are_refused(entries, key):
    assert key in refused(fsck.check_tree(tree(*entries)))


def test_the_null_id_and_old_modes():
    assert refused(fsck.check_tree(b"100644 a\0" + bytes(20))) == {"nullSha1"}
    assert warned(fsck.check_tree(tree((b"100664", b"a")))) == {"oldFilemode"}


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"100644 a",
        b"100644 a\0short",
        b"10064x a\0" + SHA,
        b"100644a\0" + SHA,
        b" a\0" + SHA,
        tree((b"100644", b"a")) + b"1",
    ],
)
def test_bytes_that_are_no_tree(data):
    assert refused(fsck.check_tree(data)) == {"badTree"}


def test_a_good_tree_in_gits_order_passes():
    assert (
        fsck.check_tree(
            tree((b"100644", b"a-b"), (b"40000", b"a"), (b"100755", b"a0"), (b"120000", b"l"), (b"160000", b"m"))
        )
        == []
    )
    assert fsck.check_tree(b"") == []


def test_a_good_commit_gives_its_facts():
    data = COMMIT.replace(b"\nauthor", b"\nparent " + b"2" * 40 + b"\nparent " + b"3" * 40 + b"\nauthor", 1)
    facts, found = fsck.read_commit(data.replace(b"\n\n", b"\nencoding x\ngpgsig a\n b\n\n", 1))
    assert found == []
    assert facts == fsck.CommitFacts(SHA, (b"\x22" * 20, b"\x33" * 20), 1700000000)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (TREE + b"\n", b"", "missingTree"),
        (TREE, b"tree " + b"1" * 39, "badTreeSha1"),
        (TREE, b"tree " + b"A" * 40, "badTreeSha1"),
        (TREE, TREE + b"\n" + TREE, "missingAuthor"),
        (b"author ", b"parent xyz\nauthor ", "badParentSha1"),
        (b"author " + WHO + b"\n", b"", "missingAuthor"),
        (b"author " + WHO, b"author " + WHO + b"\nauthor " + WHO, "multipleAuthors"),
        (b"committer " + WHO + b"\n", b"", "missingCommitter"),
        (b"committer " + WHO, b"committer " + WHO + b"\ncommitter " + WHO, "multipleCommitters"),
        (b"\n\n", b"\nparent " + b"1" * 40 + b"\n\n", "headerOutOfPlace"),
        (b"\n\n", b"\n" + TREE + b"\n\n", "headerOutOfPlace"),
        (b"A U Thor <", b"<", "missingNameBeforeEmail"),
        (b"A U Thor <", b"A U Thor<", "missingSpaceBeforeEmail"),
        (b"A U Thor", b"A >U Thor", "badName"),
        (b"<a@example.org>", b"a@example.org", "missingEmail"),
        (b"a@example.org>", b"a@<example.org>", "badEmail"),
        (b"a@example.org>", b"a@example.org", "badEmail"),
        (b"org> 17", b"org>17", "missingSpaceBeforeDate"),
        (b" 1700000000 ", b" 01700000000 ", "zeroPaddedDate"),
        (b" 1700000000 ", b" 99999999999999999999 ", "badDateOverflow"),
        (b" 1700000000 ", b" 9" + b"9" * 5000 + b" ", "badDateOverflow"),
        (b" 1700000000 ", b" -17 ", "badDate"),
        (b" 1700000000 ", b" soon ", "badDate"),
        (b"+0100", b"0100", "badTimezone"),
        (b"+0100", b"+01000", "badTimezone"),
        (b"A U Thor", b"A U\0Thor", "nulInHeader"),
    ],
)
def test_malformed_commits_are_refused(old, new, key):
    facts, found = fsck.read_commit(COMMIT.replace(old, new, 1))
    assert key in refused(found)
    assert facts is None


def test_a_commit_without_end_of_header():
    assert "unterminatedHeader" in refused(fsck.check_object(b"commit", COMMIT[:60]))
    assert fsck.check_object(b"commit", COMMIT.partition(b"\n\n")[0] + b"\n") == []
    assert warned(fsck.check_object(b"commit", COMMIT + b"\0")) == {"nulInCommit"}


def test_a_good_tag_gives_its_facts():
    assert fsck.read_tag(TAG) == (fsck.TagFacts(SHA, b"commit", 1700000000), [])


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (b"object ", b"thing ", "missingObject"),
        (b"1" * 40, b"1" * 41, "badObjectSha1"),
        (b"type commit\n", b"", "missingTypeEntry"),
        (b"type commit", b"type thing", "badType"),
        (b"tag v1\n", b"", "missingTagEntry"),
        (b"+0100", b"+1", "badTimezone"),
        (b"v1", b"v\0", "nulInHeader"),
    ],
)
def test_malformed_tags_are_refused(old, new, key):
    assert key in refused(fsck.check_object(b"tag", TAG.replace(old, new, 1)))


def test_odd_tags_are_told():
    assert warned(fsck.check_object(b"tag", TAG.replace(b"tagger " + WHO + b"\n", b""))) == {"missingTaggerEntry"}
    assert warned(fsck.check_object(b"tag", TAG.replace(b"v1", b"v 1"))) == {"badTagName"}


def test_links():
    assert fsck.check_link(b"a/b") == []
    assert refused(fsck.check_link(b"a" * 4097)) == {"symlinkTargetLength"}
    assert refused(fsck.check_link(b"a\0b")) == {"symlinkTargetNul"}
    assert warned(fsck.check_link(b"/etc/passwd")) == {"symlinkPointsOutside"}
    assert warned(fsck.check_link(b"a/../../b")) == {"symlinkPointsOutside"}


@pytest.mark.parametrize(
    "name", ["refs/heads/main", "refs/tags/v1.0", "refs/pr/1", "refs/heads/été", "refs/heads/a@b", "refs/notes/commits"]
)
def test_good_ref_names(name):
    assert fsck.check_ref_name(name.encode()) is None


@pytest.mark.parametrize(
    "name",
    [
        b"HEAD",
        b"main",
        b"refs/heads",
        b"refs/",
        b"refs//heads/a",
        b"refs/heads/",
        b"refs/heads/a.",
        b"refs/heads/.a",
        b"refs/heads/a..b",
        b"refs/heads/a b",
        b"refs/heads/a~b",
        b"refs/heads/a^b",
        b"refs/heads/a:b",
        b"refs/heads/a?",
        b"refs/heads/a*",
        b"refs/heads/a[",
        b"refs/heads/a\\b",
        b"refs/heads/a\x01",
        b"refs/heads/a\x7f",
        b"refs/heads/a@{b",
        b"refs/heads/a.lock",
        b"refs/heads/a.lock/b",
        b"refs/heads/\xff",
        b"refs/heads/" + b"a" * 245,
        b"",
    ],
)
def test_funny_ref_names_are_refused(name):
    assert fsck.check_ref_name(name)


@given(st.binary(max_size=120), st.sampled_from([b"commit", b"tree", b"tag", b"blob"]))
def test_garbage_is_judged_not_raised(data, kind):
    fsck.check_object(kind, data)
    fsck.check_special_blob(Special.MODULES, data)
    fsck.check_ref_name(data)
    check_name(data)
    fsck.check_path(data.decode("latin-1"))


@pytest.mark.parametrize("unit", [b"7", b"7 ", b"7 a\0", b'[submodule "a"]\\', b"[ ", b'"\\'])
def test_hostile_bytes_take_linear_time(unit):
    data = unit * (1 << 18)
    fsck.check_tree(data)
    fsck.check_special_blob(Special.MODULES, data[: 1 << 20])
