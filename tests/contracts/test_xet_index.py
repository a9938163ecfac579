"""What every index of Xet promises, asked of each: in memory, and in the rows of both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lfs.errors import BadToken, Busy, ObjectAbsent, QuotaExceeded, RepoAbsent
from lfs.xet.hashes import EMPTY, text
from lfs.xet.index import File, Filing, Granted, Marked, Part, packed
from tests.contracts.xet_grounds import ANN, FAR, MINE, TWIN, Ground
from tests.contracts.xet_samples import DAY, SHARD, at_once, file, filing, keep, leave, oid, raw, xorb

WEEK = 7 * DAY


def test_leave_holds_until_its_repo_goes_or_its_actor_is_shut_out(ground: Ground) -> None:
    mine, theirs = leave(ground), leave(ground, TWIN)
    ground.index.enter(mine, 0)
    with pytest.raises(BadToken):
        ground.index.enter(replace(mine, domain=ground.domain(FAR)), 0)
    ground.delete_repo(MINE)
    with pytest.raises(RepoAbsent):
        ground.index.enter(mine, 0)
    ground.disable(ANN)
    with pytest.raises(BadToken):
        ground.index.enter(theirs, 0)


def test_a_generation_begins_at_most_every_ten_minutes_and_those_before_it_go_on(ground: Ground) -> None:
    mine = leave(ground)
    with pytest.raises(ObjectAbsent):
        ground.index.enter(mine, 1)
    ground.index.renew(mine.domain)
    ground.index.renew(mine.domain)
    ground.index.enter(mine, 0)
    ground.index.enter(mine, 1)
    with pytest.raises(ObjectAbsent):
        ground.index.enter(mine, 2)
    ground.index.enter(leave(ground, FAR), 0)
    with pytest.raises(ObjectAbsent):
        ground.index.enter(leave(ground, FAR), 1)
    ground.clock.now += 600
    ground.index.renew(mine.domain)
    ground.index.enter(mine, 2)


def test_a_xorb_that_is_kept_is_live_in_its_domain_alone(ground: Ground) -> None:
    made = xorb("x")
    assert ground.index.live(ground.domain(MINE), [made.hash]) == {}
    assert ground.index.keep(leave(ground), made) == made
    assert ground.index.keep(leave(ground), made) == made
    assert ground.index.live(ground.domain(MINE), {made.hash, raw("y")}) == {made.hash: made}
    assert ground.index.live(ground.domain(FAR), [made.hash]) == {}
    assert ground.index.live(ground.domain(FAR), []) == {}
    assert ground.index.located([made.hash, raw("y")]) == {made.hash: made}
    # Who brings it again in another domain is told of the bytes that are there, and may name them from now on.
    assert ground.index.keep(leave(ground, FAR), xorb("x", "b")) == made
    assert ground.index.live(ground.domain(FAR), [made.hash]) == {made.hash: made}


@pytest.mark.parametrize("state", ["condemned", "deleting", "quarantined"])
def test_a_xorb_on_its_way_out_lives_again_under_the_keys_of_a_new_proof(ground: Ground, state: str) -> None:
    keep(ground, "x")
    ground.put_state(raw("x"), state)  # type: ignore[arg-type]  # a state of the line above
    usable = state == "condemned"
    assert bool(ground.index.live(ground.domain(MINE), [raw("x")])) == usable
    assert bool(ground.index.located([raw("x")])) == usable
    again = xorb("x", "b")
    assert ground.index.keep(leave(ground), again) == again
    assert ground.index.located([raw("x")]) == {raw("x"): again}
    assert ground.state(raw("x")) == "live"


@pytest.mark.parametrize("state", ["deleting", "quarantined"])
def test_bytes_that_go_or_are_bad_do_not_come_back_under_their_own_keys(ground: Ground, state: str) -> None:
    keep(ground, "x")
    ground.put_state(raw("x"), state)  # type: ignore[arg-type]  # a state of the line above
    with pytest.raises(Busy):
        keep(ground, "x")
    assert ground.state(raw("x")) == state


def test_keepers_that_race_agree_on_one(ground: Ground) -> None:
    leaves = [leave(ground), leave(ground, FAR)]
    served = at_once(8, lambda number: ground.index.keep(leaves[number % 2], xorb("x", f"take{number}")))
    assert len(set(served)) == 1
    for each in leaves:
        assert ground.index.live(each.domain, [raw("x")]) == {raw("x"): served[0]}


def test_only_the_bytes_under_the_key_that_is_served_can_be_found_bad(ground: Ground) -> None:
    keep(ground, "x")
    ground.index.quarantine(raw("x"), xorb("x", "old").key)
    ground.index.quarantine(raw("y"), xorb("y").key)
    assert ground.state(raw("x")) == "live"
    ground.index.quarantine(raw("x"), xorb("x").key)
    ground.index.quarantine(raw("x"), xorb("x").key)
    assert ground.index.located([raw("x")]) == {}
    assert ground.index.live(ground.domain(MINE), [raw("x")]) == {}


def test_a_promise_lasts_four_weeks_and_is_written_once_a_day(ground: Ground) -> None:
    begun = ground.clock()
    keep(ground, "x")
    assert ground.promised(raw("x")) == pytest.approx(begun + 28 * DAY, abs=1)
    ground.clock.now += DAY // 2
    ground.index.promise(ground.domain(MINE), [raw("x"), raw("y")])
    assert begun + 28 * DAY - 1 <= ground.promised(raw("x")) <= ground.clock() + 28 * DAY
    ground.clock.now += DAY
    ground.index.promise(ground.domain(FAR), [raw("x")])
    assert ground.promised(raw("x")) < ground.clock() + 27.5 * DAY
    ground.index.promise(ground.domain(MINE), [raw("x")])
    assert ground.promised(raw("x")) == pytest.approx(ground.clock() + 28 * DAY, abs=1)


def test_what_is_promised_is_condemned_no_more(ground: Ground) -> None:
    keep(ground, "x", "y")
    ground.put_state(raw("x"), "condemned")
    ground.put_state(raw("y"), "quarantined")
    ground.index.promise(ground.domain(MINE), [raw("x"), raw("y")])
    assert (ground.state(raw("x")), ground.state(raw("y"))) == ("live", "quarantined")


def test_a_grant_is_found_until_it_ends_or_is_dropped(ground: Ground) -> None:
    granted = Granted("1" * 32, ground.domain(MINE), raw("x"), xorb("x").key, 1001, int(ground.clock()) + 3600)
    short = replace(granted, id="2" * 32, expires=int(ground.clock()) + 60)
    for each in (granted, short):
        ground.index.grant(leave(ground), each)
        assert ground.index.granted(each.id) == each
    ground.clock.now += 61
    with pytest.raises(ObjectAbsent):
        ground.index.granted(short.id)
    assert ground.index.granted(granted.id) == granted
    for _ in range(2):
        ground.index.drop_grant(granted.id)
        with pytest.raises(ObjectAbsent):
            ground.index.granted(granted.id)


def test_a_filed_file_opens_to_its_repo_alone(ground: Ground) -> None:
    keep(ground, "x", "y")
    asked = [filing("f", "x", "y"), filing("g", "y")]
    assert ground.index.file(leave(ground), asked, SHARD)
    assert not ground.index.file(leave(ground), asked, SHARD)
    assert ground.index.find(MINE, raw("f")) == file("f", "x", "y")
    assert list(file("f", "x", "y").parts())[1] == Part(raw("y"), 0, 3, 100)
    assert ground.index.whole(raw("g")) == file("g", "y")
    for found in (ground.index.find(TWIN, raw("f")), ground.index.find(MINE, raw("h")), ground.index.whole(raw("h"))):
        assert found is None
    assert ground.links() == {(MINE, raw(name), oid(name)): "declared" for name in ("f", "g")}


def test_the_same_file_is_new_to_another_repo(ground: Ground) -> None:
    keep(ground, "x")
    keep(ground, "x", repo=FAR)
    for repo in (MINE, TWIN, FAR):
        assert ground.index.file(leave(ground, repo), [filing("f", "x")], SHARD)
        assert not ground.index.file(leave(ground, repo), [filing("f", "x")], SHARD)
    assert {repo for repo, _, _ in ground.links()} == {MINE, TWIN, FAR}


def test_a_file_may_say_no_sha256_and_have_no_terms(ground: Ground) -> None:
    keep(ground, "x")
    nothing = Filing(File(EMPTY, 0, b""), "")
    assert ground.index.file(leave(ground), [nothing, Filing(file("f", "x"), "")], SHARD)
    assert not ground.index.file(leave(ground), [nothing], SHARD)
    assert not ground.index.file(leave(ground), [], SHARD)
    assert ground.index.find(MINE, EMPTY) == nothing.file
    assert ground.links() == {(MINE, EMPTY, ""): "declared", (MINE, raw("f"), ""): "declared"}


def test_a_shard_that_names_what_its_domain_lacks_files_nothing(ground: Ground) -> None:
    keep(ground, "x", "bad", "going")
    keep(ground, "far", repo=FAR)
    ground.put_state(raw("bad"), "quarantined")
    ground.put_state(raw("going"), "deleting")
    for lacking in ("none", "far", "bad", "going"):
        with pytest.raises(ObjectAbsent) as failed:
            ground.index.file(leave(ground), [filing("f", "x"), filing("g", "x", lacking)], SHARD)
        assert failed.value.oids == (text(raw(lacking)),)
    assert ground.links() == {}
    assert ground.index.whole(raw("f")) is None


def test_a_repo_that_is_gone_takes_no_files(ground: Ground) -> None:
    keep(ground, "x")
    mine = leave(ground)
    ground.delete_repo(MINE)
    with pytest.raises(RepoAbsent):
        ground.index.file(mine, [filing("f", "x")], SHARD)
    assert ground.index.whole(raw("f")) is None


def test_what_does_not_fit_is_not_filed(ground: Ground) -> None:
    keep(ground, "x", "y")
    ground.limit(250)
    with pytest.raises(QuotaExceeded):
        ground.index.file(leave(ground), [filing("f", "x", "y"), filing("g", "x")], SHARD)
    assert ground.links() == {}
    assert ground.index.whole(raw("f")) is None
    assert ground.index.file(leave(ground), [filing("f", "x", "y")], SHARD)


def test_filing_revives_and_promises(ground: Ground) -> None:
    keep(ground, "x", "y")
    ground.clock.now += 29 * DAY
    ground.put_state(raw("x"), "condemned")
    ground.index.file(leave(ground), [filing("f", "x", "y")], SHARD)
    assert ground.state(raw("x")) == "live"
    for name in ("x", "y"):
        assert ground.promised(raw(name)) == pytest.approx(ground.clock() + 28 * DAY, abs=1)


def test_a_file_that_lost_a_xorb_is_kept_by_the_terms_that_are_filed_now(ground: Ground) -> None:
    keep(ground, "x", "y", "z")
    ground.index.file(leave(ground), [filing("f", "x", "y")], SHARD)
    # As long as it can be served, what stands first stays: readers may hold its plan.
    assert not ground.index.file(leave(ground), [filing("f", "z", "z")], SHARD)
    assert ground.index.whole(raw("f")) == file("f", "x", "y")
    ground.put_state(raw("y"), "quarantined")
    assert ground.index.file(leave(ground), [filing("f", "z", "z")], SHARD)
    assert ground.index.whole(raw("f")) == file("f", "z", "z")
    assert ground.sweep(raw("x"))
    assert not ground.sweep(raw("z"))


def test_a_file_that_lies_in_far_fewer_pieces_is_kept_by_these_from_now_on(ground: Ground) -> None:
    keep(ground, "x", "y", "z")
    scattered = file("f", *("x", "y") * 4)
    ground.index.file(leave(ground), [Filing(scattered, oid("f"))], SHARD)
    # Three pieces are too many to be worth it.
    parts = [Part(raw("z"), start, end, at) for start, end, at in ((0, 2, 0), (2, 3, 100), (0, 1, 200))]
    assert not ground.index.file(leave(ground), [Filing(File(raw("f"), 800, packed(parts)), oid("f"))], SHARD)
    assert ground.index.find(MINE, raw("f")) == scattered
    whole = File(raw("f"), 800, packed(parts[:2]))
    assert ground.index.file(leave(ground, TWIN), [Filing(whole, oid("f"))], SHARD)
    assert [ground.index.find(repo, raw("f")) for repo in (MINE, TWIN)] == [whole, whole]
    assert ground.brought() == 0
    # And not back.
    assert not ground.index.file(leave(ground), [Filing(scattered, oid("f"))], SHARD)
    assert ground.index.find(MINE, raw("f")) == whole
    assert [ground.sweep(raw(name)) for name in ("x", "y", "z")] == [True, True, False]


def test_a_file_that_is_filed_by_other_terms_keeps_its_own_xorbs(ground: Ground) -> None:
    keep(ground, "x", "z")
    ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    ground.clock.now += 29 * DAY
    ground.put_state(raw("x"), "condemned")
    assert ground.index.file(leave(ground, TWIN), [filing("f", "z")], SHARD)
    assert ground.index.find(TWIN, raw("f")) == file("f", "x")
    assert ground.state(raw("x")) == "live"


def test_a_link_is_declared_then_proven(ground: Ground) -> None:
    keep(ground, "x")
    ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    ground.settle(MINE, raw("f"), oid("f"))
    assert ground.links() == {(MINE, raw("f"), oid("f")): "proven"}
    assert not ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    assert ground.links() == {(MINE, raw("f"), oid("f")): "proven"}


def test_a_refuted_link_opens_nothing_until_it_is_filed_again(ground: Ground) -> None:
    keep(ground, "x")
    ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    ground.settle(MINE, raw("f"), oid("f"), "It hashes to something else.")
    assert ground.links() == {(MINE, raw("f"), oid("f")): "refuted"}
    assert ground.index.find(MINE, raw("f")) is None
    assert ground.index.whole(raw("f")) is not None
    assert ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    assert ground.links() == {(MINE, raw("f"), oid("f")): "declared"}
    assert ground.index.find(MINE, raw("f")) is not None


def test_a_lie_about_a_file_leaves_the_truth_open(ground: Ground) -> None:
    keep(ground, "x")
    ground.index.file(leave(ground), [filing("f", "x"), Filing(file("f", "x"), oid("lie"))], SHARD)
    ground.settle(MINE, raw("f"), oid("lie"), "It hashes to something else.")
    ground.settle(MINE, raw("f"), oid("f"))
    assert ground.links() == {(MINE, raw("f"), oid("f")): "proven", (MINE, raw("f"), oid("lie")): "refuted"}
    assert ground.index.find(MINE, raw("f")) is not None


def test_marks_lead_to_the_newest_file_of_their_domain_and_to_the_xorb(ground: Ground) -> None:
    keep(ground, "x", "y")
    ground.index.file(leave(ground), [filing("f", "x", "y", marks=("m", "n"))], SHARD)
    assert ground.index.around(ground.domain(MINE), raw("m")) == Marked(file("f", "x", "y"), raw("x"))
    assert ground.index.around(ground.domain(FAR), raw("m")) is None
    assert ground.index.around(ground.domain(MINE), raw("x")) is None
    ground.index.file(leave(ground, TWIN), [filing("g", "y", marks=("m",))], SHARD)
    assert ground.index.around(ground.domain(MINE), raw("m")) == Marked(file("g", "y"), raw("y"))
    assert ground.index.around(ground.domain(MINE), raw("n")) == Marked(file("f", "x", "y"), raw("x"))


def test_a_mark_follows_its_chunk_into_another_xorb(ground: Ground) -> None:
    keep(ground, "x", "y")
    ground.index.file(leave(ground), [filing("f", "x", marks=("m",))], SHARD)
    ground.index.file(leave(ground), [filing("f", "y", marks=("m",))], SHARD)
    # The terms that stand first stay, and yet the chunk is found where it was seen last.
    assert ground.index.around(ground.domain(MINE), raw("m")) == Marked(file("f", "x"), raw("y"))


def test_those_who_file_the_same_at_once_file_it_once(ground: Ground) -> None:
    names = [f"x{number}" for number in range(6)]
    keep(ground, *names)

    def act(number: int) -> bool:
        order = names if number % 2 else names[::-1]
        shard = [filing(f"file of {name}", name, marks=(f"mark of {name}",)) for name in order]
        return ground.index.file(leave(ground, (MINE, TWIN)[number % 4 // 2]), shard, SHARD)

    assert sum(at_once(8, act)) == 2
    assert len(ground.links()) == 12


@pytest.mark.parametrize("round", range(4))
def test_a_shard_and_a_sweeper_never_both_have_their_way(ground: Ground, round: int) -> None:
    names = [f"x{number}" for number in range(5)]
    keep(ground, *names)
    mine = leave(ground)

    def act(number: int) -> list[bool]:
        if number:
            return [ground.sweep(raw(name)) for name in (names if round % 2 else reversed(names))]
        try:
            return [ground.index.file(mine, [filing("f", *names)], SHARD)]
        except ObjectAbsent:
            return [False]

    (filed,), swept = at_once(2, act)
    assert filed != any(swept)
    assert bool(ground.links()) == filed
    assert [ground.state(raw(name)) for name in sorted(names)].count("live") == (5 if filed else 5 - sum(swept))


def test_one_key_hides_the_answers_of_a_domain_and_week(ground: Ground) -> None:
    domain, week = ground.domain(MINE), int(ground.clock()) // WEEK
    keys = at_once(8, lambda number: ground.index.answer_key(domain, week))
    assert len(set(keys)) == 1
    key, ends = keys[0]
    assert len(key) == 32
    assert any(key)
    assert ends == (week + 1) * WEEK
    others = [ground.index.answer_key(domain, week + 1), ground.index.answer_key(ground.domain(FAR), week)]
    assert len({key, *(other for other, _ in others)}) == 3
