"""Places for the shards that come in, wait or are filed at one time: so many in all, and half of them for one sender.

A shard that waits for its turn takes up to 64 MiB of a disk, and a connection. One that finds no place is refused
before its body is read; hf_xet tries five times more, within 1.5 to 4 minutes. Half for one, so that nobody who sends
many shards, or one byte of each now and then, keeps all others out.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from lfs.errors import Busy


class Places:
    """Counts who has a place; for one event loop, whose own thread alone may use it."""

    def __init__(self, places: int) -> None:
        self._places, self._share = places, max(1, places // 2)
        self._taken: Counter[int] = Counter()

    @contextlib.contextmanager
    def taken(self, actor_id: int) -> Iterator[None]:
        """Hold a place while the block runs. Raises: Busy."""
        if self._taken.total() >= self._places or self._taken[actor_id] >= self._share:
            raise Busy("Many files are being filed at this moment; try again in a few seconds.")
        self._taken[actor_id] += 1
        try:
            yield
        finally:
            self._taken[actor_id] -= 1
            if not self._taken[actor_id]:
                del self._taken[actor_id]
