"""Many small requests in company: those that wait at the same time go to a worker thread together.

A small upload costs less than its way to a thread and back, and two threads that both want the interpreter cost each
other more than either saves. So a few threads take all who wait, one group after another; whoever comes first goes at
once, and whoever comes meanwhile goes with the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

# A group is not so large that its first member waits long for its last.
MOST = 32


class Company(Generic[Asked, Answer]):
    """Serves coroutines of one event loop in groups, on at most `threads` threads.

    `work` takes what a group asks and returns an answer or an error for each, in order; what it raises all hear.
    """

    def __init__(self, work: Callable[[Sequence[Asked]], Sequence[Answer | Exception]], *, threads: int) -> None:
        self._work = work
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="company")
        self._free = threads
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._busy: set[asyncio.Task[None]] = set()

    async def ask(self, asked: Asked) -> Answer:
        """Return the answer; raises what `work` found or raised. What is asked is done also if the asker leaves."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._free:
            self._free -= 1
            task = asyncio.ensure_future(self._serve())
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)
        return await answer

    async def _serve(self) -> None:
        """Serve groups until nobody waits."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                _tell(group, await self._answers([asked for asked, _ in group]))
        finally:
            self._free += 1

    async def _answers(self, asked: list[Asked]) -> Sequence[Answer | Exception]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, asked)
        except Exception as error:
            # All of the group wait for this: each is told, whatever it is.
            return [error] * len(asked)


def _tell(group: Sequence[tuple[Asked, asyncio.Future[Answer]]], answers: Sequence[Answer | Exception]) -> None:
    for (_, future), answer in zip(group, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
