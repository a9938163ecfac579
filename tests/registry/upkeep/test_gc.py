"""The collection takes what no ref needs, step by step, says why, and can be undone until the bytes are gone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.store import lfs_key
from registry.db import Database
from registry.errors import Busy, ObjectAbsent
from registry.git.snapshot import ZERO, pack_key
from registry.tables.objects import lfs_links, lfs_objects, packs, repo_packs
from registry.tables.repos import refs, repos
from registry.tables.work import gc_runs
from registry.upkeep.daily import Daily
from registry.upkeep.gc import Scope
from registry.upkeep.turn import turn
from tests.registry import people
from tests.registry.gate import MAIN
from tests.registry.upkeep.collecting import NO_GRACE, Collected, acts, collected, oid_of, pointer

OLD, NEW, LOOSE = b"old weights" * 99, b"new weights" * 999, b"never committed"
SIDE = b"refs/heads/side"


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[Collected]:
    made = collected(database, tmp_path)
    yield made
    made.gate.heavy.close()


def rewound(house: Collected) -> tuple[str, str]:
    """Push one commit with OLD, then force another one with NEW in its place; return both."""
    first = house.push({"w.bin": OLD})
    return first, house.push({"w.bin": NEW}, force=True)


def test_what_refs_reach_is_never_collected(house: Collected) -> None:
    first = house.push({"w.bin": OLD})
    house.push({"w.bin": NEW}, on=first)
    house.later(days=1000)
    assert [line for line in house.run() if line.kind != "upload"] == []
    assert house.linked() == {oid_of(OLD), oid_of(NEW)}
    assert house.findings() == []


def test_a_link_goes_a_month_after_the_last_ref_and_its_bytes_three_weeks_later(house: Collected) -> None:
    rewound(house)
    house.later(days=29)
    assert house.plan() == house.run() == []
    house.later(days=2)
    planned = house.plan()
    assert acts(planned)[-1:] == [("unlink", "link")]
    assert planned == house.run()
    assert house.linked() == {oid_of(NEW)}
    assert house.lfs_bytes() == len(NEW)
    house.later(days=6)
    assert house.run() == []
    house.later(days=2)
    assert acts(house.plan()) == acts(house.run()) == [("condemn", "object")]
    assert house.states()[oid_of(OLD)] == "condemned"
    house.later(days=13)
    assert house.run() == []
    house.later(days=2)
    assert house.plan() == house.run()
    assert oid_of(OLD) not in house.states()
    assert house.keys("lfs/") == [lfs_key(oid_of(NEW))]
    assert house.findings() == []


def test_every_line_says_why_and_what_comes_next(house: Collected) -> None:
    rewound(house)
    house.later(days=31)
    (line,) = [line for line in house.plan() if line.act == "unlink"]
    assert line.subject == f"ann/one {oid_of(OLD)}"
    assert "no ref names it" in line.line()
    assert "condemned after" in line.line()
    assert line.fields()["size"] == len(OLD)


def test_a_branch_a_tag_or_a_hidden_ref_keeps_its_objects(house: Collected) -> None:
    first, second = rewound(house)
    assert house.gate.push((SIDE, ZERO, first)).error is None
    house.later(days=100)
    assert "unlink" not in {line.act for line in house.plan()}
    house.gate.git("tag", "-a", "v1", "-m", "first", first)
    tag = house.gate.git("rev-parse", "v1")
    assert house.gate.push((b"refs/tags/v1", ZERO, tag), (SIDE, first, ZERO)).error is None
    house.later(days=100)
    assert "unlink" not in {line.act for line in house.plan()}
    with house.database.write() as connection:
        hidden = {"repo_id": 1, "name": b"refs/weightroom/keep", "target": first, "updated_at": house.clock()}
        connection.execute(sa.insert(refs).values(hidden))
    assert house.gate.push((b"refs/tags/v1", tag, ZERO)).error is None
    house.later(days=100)
    assert "unlink" not in {line.act for line in house.plan()}
    with house.database.write() as connection:
        connection.execute(sa.delete(refs).where(refs.c.name == b"refs/weightroom/keep"))
    house.later(days=100)
    assert "unlink" in {line.act for line in house.plan()}
    assert second == house.gate.targets()[MAIN]


def test_a_tag_of_a_tree_keeps_what_is_under_it(house: Collected) -> None:
    first, _ = rewound(house)
    tree = house.gate.git("rev-parse", f"{first}^{{tree}}")
    assert house.gate.push((b"refs/tags/tree", ZERO, tree)).error is None
    house.later(days=100)
    assert "unlink" not in {line.act for line in house.plan()}


def test_an_upload_whose_commit_is_to_come_keeps_its_link_as_long_as_it_is_asked_for(house: Collected) -> None:
    house.push({"w.bin": NEW * 9})
    house.upload(LOOSE)
    house.later(days=13)
    assert house.run() == []
    with house.database.write() as connection:
        connection.execute(sa.update(lfs_links).values(seen_at=house.moment))
    house.later(days=13)
    assert house.run() == []
    house.later(days=2)
    assert acts(house.run())[-1] == ("unlink", "link")


def test_a_deleted_branch_can_be_restored_within_a_month(house: Collected) -> None:
    house.push({"w.bin": NEW * 9})
    first = house.push({"w.bin": OLD}, ref=SIDE)
    assert house.gate.push((SIDE, first, ZERO)).error is None
    house.later(days=29)
    house.run()
    assert house.gate.push((SIDE, ZERO, first)).error is None
    house.later(days=100)
    house.run()
    assert house.linked() == {oid_of(NEW * 9), oid_of(OLD)}
    assert house.findings() == []


@pytest.mark.parametrize("how", ["ref", "child", "tag", "tree"])
def test_an_old_commit_comes_back_only_with_its_objects(house: Collected, how: str) -> None:
    first, second = rewound(house)
    house.later(days=31)
    house.run()
    new = {
        "ref": lambda: first,
        "child": lambda: house.gate.commit({"w.bin": pointer(NEW)}, on=first),
        "tag": lambda: house.gate.git("rev-parse", house.gate.git("tag", "-a", "v1", "-m", "1", first) or "v1"),
        "tree": lambda: house.gate.git("rev-parse", f"{first}^{{tree}}"),
    }[how]()
    ref = b"refs/tags/back" if how in ("tag", "tree") else SIDE
    pack = house.gate.pack([new], [first]) if how in ("child", "tag") else house.gate.pack([second], [second])
    outcome = house.gate.push((ref, ZERO, new), pack=pack)
    assert isinstance(outcome.error, ObjectAbsent)
    assert oid_of(OLD) in outcome.error.message
    house.upload(OLD)
    pack = house.gate.pack([new], [first]) if how in ("child", "tag") else house.gate.pack([second], [second])
    assert house.gate.push((ref, ZERO, new), pack=pack).error is None
    house.later(days=400)
    house.run()
    assert house.findings() == []


def test_more_than_a_fifth_of_a_repo_goes_only_when_asked_for(house: Collected) -> None:
    house.push({"w.bin": OLD})
    house.push({"w.bin": NEW[:100]}, force=True)
    house.later(days=31)
    (line,) = [line for line in house.plan(yes=False) if line.kind != "upload"]
    assert (line.act, line.subject) == ("skip", "ann/one")
    assert "more than 20 %" in line.why
    assert line in house.run(yes=False)
    assert oid_of(OLD) in house.linked()
    house.run(yes=True)
    assert house.linked() == {oid_of(NEW[:100])}


def test_a_repo_that_cannot_be_read_is_left_alone_aloud(house: Collected) -> None:
    rewound(house)
    house.later(days=31)
    with house.database.read() as connection:
        intro = connection.execute(sa.select(packs.c.intro_oid)).scalars().first()
    house.store.delete(pack_key(str(intro)))
    (line,) = [line for line in house.run() if line.kind == "repo"]
    assert line.act == "skip"
    assert "cannot be read" in line.why
    assert house.linked() == {oid_of(OLD), oid_of(NEW)}


def test_undo_gives_the_links_back_while_the_bytes_are_there(house: Collected) -> None:
    first, _ = rewound(house)
    house.later(days=31)
    house.run()
    with house.database.read() as connection:
        run = connection.execute(sa.select(sa.func.max(gc_runs.c.id))).scalar_one()
    house.later(days=8)
    house.run()
    assert house.states()[oid_of(OLD)] == "condemned"
    assert acts(list(house.gc().undo(run))) == [("link", "link")]
    assert house.linked() == {oid_of(OLD), oid_of(NEW)}
    assert house.lfs_bytes() == len(OLD) + len(NEW)
    assert house.findings() == []
    assert [one.state for one in house.gc().runs.latest() if one.id == run] == ["undone"]
    # Once more is nothing, and what was given back counts as asked for.
    assert list(house.gc().undo(run)) == []
    house.moment = datetime.now(UTC)
    assert house.gate.push((SIDE, ZERO, first)).error is None


def test_undo_says_what_is_gone_for_ever(house: Collected) -> None:
    rewound(house)
    for days in (31, 8, 15):
        house.later(days=days)
        house.run()
    run = min(one.id for one in house.gc().runs.latest() if "unlink link" in one.counts)
    (line,) = list(house.gc().undo(run))
    assert (line.act, line.size) == ("skip", len(OLD))
    assert "only an upload" in line.why
    assert house.findings() == []


def test_a_deleted_repo_keeps_everything_for_two_weeks(house: Collected) -> None:
    house.push({"w.bin": OLD})
    with house.database.write() as connection:
        connection.execute(sa.update(repos).values(deleted_at=house.clock()))
    house.later(days=13)
    assert house.run() == []
    house.later(days=2)
    assert acts(house.plan()) == acts(house.run()) == [("unlink", "repo")]
    for days in (8, 15):
        house.later(days=days)
        house.run()
    assert house.keys() == []
    assert house.states() == {}
    with house.database.read() as connection:
        assert connection.execute(sa.select(packs)).all() == connection.execute(sa.select(repo_packs)).all() == []


def test_an_object_that_another_repo_links_stays(house: Collected) -> None:
    other = people.add_repo(house.database, "bob", "two")
    house.push({"w.bin": OLD})
    house.upload(OLD, repo_id=other)
    with house.database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == other).values(deleted_at=house.clock()))
    for days in (31, 8, 15):
        house.later(days=days)
        house.run()
    assert house.linked() == {oid_of(OLD)}
    assert house.findings() == []


def test_nothing_takes_two_steps_in_one_run_even_without_graces(house: Collected) -> None:
    rewound(house)
    house.graces = NO_GRACE
    seen = [{line.act for line in house.run() if line.subject.endswith(oid_of(OLD))} for _ in range(3)]
    assert seen == [{"unlink"}, {"condemn"}, {"delete"}]
    assert house.findings() == []


def test_a_condemned_object_that_is_uploaded_again_lives_under_a_key_of_its_own(house: Collected) -> None:
    rewound(house)
    for days in (31, 8):
        house.later(days=days)
        house.run()
    upload = house.begin(OLD)
    key = house.put(upload, OLD)
    assert key == lfs_key(oid_of(OLD), upload.id)
    assert house.finish(upload, key) == key
    house.later(days=10)
    assert ("sweep", "key") in acts(house.run())
    assert house.keys("lfs/") == sorted([lfs_key(oid_of(NEW)), key])
    assert house.findings() == []


def test_one_collection_at_a_time(house: Collected) -> None:
    with turn(house.database) as mine:
        assert mine
        with pytest.raises(Busy, match="running"):
            house.run()
        with pytest.raises(Busy, match="running"):
            list(house.gc().undo(1))
    assert house.run() == []


def test_a_run_that_was_cut_off_is_told_as_such_and_the_next_one_goes_on(house: Collected) -> None:
    rewound(house)
    house.graces = NO_GRACE
    lines = house.gc().run(Scope(yes=True), stopping=lambda: True)
    assert list(lines) == []
    with house.database.write() as connection:
        row = {"started_at": house.clock(), "state": "running", "options": {}, "counts": {}}
        connection.execute(sa.insert(gc_runs).values(row))
    house.run()
    assert [run.finished_at is None for run in house.gc().runs.latest()] == [False, True, False]


def test_the_daily_collection_runs_once_a_day_and_never_past_a_fifth(house: Collected) -> None:
    house.push({"w.bin": OLD})
    house.push({"w.bin": NEW[:100]}, force=True)
    house.later(days=31)
    daily = Daily(house.gc(), seconds=0.01, clock=house.clock)
    daily.start()
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while not [run for run in house.gc().runs.latest() if run.finished_at] and datetime.now(UTC) < deadline:
        pass
    daily.close()
    (run,) = house.gc().runs.latest()
    assert run.options["daily"]
    assert oid_of(OLD) in house.linked()
    daily.collect()
    assert len(house.gc().runs.latest()) == 1
    house.later(days=1.1)
    Daily(house.gc(), clock=house.clock).collect()
    assert len(house.gc().runs.latest()) == 2


def test_a_collection_of_one_repo_touches_no_other(house: Collected) -> None:
    rewound(house)
    house.later(days=31)
    other = people.add_repo(house.database, "bob", "two")
    assert list(house.gc().run(Scope(other, yes=True))) == []
    assert acts(list(house.gc().run(Scope(1, yes=True)))) == [("unlink", "link")]


def test_condemned_objects_are_not_served(house: Collected) -> None:
    rewound(house)
    house.graces = NO_GRACE
    house.run()
    house.run()
    assert house.gate.links.find(1, [oid_of(OLD)]) == {}
    with house.database.read() as connection:
        assert connection.execute(sa.select(lfs_objects.c.state).where(lfs_objects.c.oid == oid_of(OLD))).scalar_one()


def damage(house: Collected, data: bytes) -> None:
    """Mark an object as a check does that finds other bytes."""
    here = sa.update(lfs_objects).where(lfs_objects.c.oid == oid_of(data))
    with house.database.write() as connection:
        connection.execute(here.values(state="damaged", condemned_at=None, checked_at=house.clock()))


def test_a_damaged_object_without_links_goes_when_nobody_can_ask_for_it_back(house: Collected) -> None:
    """It was kept for ever: bytes that are bad, of no use to anybody."""
    rewound(house)
    house.later(days=31)
    house.run()
    damage(house, OLD)
    house.later(days=20)
    assert house.run() == []
    house.later(days=2)
    assert acts(house.plan()) == acts(house.run()) == [("delete", "object")]
    assert oid_of(OLD) not in house.states()
    assert house.keys("lfs/") == [lfs_key(oid_of(NEW))]
    assert house.findings() == []


def test_a_damaged_object_that_a_repo_links_or_an_upload_brings_stays(house: Collected) -> None:
    house.push({"w.bin": NEW})
    house.upload(LOOSE)
    damage(house, NEW)
    house.later(days=50)
    house.run()
    damage(house, LOOSE)
    upload = house.begin(LOOSE, "tus")
    house.uploads.arrive(upload.id, lfs_key(upload.oid, upload.id))
    house.later(days=23)
    assert ("delete", "object") not in acts(house.run())
    assert house.states() == {oid_of(NEW): "damaged", oid_of(LOOSE): "damaged"}


def test_undo_links_damaged_bytes_and_serves_them_to_nobody(house: Collected) -> None:
    rewound(house)
    house.later(days=31)
    house.run()
    (run,) = [one.id for one in house.gc().runs.latest() if "unlink link" in one.counts]
    damage(house, OLD)
    (line,) = house.gc().undo(run)
    assert line.act == "link"
    assert "damaged" in line.why
    assert house.linked() == {oid_of(OLD), oid_of(NEW)}
    assert house.gate.links.held(1, [oid_of(OLD)]) == {}
    assert house.states()[oid_of(OLD)] == "damaged"
