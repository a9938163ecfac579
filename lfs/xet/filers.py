"""Whose shard is filed next: that of the sender who has fewest at work, and of those the one who waits longest.

A shard that names all it may takes minutes of a core. So who sends many of them has one filer while others wait, and
whoever comes waits for one shard of each sender before, whatever these have queued. Who is alone has all filers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class Filers:
    """Deals out so many turns at a time; for one event loop, whose own thread alone may use it."""

    def __init__(self, filers: int) -> None:
        self._free = filers
        self._at_work: Counter[int] = Counter()
        # In the order of their turns: whoever had one goes to the end.
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    async def turn(self, actor_id: int) -> None:
        """Wait for a turn; whoever got one calls `end` after it, whatever happens."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(actor_id, deque()).append(mine)
        self._deal()
        try:
            await mine
        except asyncio.CancelledError:
            # Cancelled in the moment in which it came: nobody is left to end it.
            if not mine.cancelled():
                self.end(actor_id)
            raise

    def end(self, actor_id: int) -> None:
        """Note that a turn is over."""
        self._at_work[actor_id] -= 1
        if not self._at_work[actor_id]:
            del self._at_work[actor_id]
        self._free += 1
        self._deal()

    def _deal(self) -> None:
        while self._free and self._waiting:
            actor_id = min(self._waiting, key=lambda actor: self._at_work[actor])
            queue = self._waiting.pop(actor_id)
            first = queue.popleft()
            # Of who left while waiting, nothing is left but this.
            if not first.done():
                self._at_work[actor_id] += 1
                self._free -= 1
                first.set_result(None)
            if queue:
                self._waiting[actor_id] = queue
