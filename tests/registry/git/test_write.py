"""Edited trees are those that git itself makes, and the pack that brings them is one git takes."""

import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import BadPath, Damaged
from registry.git import write
from registry.git.fsck import read_commit
from registry.git.spool import Spool
from registry.git.write import Leaf, Person, TreeEdit

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
ADA = Person("Ada", "ada@example.org")
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

NAME = st.sampled_from([b"a", b"b", b"a.b", b"a-b", b"a0", "é".encode(), b"lib", b"lib.txt"])
PATH = st.lists(NAME, min_size=1, max_size=3).map(b"/".join)
STEP = st.one_of(
    st.tuples(st.just("put"), PATH, st.sampled_from([b"", b"one", b"two"])),
    st.tuples(st.just("delete"), PATH, st.just(b"")),
)


class Objects(dict):
    """Objects by id, as a repo would hold them."""

    def read(self, id):
        return self[id]

    def keep(self, kind, content):
        id = write.object_id(kind, content)
        self[id] = (kind, content)
        return id

    def tree(self, files):
        edit = TreeEdit(self.read, None)
        for path, content in files.items():
            edit.put(path, self.keep(3, content))
        root = edit.write()
        for content in edit.made.values():
            self.keep(2, content)
        return root


def git(folder, *args, data=b""):
    done = subprocess.run(["git", *args], cwd=folder, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def obey(files, step):
    """Do to a dict of files what an edit should do; None if the edit must refuse."""
    act, path, content = step
    below = [name for name in files if name.startswith(path + b"/")]
    if act == "delete":
        gone = {path, *below}
        return {name: value for name, value in files.items() if name not in gone}
    above = [b"/".join(path.split(b"/")[:cut]) for cut in range(1, path.count(b"/") + 1)]
    if below or any(name in files for name in above):
        return None
    return {**files, path: content}


def run(edit, objects, files, steps):
    for step in steps:
        act, path, content = step
        expected = obey(files, step)
        if expected is None:
            with pytest.raises(BadPath):
                edit.put(path, objects.keep(3, content))
        elif act == "put":
            edit.put(path, objects.keep(3, content))
        else:
            assert edit.delete(path) is (expected != files)
        files = files if expected is None else expected
    return files


@given(st.lists(STEP, max_size=12), st.lists(STEP, max_size=12))
def test_edits_do_to_a_tree_what_they_do_to_a_dict(before, after):
    objects = Objects()
    base = run(TreeEdit(objects.read, None), objects, {}, before)
    edit = TreeEdit(objects.read, objects.tree(base))
    files = run(edit, objects, base, after)
    assert edit.write() == Objects().tree(files)
    if files == base:
        assert not edit.made.keys() - objects.keys()


@settings(max_examples=12)
@given(st.lists(STEP, max_size=12), st.lists(STEP, max_size=12))
def test_git_makes_the_same_tree_and_takes_the_pack(before, after):
    objects = Objects()
    base = run(TreeEdit(objects.read, None), objects, {}, before)
    edit = TreeEdit(objects.read, objects.tree(base))
    with tempfile.TemporaryDirectory() as name, Spool(Path(name), "x") as spool:
        files = run(edit, objects, base, after)
        root = edit.write()
        for content in files.values():
            spool.add(len(content), [content])
        commit = write.commit_text(root, [], ADA, AT, "All of it")
        trees = [(2, content) for content in Objects(_trees(objects, files)).values()]
        pack = spool.pack([write.object_id(3, content) for content in files.values()], [*trees, (1, commit)])
        folder = Path(name) / "repo"
        git(name, "init", "-q", "-b", "main", str(folder))
        git(folder, "index-pack", "--strict", "--stdin", data=pack.read_bytes())
        sha = write.object_id(1, commit)
        git(folder, "update-ref", "refs/heads/main", sha)
        assert "error" not in git(folder, "fsck", "--strict", "--full")
        listed = b"".join(
            b"100644 %s\t%s\0" % (write.object_id(3, content).encode(), path) for path, content in files.items()
        )
        git(folder, "update-index", "-z", "--index-info", data=listed)
        assert git(folder, "write-tree") == root
        assert git(folder, "log", "-1", "--format=%T %an %ae %s %ct", "main") == (
            f"{root} Ada ada@example.org All of it {int(AT.timestamp())}"
        )


def _trees(objects, files):
    made = TreeEdit(objects.read, None)
    for path, content in files.items():
        made.put(path, write.object_id(3, content))
    made.write()
    return made.made


def test_only_folders_along_the_touched_path_are_read():
    objects = Objects()
    root = objects.tree({b"a/deep/file": b"1", b"b/other": b"2", b"c": b"3"})
    seen = []

    def read(id):
        seen.append(id)
        return objects[id]

    edit = TreeEdit(read, root)
    edit.put(b"a/deep/file", objects.keep(3, b"new"))
    edit.write()
    assert len(seen) == 3
    assert len(edit.made) == 3


def test_an_executable_file_stays_one_and_a_link_becomes_a_file():
    objects = Objects()
    blob, other = objects.keep(3, b"x"), objects.keep(3, b"y")
    root = objects.keep(2, write.serialise([(b"run", b"100755", blob), (b"link", b"120000", blob)]))
    edit = TreeEdit(objects.read, root)
    edit.put(b"run", other)
    edit.put(b"link", other)
    edit.write()
    assert edit.find(b"run") == Leaf(b"100755", other)
    assert edit.find(b"link") == Leaf(b"100644", other)


def test_a_tree_without_files_is_the_empty_tree():
    objects = Objects()
    edit = TreeEdit(objects.read, objects.tree({b"a/b": b"1"}))
    assert edit.delete(b"a")
    assert edit.write() == EMPTY_TREE
    assert edit.made == {EMPTY_TREE: b""}


def test_names_and_find_see_files_only():
    objects = Objects()
    edit = TreeEdit(objects.read, objects.tree({b"a/b": b"1", b"c": b"2"}))
    assert set(edit.names(b"")) == {b"c"}
    assert set(edit.names(b"a")) == {b"b"}
    assert edit.names(b"c/nothing") == {}
    assert edit.find(b"a") is None
    assert edit.find(b"nothing/at/all") is None


def test_what_is_no_tree_is_damage():
    objects = Objects()
    with pytest.raises(Damaged):
        TreeEdit(objects.read, objects.keep(3, b"blob"))
    with pytest.raises(Damaged):
        TreeEdit(objects.read, objects.keep(2, b"not a tree"))


@given(st.text(), st.text(), st.text())
def test_any_name_and_message_make_a_commit_that_git_would_take(name, email, message):
    text = write.commit_text(EMPTY_TREE, ["1" * 40, "2" * 40], Person(name, email), AT, message)
    facts, findings = read_commit(text)
    assert findings == []
    assert (facts.tree.hex(), len(facts.parents)) == (EMPTY_TREE, 2)
    assert write.read_parents(text) == (EMPTY_TREE, ["1" * 40, "2" * 40])


def test_a_tag_says_who_made_it_and_is_peeled():
    objects = Objects()
    commit = objects.keep(1, write.commit_text(EMPTY_TREE, [], ADA, AT, "first"))
    text = write.tag_text("v1", commit, ADA, AT, "One\n\nmore\n")
    tag = objects.keep(4, text)
    assert text.endswith(b"\n\nOne\n\nmore\n")
    assert b"tagger Ada <ada@example.org>" in text
    assert write.peel(objects.read, tag) == commit
