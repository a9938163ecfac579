"""Places for the shards that come in, wait or are filed at one time, and who gives one up when all are taken.

A shard that waits for its turn takes up to 64 MiB of a disk, and a connection. One that finds no place is refused
before its body is read; hf_xet tries five times more, within 1.5 to 4 minutes. Nobody who sends many shards, or one
byte of each now and then, is to keep others out for longer. So whoever has two places fewer than another, or more,
takes the last one of theirs whose filing has not begun: it is asked to come again in its turn. A pace would not do
instead: who is alone on a slow line has sent gigabytes before, for hours, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import TypeVar

from lfs.errors import Busy

T = TypeVar("T")


class Place:
    """The place of one shard. It may be lost to another sender while the shard waits for something."""

    def __init__(self) -> None:
        self.lost = False
        self._wait: asyncio.Task[object] | None = None

    async def waiting(self, work: Coroutine[object, object, T]) -> T:
        """Wait for what is given up when the place is lost. Raises: Busy (it was lost), and whatever `work` raises."""
        task = asyncio.ensure_future(work)
        self._wait = task
        try:
            return await task
        except asyncio.CancelledError as error:
            if not self.lost:
                raise
            raise Busy("Others have files to be filed as well; try again in a few seconds.") from error
        finally:
            self._wait = None

    def lose(self) -> bool:
        """Give the place to another, if its shard waits for something; say whether it does."""
        self.lost = self._wait is not None and self._wait.cancel()
        return self.lost


class Places:
    """Counts who has a place; for one event loop, whose own thread alone may use it."""

    def __init__(self, places: int) -> None:
        self._places = places
        # In the order in which they were taken; nobody without one.
        self._taken: dict[int, list[Place]] = {}

    @contextlib.contextmanager
    def taken(self, actor_id: int) -> Iterator[Place]:
        """Hold a place while the block runs, or until it is lost. Raises: Busy."""
        if sum(map(len, self._taken.values())) >= self._places:
            self._make_room(actor_id)
        place = Place()
        self._taken.setdefault(actor_id, []).append(place)
        try:
            yield place
        finally:
            if not place.lost:
                self._drop(actor_id, place)

    def _make_room(self, actor_id: int) -> None:
        """Take a place from whoever has most. Raises: Busy (nobody has two more, or all of theirs are being filed)."""
        least = len(self._taken.get(actor_id, ())) + 2
        for actor, places in sorted(self._taken.items(), key=lambda each: len(each[1]), reverse=True):
            for place in reversed(places):
                if len(places) >= least and place.lose():
                    self._drop(actor, place)
                    return
        raise Busy("Many files are being filed at this moment; try again in a few seconds.")

    def _drop(self, actor_id: int, place: Place) -> None:
        self._taken[actor_id].remove(place)
        if not self._taken[actor_id]:
            del self._taken[actor_id]
