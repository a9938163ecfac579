"""One transfer for a batch, one mode for each object: by what the client can, the shelf signs and the operator lets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.choices import GIB, MAX_PARTS, MIB, ONE_PUT, Choice, Policy, Reach, choose, part_count, part_length
from lfs.errors import TooLarge
from lfs.host import Wanted

GIT_LFS, HUB = "git-lfs/3.8.1 (GitHub; linux amd64; go 1.24)", "unknown/None; hf_hub/2.4.0; python/3.11"
BOUND, SIZED, BARE = Reach(bound=True, sized=True), Reach(sized=True), Reach(sized=True, bare=True)
STAGING, PROXY = Policy(upload="staging"), Policy(upload="proxy")
names = st.sampled_from(["basic", "multipart", "tus", "ssh", "lfs-standalone-file", "xet", ""])
sizes = st.integers(0, 1 << 44) | st.sampled_from([0, 1, GIB - 1, GIB, ONE_PUT, ONE_PUT + 1])
policies = st.builds(
    Policy, upload=st.sampled_from(["direct", "staging", "proxy"]), part_size=st.sampled_from([5 * MIB, 64 * MIB])
)
reaches = st.builds(Reach, st.booleans(), st.booleans(), st.booleans())


def wanted(*sizes: int) -> list[Wanted]:
    return [Wanted(f"{number:064x}", size) for number, size in enumerate(sizes)]


def modes(choice: Choice) -> list[str]:
    return [each.mode for each in choice.openings]


@given(st.lists(sizes, min_size=1, max_size=8), st.lists(names), st.sampled_from([GIT_LFS, HUB, ""]), policies, reaches)
def test_every_object_gets_a_way_that_its_client_and_shelf_can_go(
    objects: list[int], offered: list[str], agent: str, policy: Policy, reach: Reach
) -> None:
    choice = choose(wanted(*objects), offered, agent, policy, reach)
    assert choice.transfer == "basic" or choice.transfer in offered
    assert [each.wanted for each in choice.openings] == wanted(*objects)
    for each in choice.openings:
        size = each.wanted.size
        if each.mode == "direct":
            assert reach.bound
            assert agent == GIT_LFS
        if each.mode == "staging":
            assert reach.sized
            assert policy.upload == "staging"
        if each.mode in ("direct", "staging"):
            assert size <= ONE_PUT
            assert policy.upload != "proxy"
        if each.mode in ("multipart", "tus"):
            assert choice.transfer == each.mode
            assert part_count(size, each.part_size) <= MAX_PARTS
        assert (each.mode == "multipart") == (choice.transfer == "multipart" and size > 0)


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 36))
def test_parts_add_up_to_the_object(size: int, part_size: int) -> None:
    count = part_count(size, part_size)
    first, last = part_length(size, part_size, 1), part_length(size, part_size, count)
    assert 0 < last <= first == min(size, part_size)
    assert (count - 1) * part_size + last == size
    assert [part_length(size, part_size, number) for number in (-1, 0, count + 1)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("size", "agent", "policy", "reach", "mode"),
    [
        (1, GIT_LFS, Policy(), BOUND, "direct"),
        (0, GIT_LFS, Policy(), BOUND, "direct"),
        (ONE_PUT, GIT_LFS, Policy(), BOUND, "direct"),
        (ONE_PUT + 1, GIT_LFS, Policy(), BOUND, "proxy"),
        (1, HUB, Policy(), BOUND, "proxy"),
        (1, "", Policy(), BOUND, "proxy"),
        (1, GIT_LFS, PROXY, BOUND, "proxy"),
        (1, GIT_LFS, Policy(), SIZED, "proxy"),
        (1, GIT_LFS, STAGING, SIZED, "staging"),
        (1, GIT_LFS, STAGING, BOUND, "direct"),
        (1, HUB, STAGING, SIZED, "proxy"),
        (1, HUB, STAGING, BARE, "staging"),
        (1, GIT_LFS, STAGING, Reach(), "proxy"),
    ],
)
def test_one_object_goes_past_us_only_where_that_is_safe(
    size: int, agent: str, policy: Policy, reach: Reach, mode: str
) -> None:
    assert modes(choose(wanted(size), ["basic"], agent, policy, reach)) == [mode]


def test_tus_is_for_bytes_that_would_pass_through_us() -> None:
    through = choose(wanted(1, 2), ["basic", "tus", "multipart"], GIT_LFS, PROXY, Reach())
    assert (through.transfer, modes(through)) == ("tus", ["tus", "tus"])
    past = choose(wanted(1, 2), ["basic", "tus"], GIT_LFS, Policy(), BOUND)
    assert (past.transfer, modes(past)) == ("basic", ["direct", "direct"])


def test_one_large_object_puts_its_batch_in_parts() -> None:
    policy = Policy(multipart_threshold=100, part_size=40)
    small = choose(wanted(1, 99), ["basic", "multipart"], HUB, policy, Reach())
    assert (small.transfer, modes(small)) == ("basic", ["proxy", "proxy"])
    large = choose(wanted(0, 1, 100), ["basic", "multipart"], HUB, policy, Reach())
    assert (large.transfer, modes(large)) == ("multipart", ["proxy", "multipart", "multipart"])
    assert modes(choose(wanted(100), ["basic"], HUB, policy, Reach())) == ["proxy"]


def test_parts_grow_so_that_an_answer_can_name_them() -> None:
    policy = Policy(multipart_threshold=1)
    (one,) = choose(wanted(10 << 40), ["multipart"], HUB, policy, Reach()).openings
    assert one.part_size % MIB == 0
    assert part_count(10 << 40, one.part_size) <= MAX_PARTS
    many = choose(wanted(*[50 * GIB] * 100), ["multipart"], HUB, policy, Reach()).openings
    assert sum(part_count(each.wanted.size, each.part_size) for each in many) <= MAX_PARTS + len(many)
    for too_much in ([1 << 62] * 2, [1] * 1001):
        with pytest.raises(TooLarge, match="fewer objects at a time"):
            choose(wanted(*too_much), ["multipart"], HUB, policy, Reach())


def test_chunks_go_where_the_host_says_and_only_from_clients_that_speak_xet() -> None:
    every = ["basic", "multipart", "tus", "xet"]
    assert choose(wanted(1, GIB), every, HUB, Policy(), Reach(), xet=True) == Choice("xet", ())
    assert choose(wanted(1), every[:2], HUB, Policy(), Reach(), xet=True).transfer == "basic"
    assert choose(wanted(1), ["basic", "xet"], HUB, Policy(), Reach()).transfer == "basic"
