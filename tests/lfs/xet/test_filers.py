"""Turns go round among the senders, and one that nobody takes any more is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from lfs.xet.filers import Filers


class Line:
    """Senders that wait for turns, in the order in which they got them."""

    def __init__(self, filers: int) -> None:
        self.filers, self.had = Filers(filers), list[str]()

    async def wait(self, *names: str) -> list[asyncio.Task[None]]:
        """Let shards wait; the first letter of a name is its sender."""
        tasks = [asyncio.ensure_future(self._turn(name)) for name in names]
        await settle()
        return tasks

    async def end(self, *names: str) -> None:
        """End turns, one after the other."""
        for name in names:
            self.filers.end(ord(name[0]))
            await settle()

    async def _turn(self, name: str) -> None:
        await self.filers.turn(ord(name[0]))
        self.had.append(name)


async def settle() -> None:
    """Let all who can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(story: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


def test_senders_take_turns_whatever_each_has_queued() -> None:
    async def story() -> None:
        line = Line(1)
        await line.wait("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        await line.end("a", "a", "b", "c", "a", "b")
        # Who comes again and again does not push in before those who wait.
        assert line.had == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]

    run(story())


def test_nobody_has_two_filers_while_others_wait() -> None:
    async def story() -> None:
        line = Line(2)
        await line.wait("a1", "a2", "a3", "a4")
        await line.wait("b1", "b2", "b3")
        await line.end("a", "b", "b", "a")
        assert line.had == ["a1", "a2", "b1", "b2", "b3", "a3"]

    run(story())


def test_a_turn_that_nobody_takes_goes_to_the_next() -> None:
    async def story() -> None:
        line = Line(1)
        await line.wait("a1")
        gone, late, *_ = await line.wait("b1", "c1", "d1")
        gone.cancel()
        await line.end("a")
        assert line.had == ["a1", "c1"]
        [early] = await line.wait("e1")
        # It came, and was not noticed yet.
        line.filers.end(ord("c"))
        for each in (early, late, *_):
            each.cancel()
        await line.wait("f1")
        assert line.had == ["a1", "c1", "f1"]

    run(story())
