"""Hub operations become one commit, or nothing at all."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.commits import Committed
from registry.draft import DraftLimits
from registry.errors import BadBody, BadPath, EntryAbsent, NotAllowed, RefMoved, RevisionAbsent, StaleParent, TooLarge
from registry.git.snapshot import ZERO
from registry.publish import Origin
from registry.receive import Update
from tests.registry import people
from tests.registry.gate import MAIN
from tests.registry.writing import ANN, BY_ANN, Writing

OID = "ab" * 32


@pytest.fixture
def desk(database, tmp_path):
    made = Writing(database, tmp_path)
    yield made
    made.gate.heavy.close()


@pytest.fixture
def begun(desk):
    desk.commit(("put", "README.md", b"# One\n"), ("put", "data/a.txt", b"a"), ("put", "data/b.txt", b"b"))
    return desk


def test_a_first_commit_starts_the_default_branch(desk):
    made = desk.commit(("put", "a/b.txt", b"hello"), message="First")
    assert made == Committed(desk.tip(), MAIN)
    assert desk.files() == {"a/b.txt": b"hello"}
    assert desk.parents(made.sha) == []
    assert "author ann <ann@users.noreply.weightroom> " in desk.text(made.sha)
    assert desk.text(made.sha).endswith("\n\nFirst\n")
    assert desk.leftovers() == []


def test_git_finds_nothing_wrong_with_the_history(begun):
    begun.commit(("put", "data/a.txt", b"changed"), ("delete", "data/b.txt"))
    tip = begun.commit(("delete", "data"), ("put", "x/y/z", b"deep")).sha
    for row in reversed(begun.gate.repositories.snapshot(1).packs):
        with begun.gate.packs.lease(row) as lease:
            begun.gate.git("index-pack", "--strict", "--stdin", data=lease.pack.read_bytes())
    begun.gate.git("update-ref", "refs/heads/main", tip)
    begun.gate.git("fsck", "--strict", "--full")
    assert begun.gate.git("log", "--format=%an", "main").split() == ["ann"] * 3
    assert begun.gate.git("ls-tree", "-r", "--name-only", "main").split() == ["README.md", "x/y/z"]


def test_operations_apply_in_order_and_the_last_on_a_path_wins(begun):
    begun.commit(
        ("put", "a", b"1"), ("put", "a", b"2"), ("delete", "data"), ("put", "data/new", b"n"), ("put", "gone", b"")
    )
    begun.commit(("put", "b", b"x"), ("delete", "b"), ("delete", "gone"))
    assert begun.files() == {"README.md": b"# One\n", "a": b"2", "data/new": b"n"}


def test_naming_a_folder_deletes_it_and_one_commit_brings_exactly_what_it_needs(begun):
    begun.commit(("put", "tmp/x", b"thrown away"), ("delete", "tmp/"), ("put", "kept", b"kept"))
    newest = begun.gate.repositories.snapshot(1)
    assert newest.packs[0].objects == 3, "a blob, a tree, a commit"
    assert newest.closure_tips is not None, "the packs hold the closure of the refs and nothing else"


def test_what_is_not_there_cannot_be_deleted(begun):
    tip = begun.tip()
    with pytest.raises(EntryAbsent, match=r'A file with the name "data/c.txt" does not exist') as caught:
        begun.commit(("put", "new", b"n"), ("delete", "data/c.txt"))
    assert caught.value.commit == tip
    assert begun.tip() == tip


def test_a_stale_parent_is_told_and_changes_nothing(begun):
    seen = begun.tip()
    begun.commit(("put", "a", b"1"))
    tip = begun.tip()
    with pytest.raises(StaleParent, match=r"^The branch was updated since you opened this page. Please refresh"):
        begun.commit(("put", "a", b"2"), parent=seen)
    with pytest.raises(StaleParent):
        begun.commit(("put", "a", b"2"), parent="0" * 7)
    assert begun.tip() == tip


def test_a_prefix_of_the_tip_is_parent_enough(begun):
    made = begun.commit(("put", "a", b"1"), parent=begun.tip()[:7])
    assert begun.tip() == made.sha


@pytest.mark.parametrize("parent", ["abc", "A" * 40, "f" * 41, "main"])
def test_a_parent_is_a_commit_id(begun, parent):
    with pytest.raises(BadBody):
        begun.commit(("put", "a", b"1"), parent=parent)


def test_repeating_a_commit_whose_answer_was_lost_is_success(begun):
    seen = begun.tip()
    operations = (("put", "a", b"1"), ("delete", "data/a.txt"))
    made = begun.commit(*operations, parent=seen)
    assert begun.commit(*operations, parent=seen) == made
    begun.commit(("put", "later", b"x"))
    with pytest.raises(StaleParent):
        begun.commit(*operations, parent=seen)


def test_what_changes_nothing_makes_no_commit(begun):
    tip = begun.tip()
    assert begun.commit(("put", "README.md", b"# One\n")).sha == tip
    assert begun.commit().sha == tip
    assert begun.commit(("put", "x", b""), ("delete", "x")).sha == tip


def test_an_empty_repo_takes_no_empty_commit(desk):
    with pytest.raises(BadBody):
        desk.commit()
    assert desk.tip() is None


def test_only_branches_can_be_committed_to(begun):
    tip = begun.tip()
    begun.branches.create_tag(1, BY_ANN, "v1", "main")
    for revision in (tip, "v1", "refs/tags/v1"):
        with pytest.raises(BadBody):
            begun.commit(("put", "a", b"1"), on=revision)
    for revision in ("nothing", "refs/pr/1", "refs/heads/nothing"):
        with pytest.raises(RevisionAbsent):
            begun.commit(("put", "a", b"1"), on=revision)
    assert begun.commit(("put", "a", b"1"), on="HEAD").ref == MAIN
    assert begun.commit(("put", "a", b"2"), on="refs/heads/main").ref == MAIN


def test_a_pull_request_ref_can_be_committed_to(begun):
    pull = b"refs/pr/1"
    assert begun.gate.receiver.accept(1, BY_ANN, [Update(pull, ZERO, begun.tip())], None).error is None
    made = begun.commit(("put", "a", b"1"), on="refs/pr/1")
    assert (made.ref, begun.tip(pull)) == (pull, made.sha)
    assert "a" not in begun.files()


def test_an_lfs_file_needs_a_link_of_this_repo_and_its_true_size(begun):
    other = people.add_repo(begun.database, "bob", "two")
    begun.gate.link(OID, 1234, repo_id=other)
    with pytest.raises(BadBody, match="was not uploaded"):
        begun.commit(("large", "w.safetensors", OID, 1234))
    begun.gate.link(OID, 1234)
    with pytest.raises(BadBody, match="has 1234 bytes, not 5"):
        begun.commit(("large", "w.safetensors", OID, 5))
    begun.commit(("large", "w.safetensors", OID, 1234), ("large", "copy.safetensors", OID, None))
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 1234\n".encode()
    found = begun.files()
    assert (found["w.safetensors"], found["copy.safetensors"]) == (text, text)


def test_a_plain_file_that_is_a_pointer_in_disguise_is_refused_by_the_gate(begun):
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 1\n".encode()
    with pytest.raises(Exception, match="was not uploaded"):
        begun.commit(("put", "w.bin", text))


def test_a_file_that_somebody_else_locked_cannot_be_changed(begun):
    begun.gate.locks.create(1, 2, "data/a.txt")
    with pytest.raises(NotAllowed, match=r"data/a.txt is locked by bob"):
        begun.commit(("put", "data/a.txt", b"mine"))
    begun.commit(("put", "data/b.txt", b"mine"))


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "a/../b", "./a", "a\\b", "a\x00b", ".git/config", "x/.GIT", "a\nb", "con", "\ud800"]
)
def test_paths_that_no_push_may_bring_are_refused(begun, path):
    with pytest.raises(BadPath):
        begun.commit(("put", path, b"x"))
    with pytest.raises(BadPath):
        begun.commit(("large", path, OID, 1))


@pytest.mark.parametrize("path", ["", "/", "\ud800"])
def test_a_deletion_names_something(begun, path):
    with pytest.raises(BadPath):
        begun.commit(("delete", path))


def test_a_file_does_not_replace_a_folder_nor_a_folder_a_file(begun):
    with pytest.raises(BadPath, match="is a folder"):
        begun.commit(("put", "data", b"x"))
    with pytest.raises(BadPath, match="it is a file"):
        begun.commit(("put", "README.md/x", b"x"))
    begun.commit(("delete", "data"), ("put", "data", b"x"), ("delete", "README.md"), ("put", "README.md/x", b"y"))
    assert begun.files() == {"data": b"x", "README.md/x": b"y"}


def test_limits_refuse_early_and_leave_nothing(database, tmp_path):
    desk = Writing(database, tmp_path, DraftLimits(operations=3, inline=100, file=60, message=20))
    for operations, word in (
        ([("put", f"f{n}", b"") for n in range(4)], "operations"),
        ([("put", "a", b"x" * 61)], "LFS"),
        ([("put", "a", b"x" * 60), ("put", "b", b"y" * 60)], "one commit"),
    ):
        with pytest.raises(TooLarge, match=word):
            desk.commit(*operations)
    with pytest.raises(TooLarge, match="Summary"):
        desk.commit(("put", "a", b""), message="long " * 10)
    with pytest.raises(BadBody, match="summary"):
        desk.commit(("put", "a", b""), message="  ")
    assert desk.leftovers() == []


def test_commits_at_the_same_time_all_land(begun):
    start = threading.Barrier(4)

    def work(number):
        start.wait(timeout=30)
        return begun.commit(("put", f"file{number}", b"x"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert {f"file{number}" for number in range(4)} < begun.files().keys()
    assert begun.leftovers() == []


def test_of_two_commits_on_one_parent_one_lands(begun):
    seen, start = begun.tip(), threading.Barrier(2)

    def work(number):
        start.wait(timeout=30)
        try:
            return begun.commit(("put", f"file{number}", b"x"), parent=seen)
        except StaleParent:
            return None

    with ThreadPoolExecutor(2) as pool:
        made = [one for one in pool.map(work, range(2)) if one is not None]
    assert [one.sha for one in made] == [begun.tip()]


def test_a_branch_that_never_rests_ends_in_a_refusal(begun, tmp_path):
    class Busy:
        """A gate at which somebody else is always first."""

        def __init__(self, real):
            self.real, self.calls = real, 0

        def accept(self, repo_id, origin, updates, pack):
            self.calls += 1
            stale = [Update(updates[0].name, "1" * 40, updates[0].new)]
            return self.real.accept(repo_id, origin, stale, pack)

    gate = Busy(begun.gate.receiver)
    begun.commits._receiver = gate
    with pytest.raises(RefMoved):
        begun.commit(("put", "a", b"1"))
    assert gate.calls == 5


def test_the_author_is_the_actor_with_their_own_address(begun):
    with begun.database.write() as connection:
        connection.exec_driver_sql("UPDATE users SET email = 'ann@example.org' WHERE id = 1")
    made = begun.commit(("put", "a", b"1"), by=Origin(ANN, "api", request_id="r1"))
    assert "committer ann <ann@example.org> " in begun.text(made.sha)


def test_a_proof_that_ends_while_a_commit_is_planned_is_seen(desk, monkeypatch):
    upload, look = desk.gate.linked.begin(1, OID, 7, "multipart"), desk.gate.linked.uploads.standing
    desk.gate.linked.uploads.arrive(upload.id, "key")

    def overtaken(repo_id, oids):
        desk.gate.linked.finish(upload)
        return look(repo_id, oids)

    monkeypatch.setattr(desk.gate.linked.uploads, "standing", overtaken)
    desk.commit(("large", "a.bin", OID, 7))
    assert f"oid sha256:{OID}".encode() in desk.files()["a.bin"]
