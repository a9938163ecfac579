"""From one HTTP request to one run and its answer: what chat and completions share.

    body ─▶ key, shape (thread) ─▶ line ─▶ lease, ids, submit (thread) ─▶ deltas ─▶ JSON or events

Whatever ends a request (an answer, an error, its deadline, a client that left, a closing house) ends the visit, and
that takes its rows out of the engine, returns the lease and leaves the line.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from inference.errors import EngineFull, SidecarError
from inference.generate import Run
from inference.keys import Caller, Keys
from inference.limits import Lines, Place
from inference.planning import plan
from inference.pool import Pool
from inference.render import Wordings
from inference.routes import problems, sse
from inference.routes.answers import Ask, Heading, Started, Writer, collect, late, rung_within, stream
from inference.routes.bodies import bearer, json_body
from inference.routes.front import Record
from inference.visits import Visit, Visits

T = TypeVar("T")
PAUSES = (0.02, 0.05, 0.1, 0.3, 0.6, 1.0)
"""Seconds between attempts to enter an engine that says it is full."""
ASSUMED_TOKENS = 256
"""Tokens that a request without a limit is taken to generate, when waiting times are estimated."""


class Serving:
    """Answers generation requests; one for the whole process."""

    def __init__(
        self,
        *,
        pool: Pool,
        keys: Keys,
        lines: Lines,
        wordings: Wordings,
        visits: Visits,
        draw: Callable[[], int],
        versions: str,
        deadline: float,
        threads: Executor,
        load_threads: Executor,
    ):
        self._pool = pool
        self._keys = keys
        self._lines = lines
        self._wordings = wordings
        self._visits = visits
        self._draw = draw
        self._versions = versions
        self._deadline = deadline
        self._threads = threads
        self._load_threads = load_threads

    async def answer(self, request: Request, read: Callable[[bytes], Ask], prefix: str) -> ASGIApp:
        """Answer one request, streamed if it asks so; `prefix` begins the answer's id."""
        record: Record = request.state.record
        visit = self._visits.enter()
        streams = False
        try:
            body = await json_body(request)
            started = await while_connected(request, record, self._start(request, body, read, prefix, visit))
            if started.ask.body.stream:
                streams = True
                return stream(started, visit)
            whole = await while_connected(request, record, collect(started))
            return Response(sse.to_json(whole), media_type="application/json")
        finally:
            if not streams:
                visit.close()

    async def _start(
        self, request: Request, body: bytes, read: Callable[[bytes], Ask], prefix: str, visit: Visit
    ) -> Started:
        """Bring a request into an engine."""
        record: Record = request.state.record
        loop = asyncio.get_running_loop()
        caller, ask = await loop.run_in_executor(self._threads, self._checked, bearer(request), body, read)
        record.actor, record.model = caller.actor, ask.body.model
        bell = asyncio.Event()
        until = record.arrived + (ask.body.timeout or self._deadline)
        ended = asyncio.Event()

        def end(_: SidecarError) -> None:
            _ring(loop, bell)
            _ring(loop, ended)

        visit.on_abort(end)
        place = self._lines.join(
            model=ask.body.model,
            actor=caller.actor,
            rows=ask.rows,
            tokens=ask.rows * (ask.limit or ASSUMED_TOKENS),
            ring=partial(_ring, loop, bell),
        )
        visit.keep(lambda: place.leave(record.usage.completion))
        await _granted(place, visit, bell, until)
        record.queued_until = time.monotonic()
        begin = partial(self._submitted, caller, ask, record, prefix, visit, partial(_ring, loop, bell))
        run, writer = await in_time(loop.run_in_executor(self._load_threads, begin), until, visit, ended)
        return Started(run, writer, ask, record, bell, until)

    def _checked(self, key: str | None, body: bytes, read: Callable[[bytes], Ask]) -> tuple[Caller, Ask]:
        caller = self._keys.caller(key)
        return caller, read(body)

    def _submitted(
        self, caller: Caller, ask: Ask, record: Record, prefix: str, visit: Visit, wake: Callable[[], None]
    ) -> tuple[Run, Writer]:
        """Lease the model, make ids, hand the rows to the engine. Runs in a thread, and may wait for a load."""
        lease = self._pool.lease(ask.body.model, caller.token)
        visit.keep(partial(lease.__exit__, None, None, None))
        record.sha = lease.sha
        info = lease.engine.info()
        wording = self._wordings.of(lease.sha, lease.path)
        prompts = ask.prompts(wording)
        planned = plan(
            body=ask.body,
            prompts=prompts,
            limit=ask.limit,
            likeliest=ask.likeliest,
            info=info,
            wording=wording,
            seed=self._draw(),
            param=ask.param,
        )
        run = _running(
            partial(Run, id_=record.id, engine=lease.engine, wording=wording, plan=planned, wake=wake), visit
        )
        digest = hashlib.sha256(f"{info.name}|{self._versions}".encode()).hexdigest()
        fingerprint = f"wr-{lease.sha[:12]}-{digest[:8]}"
        heading = Heading(f"{prefix}-{record.id}", int(time.time()), ask.body.model, fingerprint)
        return run, ask.writer(heading, wording, prompts)


def _running(make: Callable[[], Run], visit: Visit) -> Run:
    """Start a run; the rows of requests that ended just now leave the engine a step later, so it may need a moment.

    Raises: EngineFull, when that moment was not enough; what else `Run.start` raises.
    """
    for pause in PAUSES:
        run = make()
        try:
            run.start()
            break
        except EngineFull:
            if pause == PAUSES[-1] or visit.closed:
                raise
            time.sleep(pause)
    visit.keep(run.cancel)
    visit.on_abort(run.fail)
    return run


async def while_connected(request: Request, record: Record, work: Coroutine[object, object, T]) -> T:
    """Do the work unless the client leaves first, and then cancel it.

    Raises: Problem, to end a request that nobody waits for; what the work raises.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(sse.gone(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        record.cancelled = True
        raise problems.Problem(problems.CLIENT_LEFT, "client_left", "The client left.")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def in_time(work: asyncio.Future[T], until: float, visit: Visit, ended: asyncio.Event) -> T:
    """Wait for a thread's result; what comes too late is dropped by its visit.

    Raises: DeadlineExceeded; why the house ended the visit; what the work raises.
    """
    ending = asyncio.create_task(ended.wait())
    first: list[asyncio.Future[Any]] = [work, ending]
    try:
        left = max(0.0, until - time.monotonic())
        await asyncio.wait(first, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise visit.error or late()
    finally:
        ending.cancel()
        work.cancel()


async def _granted(place: Place, visit: Visit, bell: asyncio.Event, until: float) -> None:
    while not place.granted:
        await rung_within(bell, until - time.monotonic())
        if visit.error is not None:
            raise visit.error
        if not place.granted and time.monotonic() >= until:
            raise late()


def _ring(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    """Ring from any thread; a loop that has ended needs no bell."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(bell.set)
