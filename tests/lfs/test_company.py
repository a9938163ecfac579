"""Who waits while others are served is served with the rest of those who wait, and spoils nothing for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from lfs.company import MOST, Company


def doubled(asked: Sequence[int]) -> list[int | Exception]:
    return [number * 2 if number >= 0 else ValueError(str(number)) for number in asked]


def test_who_comes_meanwhile_goes_with_the_next_group() -> None:
    groups, begun, go = [], threading.Event(), threading.Event()

    def work(asked: Sequence[int]) -> Sequence[int | Exception]:
        groups.append(len(asked))
        begun.set()
        assert go.wait(10)
        return doubled(asked)

    async def run() -> None:
        company = Company(work, threads=1)
        asking = [asyncio.ensure_future(company.ask(number)) for number in range(2 * MOST)]
        await asyncio.to_thread(begun.wait, 10)
        go.set()
        assert await asyncio.gather(*asking) == [number * 2 for number in range(2 * MOST)]

    asyncio.run(run())
    assert max(groups) <= MOST
    assert sum(groups) == 2 * MOST
    assert len(groups) <= 3


def test_several_threads_serve_several_groups_at_once() -> None:
    both = threading.Barrier(2)

    def work(asked: Sequence[int]) -> Sequence[int | Exception]:
        both.wait(10)
        return doubled(asked)

    async def run() -> None:
        company = Company(work, threads=2)
        first = asyncio.ensure_future(company.ask(1))
        await asyncio.sleep(0)
        assert await asyncio.gather(first, company.ask(2)) == [2, 4]

    asyncio.run(run())


def test_each_hears_of_its_own_failure_and_all_of_a_common_one() -> None:
    def broken(asked: Sequence[int]) -> Sequence[int | Exception]:
        raise OSError("the disk is gone")

    async def run() -> None:
        company = Company(doubled, threads=1)
        found = await asyncio.gather(*(company.ask(number) for number in (1, -1, 2)), return_exceptions=True)
        assert [found[0], found[2]] == [2, 4]
        assert isinstance(found[1], ValueError)
        asking = Company(broken, threads=1)
        assert {type(each) for each in await asyncio.gather(asking.ask(1), asking.ask(2), return_exceptions=True)} == {
            OSError
        }
        with pytest.raises(OSError, match="gone"):
            await asking.ask(3)

    asyncio.run(run())


def test_one_that_leaves_spoils_nothing_and_its_wish_is_done() -> None:
    done: list[int] = []

    def work(asked: Sequence[int]) -> Sequence[int | Exception]:
        done.extend(asked)
        return doubled(asked)

    async def run() -> None:
        company = Company(work, threads=1)
        leaving = asyncio.ensure_future(company.ask(1))
        staying = asyncio.ensure_future(company.ask(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == 4
        assert await company.ask(3) == 6

    asyncio.run(run())
    assert done == [1, 2, 3]
