"""The sidecar's only wiring: settings → collaborators → doors → one ASGI app."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware

from inference.building import Builder
from inference.checkout import Checkouts
from inference.config import Config
from inference.download import Resolved
from inference.engines import budget
from inference.engines.device import resolve
from inference.keys import Keys, read_hashes
from inference.limits import Lines
from inference.meters import Load, Meters
from inference.origin import Origin
from inference.pinning import Pins
from inference.pool import Pool
from inference.render import Wordings
from inference.rendering import Renderer
from inference.routes import problems
from inference.routes.chat import Chat
from inference.routes.completions import Completions
from inference.routes.front import Front
from inference.routes.models import Models
from inference.routes.ops import Ops
from inference.routes.serving import Serving
from inference.visits import Visits

SLOTS = 32
"""Rows of one model that are handed to its engine at once: a full batch. The others wait in line, in fair order."""
THREADS = 16
"""Threads that check keys and bodies."""
LOAD_THREADS = 512
"""Threads that may wait for models to load; one that waits costs a stack and no time."""


class Workers:
    """What works beside the loop: threads for checks, threads that may wait for loads, children for templates."""

    def __init__(self) -> None:
        self.checks = ThreadPoolExecutor(THREADS, thread_name_prefix="checks")
        self.loads = ThreadPoolExecutor(LOAD_THREADS, thread_name_prefix="leases")
        self.renderer = Renderer()

    def close(self) -> None:
        """Let all of them go."""
        self.renderer.close()
        self.checks.shutdown(wait=False, cancel_futures=True)
        self.loads.shutdown(wait=False, cancel_futures=True)


def assemble(
    *,
    pool: Pool,
    keys: Keys,
    visits: Visits,
    origin: Origin,
    find: Callable[[str, str | None], Resolved],
    pinned: Sequence[str] = (),
    lines: Lines | None = None,
    deadline: float = 600.0,
    draw: Callable[[], int] = lambda: secrets.randbits(63),
    close: Callable[[], None] = lambda: None,
) -> Starlette:
    """Build the doors over a pool; `close` is called after the last request, when the app shuts down."""
    workers = Workers()
    lines = lines or Lines(max_queue=256, slots=SLOTS)
    meters = Meters(partial(_load, lines, pool))
    serving = Serving(
        pool=pool,
        keys=keys,
        lines=lines,
        wordings=Wordings(workers.renderer),
        visits=visits,
        draw=draw,
        versions=versions(),
        deadline=deadline,
        threads=workers.checks,
        load_threads=workers.loads,
    )
    chat, completions = Chat(serving), Completions(serving)
    models = Models(pool=pool, keys=keys, origin=origin, find=find, started=int(time.time()))
    ops = Ops(pool=pool, meters=meters, visits=visits, version=version("weightroom"), pinned=pinned)
    return Starlette(
        routes=[*chat.routes(), *completions.routes(), *models.routes(), *ops.routes()],
        middleware=[Middleware(Front, meters=meters)],
        exception_handlers=problems.handlers(),
        lifespan=_lifespan(workers, close),
    )


def _lifespan(workers: Workers, close: Callable[[], None]) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            close()
            workers.close()

    return lifespan


def versions() -> str:
    """Name the libraries whose release may change an answer."""
    return " ".join(f"{name} {version(name)}" for name in ("weightroom", "torch", "transformers", "tokenizers"))


def _load(lines: Lines, pool: Pool) -> Load:
    queued, running = lines.counts()
    now = pool.turnover()
    held = sum(state.bytes for state in pool.states())
    return Load(queued, running, held, now.loads, now.evictions, now.kv_used, now.kv_total)


def build(config: Config, visits: Visits | None = None) -> Starlette:
    """Wire a sidecar: registry → checkouts → pool → doors. Pinned models begin to load; nothing else is asked yet.

    visits: given by a server that drains them when it is told to stop.
    Raises: ValueError: the device that was asked for is not there.
    """
    device = cache(partial(resolve, config.device, config.dtype))
    if config.device == "cuda":
        # Whoever insists on a GPU hears at once that there is none. Else torch is imported by the first load.
        device()
    builder = Builder(device=device, recipe=config.quantize, allow_pickle=config.allow_pickle)
    checkouts = _checkouts(config)
    pool = Pool(
        checkouts,
        builder.build,
        lambda: config.model_bytes or budget.of(device()),
        config.idle_seconds,
        config.refresh,
        load_seconds=config.load_seconds,
        estimate=builder.estimate,
    )
    pins = Pins(config.models, pool.pin)
    pins.start()
    origin = Origin(config.registry)

    def close() -> None:
        pins.close()
        pool.close()
        checkouts.close()

    return assemble(
        pool=pool,
        keys=_keys(config, origin),
        visits=visits or Visits(),
        origin=origin,
        find=checkouts.resolve,
        pinned=config.models,
        lines=Lines(max_queue=config.max_queue, slots=SLOTS),
        deadline=config.deadline,
        close=close,
    )


def _checkouts(config: Config) -> Checkouts:
    return Checkouts(
        config.checkouts,
        config.registry,
        config.registry_token,
        config.shared_store,
        allow_pickle=config.allow_pickle,
        limit=config.checkout_bytes,
    )


def _keys(config: Config, origin: Origin) -> Keys:
    if config.api_keys == "registry":
        return Keys("registry", whoami=origin.whoami)
    if config.api_keys == "none":
        return Keys("none", own_token=config.registry_token)
    hashes = read_hashes(Path(config.api_keys).read_text(encoding="utf-8"))
    return Keys("file", hashes=hashes, own_token=config.registry_token)
