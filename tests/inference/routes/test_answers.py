"""A stream that is silent says that it lives, and one that is late says so."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path

from inference.engine import Info
from inference.generate import Run
from inference.planning import plan
from inference.render import Wording
from inference.rendering import Renderer
from inference.routes.answers import Heading, Started, events
from inference.routes.chat import read
from inference.routes.front import Record
from tests.inference.echo import EchoEngine


async def _started(engine: EchoEngine, wording: Wording, seconds: float) -> Started:
    ask = read(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}).encode())
    prompts = ask.prompts(wording)
    info = Info(512, 512, frozenset({"generate"}), 1, "x")
    planned = plan(
        body=ask.body, prompts=prompts, limit=2, likeliest=None, info=info, wording=wording, seed=1, param="messages"
    )
    bell = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        # The engine may go on for a step after the test's loop has ended.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(bell.set)

    run = Run(id_="r", engine=engine, wording=wording, plan=planned, wake=wake)
    run.start()
    writer = ask.writer(Heading("id", 0, "m", "f"), wording, prompts)
    return Started(run, writer, ask, Record("r", 0.0), bell, time.monotonic() + seconds)


def test_silence_is_broken_by_a_comment(engine: EchoEngine, checkout: Path, renderer: Renderer) -> None:
    engine.gate.clear()
    wording = Wording("a" * 40, checkout, renderer)

    async def main() -> list[bytes]:
        sent: list[bytes] = []
        async for piece in events(await _started(engine, wording, 30), silence=0.02):
            sent.append(piece)
            if piece == b": wait\n\n":
                engine.gate.set()
        return sent

    sent = asyncio.run(main())
    assert b": wait\n\n" in sent
    assert sent[-1] == b"data: [DONE]\n\n"


def test_a_late_stream_ends_with_an_error_and_no_done(engine: EchoEngine, checkout: Path, renderer: Renderer) -> None:
    engine.gate.clear()
    wording = Wording("a" * 40, checkout, renderer)

    async def main() -> bytes:
        return b"".join([piece async for piece in events(await _started(engine, wording, 0.05))])

    sent = asyncio.run(main())
    assert b"deadline_exceeded" in sent
    assert b"[DONE]" not in sent
