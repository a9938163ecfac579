"""The gate: what is acknowledged is there, what is refused changes nothing, and every door passes here."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.errors import NoSpace
from lfs.pointer import Pointer, canonical
from registry.access import Actor
from registry.db import Database
from registry.errors import NoSpace as RegistryNoSpace
from registry.errors import ObjectAbsent, RefMoved
from registry.git import ingest
from registry.git.snapshot import ZERO, tips_digest
from registry.git.verdict import Update
from registry.publish import Origin
from registry.tables.objects import lfs_links, packs, pointers, repo_packs
from registry.tables.repos import ref_log, repos
from tests.registry import people
from tests.registry.gate import MAIN, Gate

ANN = Actor(1, "ann", 1, None, "write")
BOB = Actor(2, "bob", 2, None, "write")


@pytest.fixture
def gate(database: Database, tmp_path: Path) -> Iterator[Gate]:
    """A gate before an empty repo."""
    made = Gate(database, tmp_path)
    yield made
    made.heavy.close()


def _count(gate: Gate, table: sa.Table) -> int:
    with gate.database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def _pointer(text: bytes) -> tuple[str, bytes]:
    oid = hashlib.sha256(text).hexdigest()
    return oid, canonical(Pointer(oid, len(text)))


def test_a_push_into_an_empty_repo_is_there_for_the_next_reader(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    outcome = gate.push((MAIN, ZERO, sha))
    assert outcome.results == {MAIN: None}
    assert outcome.error is None
    snapshot = gate.repositories.snapshot(1)
    assert snapshot.refs[MAIN].target == sha
    assert (snapshot.refs_version, snapshot.manifest_version, len(snapshot.packs)) == (1, 1, 1)
    assert gate.manifests.manifest(snapshot.packs).contains(sha)
    assert gate.told == [1]


def test_every_file_of_the_pack_lies_under_its_own_hash(gate: Gate) -> None:
    gate.push((MAIN, ZERO, gate.commit({"a.txt": b"one"})))
    for key in gate.store.walk("git/"):
        with gate.store.open(key) as reader:
            assert hashlib.sha256(reader.read_all()).hexdigest() == key.rsplit("/", 1)[1]


def test_a_thin_pack_is_completed(gate: Gate) -> None:
    lines = b"".join(b"line %d\n" % n for n in range(2000))
    first = gate.commit({"a.txt": lines})
    gate.push((MAIN, ZERO, first))
    second = gate.commit({"a.txt": lines + b"more\n"}, on=first)
    assert gate.push((MAIN, first, second), pack=gate.pack([second], [first], thin=True)).results == {MAIN: None}
    newest = gate.manifests.manifest(gate.repositories.snapshot(1).packs[:1])
    assert newest.read(gate.git("rev-parse", f"{second}:a.txt"))[1] == lines + b"more\n"


def test_history_that_only_grows_stays_one_closure(gate: Gate) -> None:
    sha, old = gate.commit({"a.txt": b"0"}), ZERO
    for n in range(1, 4):
        gate.push((MAIN, old, sha))
        snapshot = gate.repositories.snapshot(1)
        assert snapshot.closure_tips == tips_digest(snapshot.refs)
        old, sha = sha, gate.commit({"a.txt": b"%d" % n}, on=sha)
    forced = gate.commit({"b.txt": b"other"})
    gate.push((MAIN, old, forced))
    assert gate.repositories.snapshot(1).closure_tips is None


def test_objects_of_a_refused_ref_do_not_go_out_with_a_whole_clone(gate: Gate) -> None:
    good, bad = gate.commit({"a.txt": b"good"}), gate.commit({"a.txt": b"bad"})
    outcome = gate.push((MAIN, ZERO, good), (b"refs/weightroom/x", ZERO, bad))
    assert outcome.results[MAIN] is None
    assert gate.repositories.snapshot(1).closure_tips is None


def test_several_refs_move_in_one_push_and_the_log_says_so(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    gate.push((MAIN, ZERO, sha), (b"refs/heads/side", ZERO, sha), (b"refs/tags/v1", ZERO, sha))
    assert gate.targets() == {MAIN: sha, b"refs/heads/side": sha, b"refs/tags/v1": sha}
    assert _count(gate, ref_log) == 3
    assert _count(gate, packs) == _count(gate, repo_packs) == 1


def test_an_annotated_tag_remembers_what_it_names(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    tag = gate.git("mktag", data=f"object {sha}\ntype commit\ntag v1\ntagger A <a@b.c> 1 +0000\n\nx\n".encode())
    gate.push((MAIN, ZERO, sha), (b"refs/tags/v1", ZERO, tag))
    assert gate.repositories.snapshot(1).refs[b"refs/tags/v1"].peeled == sha


def test_a_stale_old_value_is_refused_and_the_ref_stays(gate: Gate) -> None:
    first = gate.commit({"a.txt": b"one"})
    gate.push((MAIN, ZERO, first))
    second, third = (gate.commit({"a.txt": text}, on=first) for text in (b"two", b"three"))
    gate.push((MAIN, first, second))
    for old in (first, ZERO):
        outcome = gate.push((MAIN, old, third))
        assert outcome.results[MAIN] is not None
        assert isinstance(outcome.error, RefMoved)
    assert gate.targets() == {MAIN: second}


def test_of_eight_pushers_one_wins_and_the_others_hear_it(gate: Gate) -> None:
    base = gate.commit({"a.txt": b"base"})
    gate.push((MAIN, ZERO, base))
    commits = [gate.commit({"a.txt": b"%d" % n}, on=base) for n in range(8)]
    files = [gate.pack([sha], [base]) for sha in commits]
    outcomes: dict[str, object] = {}

    def race(sha: str, pack: Path) -> None:
        outcomes[sha] = gate.push((MAIN, base, sha), pack=pack).results[MAIN]

    racers = [threading.Thread(target=race, args=pair) for pair in zip(commits, files, strict=True)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    won = [sha for sha, reason in outcomes.items() if reason is None]
    assert [gate.targets()[MAIN]] == won
    assert len(outcomes) == 8
    assert _count(gate, repo_packs) == 2


def test_atomic_is_all_or_nothing_and_plain_is_each_for_itself(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    bad = (b"refs/heads/gone", sha, sha)
    outcome = gate.push((MAIN, ZERO, sha), bad, atomic=True)
    assert all(outcome.results.values())
    assert gate.targets() == {}
    assert _count(gate, ref_log) == 0
    outcome = gate.push((MAIN, ZERO, sha), bad)
    assert outcome.results[MAIN] is None
    assert outcome.results[b"refs/heads/gone"] is not None
    assert gate.targets() == {MAIN: sha}


def test_a_ref_to_an_object_that_is_not_there_is_refused(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    outcome = gate.receiver.accept(1, Origin(ANN), [Update(MAIN, ZERO, sha)], None)
    assert outcome.results[MAIN] == "missing necessary objects"
    assert gate.targets() == {}


def test_a_pack_that_lacks_a_blob_is_refused(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one", "b.txt": b"two"})
    keep = [sha, gate.git("rev-parse", f"{sha}^{{tree}}"), gate.git("rev-parse", f"{sha}:a.txt")]
    path = gate.folder / "quarantine" / "cut.pack"
    name = gate.git("pack-objects", "-q", str(gate.folder / "cut"), data="\n".join(keep).encode())
    path.write_bytes((gate.folder / f"cut-{name}.pack").read_bytes())
    outcome = gate.push((MAIN, ZERO, sha), pack=path)
    assert "missing necessary objects" in (outcome.results[MAIN] or "")
    assert gate.targets() == {}


def test_rubbish_instead_of_a_pack_is_refused(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    good = gate.pack([sha]).read_bytes()
    for number, data in enumerate((b"", b"PACK", good[:-1], good[:-21] + bytes(21), b"JUNK" + good[4:], good + b"x")):
        path = gate.folder / "quarantine" / f"bad{number}.pack"
        path.write_bytes(data)
        outcome = gate.push((MAIN, ZERO, sha), pack=path)
        assert outcome.unpack is not None
        assert outcome.results[MAIN] is not None
    assert gate.targets() == {}
    assert list(gate.store.walk("git/")) == []


@pytest.mark.parametrize(
    "name", [b"refs/weightroom/x", b"refs/heads/a b", b"refs/heads/..", b"HEAD", b"refs/pr/1", b"main", b"refs/heads/"]
)
def test_names_that_may_not_be_pushed_are_refused(gate: Gate, name: bytes) -> None:
    sha = gate.commit({"a.txt": b"one"})
    assert gate.push((name, ZERO, sha)).results[name] is not None
    assert gate.targets() == {}


def test_the_default_branch_cannot_be_deleted_and_others_can(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    gate.push((MAIN, ZERO, sha), (b"refs/heads/side", ZERO, sha))
    assert gate.push((MAIN, sha, ZERO)).results[MAIN] == "deletion of the current branch prohibited"
    assert gate.push((b"refs/heads/side", sha, ZERO)).results[b"refs/heads/side"] is None
    assert gate.targets() == {MAIN: sha}


def test_a_branch_points_to_a_commit_and_stands_beside_others(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    tree = gate.git("rev-parse", f"{sha}^{{tree}}")
    outcome = gate.push((MAIN, ZERO, sha), (b"refs/heads/t", ZERO, tree), (b"refs/heads/main/x", ZERO, sha))
    assert outcome.results[b"refs/heads/t"] == "a branch must point to a commit, not to a tree"
    assert "refs/heads/main" in (outcome.results[b"refs/heads/main/x"] or "")
    assert gate.targets() == {MAIN: sha}


def test_a_pointer_without_its_object_is_refused_by_name(gate: Gate) -> None:
    oid, text = _pointer(b"weights")
    sha = gate.commit({"model.safetensors": text})
    outcome = gate.push((MAIN, ZERO, sha))
    assert outcome.results[MAIN] == f'LFS object {oid} (model.safetensors) was not uploaded; run "git lfs push --all"'
    assert isinstance(outcome.error, ObjectAbsent)
    assert outcome.error.oids == (oid,)
    gate.link(oid, 7)
    assert gate.push((MAIN, ZERO, sha)).results == {MAIN: None}
    assert _count(gate, pointers) == 1


def test_a_pointer_is_not_satisfied_by_another_repo_or_another_size(gate: Gate) -> None:
    people.add_repo(gate.database, "ann", "two")
    oid, text = _pointer(b"weights")
    sha = gate.commit({"model.safetensors": text})
    gate.link(oid, 7, repo_id=2)
    assert gate.push((MAIN, ZERO, sha)).results[MAIN] is not None
    other = canonical(Pointer(oid, 8))
    gate.link(oid, 7)
    lying = gate.commit({"model.safetensors": other})
    assert gate.push((MAIN, ZERO, lying)).results[MAIN] is not None
    assert gate.push((MAIN, ZERO, sha)).results == {MAIN: None}


def test_a_link_that_goes_while_the_push_is_checked_is_noticed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    oid, text = _pointer(b"weights")
    gate.link(oid, 7)
    sha = gate.commit({"model.safetensors": text})
    keep = gate.publisher.keep

    def keep_and_lose(pack: object) -> None:
        keep(pack)  # type: ignore[arg-type]
        with gate.database.write() as connection:
            connection.execute(sa.delete(lfs_links))

    monkeypatch.setattr(gate.publisher, "keep", keep_and_lose)
    assert "was not uploaded" in (gate.push((MAIN, ZERO, sha)).results[MAIN] or "")
    assert gate.targets() == {}


def test_a_path_that_another_has_locked_is_held_on_every_branch(gate: Gate) -> None:
    first = gate.commit({"a.bin": b"one", "b.bin": b"one"})
    gate.push((MAIN, ZERO, first))
    gate.locks.create(1, 1, "a.bin")
    touching = gate.commit({"a.bin": b"two", "b.bin": b"one"}, on=first)
    sparing = gate.commit({"a.bin": b"one", "b.bin": b"two"}, on=first)
    outcome = gate.push((b"refs/heads/side", ZERO, touching), actor=BOB)
    assert outcome.results[b"refs/heads/side"] == "a.bin is locked by ann"
    assert gate.push((b"refs/heads/side", ZERO, sparing), actor=BOB).results[b"refs/heads/side"] is None
    assert gate.push((MAIN, first, touching)).results == {MAIN: None}


def test_pruned_objects_are_noticed_and_the_push_is_checked_again(gate: Gate) -> None:
    first = gate.commit({"a.txt": b"one"})
    gate.push((MAIN, ZERO, first))
    second = gate.commit({"a.txt": b"two"}, on=first)
    snapshot, grown = gate.repositories.snapshot, []

    def snapshot_then_prune(repo_id: int) -> object:
        pinned = snapshot(repo_id)
        if not grown:
            grown.append(True)
            with gate.database.write() as connection:
                connection.execute(sa.update(repos).values(gc_epoch=repos.c.gc_epoch + 1))
        return pinned

    gate.repositories.snapshot = snapshot_then_prune  # type: ignore[method-assign,assignment]
    gate.checked.clear()
    pack = gate.pack([second], [first])
    assert gate.push((MAIN, first, second), pack=pack).results == {MAIN: None}
    assert len(gate.checked) == 2


def test_a_full_shelf_refuses_and_nothing_moves(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise NoSpace("The disk is full.")

    monkeypatch.setattr(gate.store, "put", full)
    outcome = gate.push((MAIN, ZERO, gate.commit({"a.txt": b"one"})))
    assert outcome.unpack == "The disk is full."
    assert isinstance(outcome.error, RegistryNoSpace)
    assert gate.targets() == {}


def test_a_full_quarantine_is_an_answer_and_not_an_exception(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ingest, "check_light", full)
    outcome = gate.push((MAIN, ZERO, gate.commit({"a.txt": b"one"})))
    assert isinstance(outcome.error, RegistryNoSpace)
    assert gate.targets() == {}
    assert list((gate.folder / "quarantine").iterdir()) == []


def test_a_ref_named_twice_is_refused(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    outcome = gate.push((MAIN, ZERO, sha), (MAIN, sha, ZERO), pack=gate.pack([sha]))
    assert outcome.unpack is not None
    assert gate.targets() == {}


def test_the_same_push_again_is_a_stale_answer_and_no_second_pack(gate: Gate) -> None:
    sha = gate.commit({"a.txt": b"one"})
    gate.push((MAIN, ZERO, sha))
    assert gate.push((MAIN, ZERO, sha), pack=gate.pack([sha])).results[MAIN] is not None
    side = b"refs/heads/side"
    assert gate.push((side, ZERO, sha), pack=gate.pack([sha])).results == {side: None}
    assert _count(gate, packs) == 1
    snapshot = gate.repositories.snapshot(1)
    assert snapshot.closure_tips == tips_digest(snapshot.refs)


def test_a_card_that_cannot_be_read_does_not_undo_a_push(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    def broken(repo_id: int) -> None:
        raise RuntimeError("no card")

    gate.receiver._published = broken
    sha = gate.commit({"a.txt": b"one"})
    assert gate.push((MAIN, ZERO, sha)).results == {MAIN: None}
    assert gate.targets() == {MAIN: sha}
    assert "card" in caplog.text
