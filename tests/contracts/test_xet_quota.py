"""What every index of Xet counts against a quota before it is filed, and refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lfs.errors import ObjectAbsent, QuotaExceeded, RepoAbsent
from lfs.xet.index import File, Filing, Granted, Part, packed
from tests.contracts.xet_grounds import FAR, MINE, TWIN, Ground
from tests.contracts.xet_samples import DAY, OTHER_SHARD, SHARD, at_once, file, filing, keep, leave, oid, raw, xorb


def granted(ground: Ground, name: str, id: int, length: int = 1001, repo: int = MINE) -> Granted:
    """Leave to bring a xorb."""
    key, expires = xorb(name, f"grant{id}").key, int(ground.clock()) + 3600
    return Granted(f"{id:032x}", ground.domain(repo), raw(name), key, length, expires)


def test_a_xorb_counts_for_as_long_as_it_is_promised_or_until_a_file_of_it_is_filed(ground: Ground) -> None:
    keep(ground, "x", "y")
    keep(ground, "x")
    assert ground.brought() == 2002
    assert ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    assert ground.brought() == 1001
    ground.clock.now += 28 * DAY + 1
    assert ground.brought() == 0
    # It is noted again, as one that may be filed now.
    keep(ground, "x", "y")
    assert ground.brought() == 1001


def test_a_grant_counts_until_it_expires_each_that_is_asked_for(ground: Ground) -> None:
    for number in range(2):
        ground.index.grant(leave(ground), granted(ground, "x", number))
    assert ground.brought() == 2002
    # Its bytes are known now.
    ground.index.keep(leave(ground), replace(xorb("x"), size=700))
    assert ground.brought() == 700
    ground.index.grant(leave(ground, FAR), granted(ground, "x", 2, repo=FAR))
    ground.index.grant(leave(ground), granted(ground, "y", 3))
    assert ground.brought() == 700 + 1001 + 1001
    ground.clock.now += 3601
    assert ground.brought() == 700 + 1001
    ground.index.grant(leave(ground), granted(ground, "y", 4))
    assert ground.brought() == 700 + 1001 + 1001


def test_what_is_brought_has_to_fit(ground: Ground) -> None:
    ground.limit(2500)
    keep(ground, "x")
    ground.index.grant(leave(ground), granted(ground, "y", 1))
    for refused in (
        lambda: ground.index.check(leave(ground), raw("z"), 1001),
        lambda: ground.index.grant(leave(ground), granted(ground, "z", 2)),
        lambda: ground.index.grant(leave(ground), granted(ground, "x", 3)),
        lambda: keep(ground, "z"),
        lambda: keep(ground, "z", repo=FAR),
    ):
        with pytest.raises(QuotaExceeded):
            refused()
    assert ground.brought() == 2002
    assert ground.state(raw("z")) is None
    for unknown in ("2", "3"):
        with pytest.raises(ObjectAbsent):
            ground.index.granted(unknown.zfill(32))
    # What is counted already is no more bytes.
    ground.index.check(leave(ground), raw("x"), 1001)
    ground.index.check(leave(ground), raw("z"), 498)
    keep(ground, "x", "y")
    assert ground.brought() == 2002


def test_a_file_and_its_own_chunks_are_not_counted_together(ground: Ground) -> None:
    ground.limit(1500)
    keep(ground, "x")
    many = [f"file {number}" for number in range(15)]
    with pytest.raises(QuotaExceeded):
        ground.index.file(leave(ground), [filing(name, "x") for name in [*many, "one more"]], SHARD)
    assert ground.brought() == 1001
    assert ground.index.file(leave(ground), [filing(name, "x") for name in many], SHARD)
    assert ground.brought() == 0
    with pytest.raises(QuotaExceeded):
        keep(ground, "y")


def test_a_file_that_says_no_sha256_counts_and_so_do_its_chunks(ground: Ground) -> None:
    keep(ground, "x")
    ground.limit(1001 + 250)
    for name in ("f", "g", "f"):
        ground.index.file(leave(ground), [Filing(file(name, "x"), "")], SHARD)
    assert ground.brought() == 1001
    with pytest.raises(QuotaExceeded):
        ground.index.file(leave(ground), [Filing(file("h", "x"), "")], SHARD)
    # A file with one stands for the chunks; those without count on.
    assert ground.index.file(leave(ground, TWIN), [filing("i", "x")], SHARD)
    with pytest.raises(QuotaExceeded):
        ground.index.check(leave(ground), raw("y"), 952)
    ground.index.check(leave(ground), raw("y"), 951)


def test_one_chunk_does_not_pay_for_its_xorb(ground: Ground) -> None:
    ground.limit(3000)
    for name in ("x", "y"):
        keep(ground, name)
        ground.index.file(leave(ground), [piece(f"f{name}", name, 0)], SHARD)
        # Neither does bringing it once more.
        keep(ground, name)
    assert ground.brought() == 2002
    with pytest.raises(QuotaExceeded):
        keep(ground, "z")
    # Together the files have all of one.
    ground.index.file(leave(ground), [piece("g", "x", 1), piece("h", "x", 2)], SHARD)
    assert ground.brought() == 1001


def piece(name: str, xorb: str, chunk: int) -> Filing:
    """A file of 10 bytes, one chunk of a xorb."""
    return Filing(File(raw(name), 10, packed([Part(raw(xorb), chunk, chunk + 1, 0)])), oid(name))


def test_a_shard_counts_by_what_it_is_longer_than_its_files(ground: Ground) -> None:
    keep(ground, "x")
    ground.limit(100 + 2000)
    assert ground.index.file(leave(ground), [filing("f", "x")], SHARD, 100)
    assert ground.brought() == 0
    for _ in range(2):
        ground.index.file(leave(ground), [filing("f", "x")], OTHER_SHARD, 2100)
    assert ground.brought() == 2000
    with pytest.raises(QuotaExceeded):
        ground.index.file(leave(ground), [filing("f", "x")], "7" * 64, 101)
    assert ground.brought() == 2000


@pytest.mark.parametrize("state", ["quarantined", "deleting"])
def test_chunks_of_a_file_that_is_here_are_healed_also_by_who_is_full(ground: Ground, state: str) -> None:
    keep(ground, "x", "y")
    ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    for name in ("x", "y"):
        ground.put_state(raw(name), state)  # type: ignore[arg-type]  # a state of the line above
    ground.clock.now += 29 * DAY
    ground.limit(10)
    ground.index.check(leave(ground, TWIN), raw("x"), 1001)
    ground.index.keep(leave(ground, TWIN), xorb("x", "b"))
    assert ground.state(raw("x")) == "live"
    with pytest.raises(QuotaExceeded):
        ground.index.keep(leave(ground), xorb("y", "b"))
    assert ground.brought() == 0


def test_a_repo_that_is_gone_takes_no_xorbs(ground: Ground) -> None:
    mine = leave(ground)
    given = granted(ground, "x", 1)
    ground.delete_repo(MINE)
    for refused in (lambda: ground.index.keep(mine, xorb("x")), lambda: ground.index.grant(mine, given)):
        with pytest.raises(RepoAbsent):
            refused()
    assert (ground.brought(), ground.state(raw("x"))) == (0, None)


@pytest.mark.parametrize("way", ["grant", "keep"])
def test_no_race_brings_more_than_fits(ground: Ground, way: str) -> None:
    ground.limit(5 * 1005)
    leaves = [leave(ground), leave(ground, FAR)]
    given = [granted(ground, f"x{number}", number, 1005, (MINE, FAR)[number % 2]) for number in range(20)]

    def act(number: int) -> bool:
        try:
            if way == "grant":
                ground.index.grant(leaves[number % 2], given[number])
            else:
                ground.index.keep(leaves[number % 2], xorb(f"x{number}", "takes"))
        except QuotaExceeded:
            return False
        return True

    assert sum(at_once(20, act)) == 5
    assert ground.brought() == 5 * 1005


def test_xorbs_of_a_file_that_lies_count_again(ground: Ground) -> None:
    keep(ground, "x", "y")
    ground.index.file(leave(ground), [filing("f", "x", "y"), filing("g", "y")], SHARD)
    assert ground.brought() == 0
    ground.settle(MINE, raw("f"), oid("f"), "It hashes to something else.")
    # Also those of which the other file has some.
    assert ground.brought() == 2002
    assert ground.index.file(leave(ground), [filing("f", "x", "y")], SHARD)
    assert ground.brought() == 0


def test_xorbs_of_a_file_that_is_here_by_others_count_on(ground: Ground) -> None:
    keep(ground, "x")
    ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    keep(ground, "y")
    assert not ground.index.file(leave(ground), [filing("f", "y")], SHARD)
    assert ground.brought() == 1001


def test_xorbs_of_no_object_count_in_the_other_domain_too(ground: Ground) -> None:
    keep(ground, "x")
    ground.index.file(leave(ground), [Filing(file("f", "x"), "")], SHARD)
    keep(ground, "x", repo=FAR)
    assert ground.brought() == 1001


@pytest.mark.parametrize("limit", [0, 1 << 40])
def test_those_who_bring_and_those_who_file_wait_for_nobody_in_a_ring(ground: Ground, limit: int) -> None:
    names = [f"x{number}" for number in range(6)]
    keep(ground, *names)
    if limit:
        ground.limit(limit)

    def act(number: int) -> None:
        repo = (MINE, TWIN, FAR)[number % 3]
        order = names if number % 2 else names[::-1]
        if number < 6:
            keep(ground, *order, repo=repo)
            for name in order:
                ground.index.grant(
                    leave(ground, repo), granted(ground, name, 10 * number + names.index(name), repo=repo)
                )
        else:
            keep(ground, *order, repo=repo)
            shard = [filing(f"file {number % 4} of {name}", name, marks=(name,)) for name in order]
            ground.index.file(leave(ground, repo), shard, SHARD)

    at_once(12, act)
    assert {ground.state(raw(name)) for name in names} == {"live"}
