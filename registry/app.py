"""Settings → application: the only wiring. Reads from the ground up: shelves, desk, doors, front."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Protocol

from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import Lifespan

from lfs.choices import Policy
from lfs.proofs import Prover
from lfs.routes import LfsRoutes
from registry.access import Actor
from registry.config import Config
from registry.desk import Desk, Pools, Shelves, push_limits
from registry.git.responses import Responses
from registry.git.upload_pack import UploadPack
from registry.git.upload_pack_v0 import UploadPackV0
from registry.limits import Limits
from registry.preupload import Preupload
from registry.profiles import Profiles
from registry.routes.auth import Auth, DoorAccess, fingerprint
from registry.routes.blocks import Threads
from registry.routes.cas import Cas
from registry.routes.front import Front, Origins
from registry.routes.git import GitDoor
from registry.routes.hub.account import AccountDoor
from registry.routes.hub.arrivals import Arrivals
from registry.routes.hub.files import FileDoor
from registry.routes.hub.lists import ListDoor
from registry.routes.hub.manage import ManageDoor
from registry.routes.hub.refs import RefDoor
from registry.routes.hub.repos import RepoDoor
from registry.routes.hub.trees import TreeDoor
from registry.routes.hub.uploads import UploadDoor
from registry.routes.hub.usage import UsageDoor
from registry.routes.hub.xet import XetDoor
from registry.routes.inner import InnerDoor
from registry.routes.judging import Judging
from registry.routes.lfs import LfsHost
from registry.routes.meter import Meter
from registry.routes.ops import OpsDoor
from registry.routes.problems import Dialect, InDialect, Problems, WrongVerbs
from registry.routes.pushes import Pushes
from registry.unpacked import Unpacked
from registry.upkeep.daily import Daily
from registry.upkeep.gc import Gc
from registry.upkeep.ingest import SMALLEST, Ingesting
from registry.upkeep.once import Once
from registry.upkeep.probing import Probing
from registry.upkeep.recurring import Recurring
from registry.upkeep.scrub import Scrub
from registry.usage import Usages
from registry.xet_house import XetHouse
from registry.xet_ingests import Ingests
from registry.xet_wholes import Wholes

_MIB = 1 << 20
_EXPOSED = [
    "X-Repo-Commit",
    "X-Linked-Etag",
    "X-Linked-Size",
    "X-Total-Count",
    "X-Xet-Hash",
    "X-Xet-Cas-Url",
    "X-Xet-Access-Token",
    "X-Xet-Token-Expiration",
    "X-Error-Code",
    "X-Error-Message",
    "X-Request-Id",
    "ETag",
    "Link",
    "Content-Range",
    "RateLimit",
    "RateLimit-Policy",
]
_MINUTE, _HOUR = 60.0, 3600.0


class Door(Protocol):
    """A class of endpoints."""

    def routes(self) -> list[Route]:
        """Name them."""


def build(config: Config, *, draining: threading.Event | None = None) -> Starlette:
    """Wire a server; `draining` turns its readiness off. Nothing is listened on yet.

    Raises: ConfigError (the secret), lfs errors (the store cannot be opened).
    """
    limits = _limits(config)
    meter = Meter()
    origins = Origins(config.public_url, config.trusted_proxies)
    shelves = Shelves(config)

    def greet(token: str, user_id: int) -> None:
        limits.know(fingerprint(token), user_id)

    def greet_actor(token: str, actor: Actor) -> None:
        if actor.user_id is not None:
            greet(token, actor.user_id)

    access = DoorAccess(shelves.database, anonymous_read=config.anonymous_read, greet=greet_actor)
    pools = Pools(config, shelves.store)
    desk = Desk(config, shelves, pools, access)
    lfs_host = _lfs_host(config, shelves, access, origins)
    beside = Beside(config, shelves, desk, lfs_host, meter)
    told = beside.prover.tell
    xet = XetHouse(config, shelves, pools.transfer, told=told, greet=greet) if config.xet else None
    cas = None if xet is None else xet.cas
    routes = [
        *_ops(shelves, meter, beside, draining or threading.Event()).routes(),
        *_spoken("hub", [] if xet is None else [xet]),
        *_hub_routes(shelves, desk, pools, Auth(access), cas),
        *_lfs_routes(config, shelves, pools, lfs_host, beside.prover, cas),
        *_git_routes(config, shelves, desk, pools, Auth(access)),
    ]
    routes.sort(key=_asked_less)
    front = Middleware(Front, origins=origins, limits=limits, meter=meter)
    app = Starlette(
        routes=routes,
        middleware=[front, *_cors(config)],
        exception_handlers={405: WrongVerbs(routes)},
        lifespan=_lifespan(config, shelves, pools, beside, xet),
    )
    # A redirect to the same path with a slash more or less costs clients their Authorization header.
    app.router.redirect_slashes = False
    return app


def _ops(shelves: Shelves, meter: Meter, beside: Beside, draining: threading.Event) -> OpsDoor:
    return OpsDoor(
        database=shelves.database,
        store=shelves.store,
        meter=meter,
        version=version("weightroom"),
        draining=draining,
        storage=beside.storage,
    )


def _asked_less(route: Route) -> bool:
    """Order routes, which are matched one by one: first what comes once per object of a push, or part of a file."""
    # No name of a repo begins so.
    return not route.path.startswith(("/lfs/", "/xet/"))


def _limits(config: Config) -> Limits:
    return Limits(
        {
            "api": config.limit_api,
            "resolve": config.limit_resolve,
            "git": config.limit_git,
            "lfs": config.limit_lfs,
            "xet": config.limit_xet,
        }
    )


class Beside:
    """What runs beside the requests of a process: provers, roll-ups, ingests, scrub, daily probe and collection."""

    def __init__(self, config: Config, shelves: Shelves, desk: Desk, host: LfsHost, meter: Meter) -> None:
        self.prover = Prover(host=host, store=shelves.store, workers=max(2, config.heavy))
        self._roll_ups = desk.roll_ups
        key = config.s3_access_key or ""
        self._probing = Probing(database=shelves.database, store=shelves.store, url=config.storage_url, access_key=key)
        self._recurring: list[Recurring | Daily | Ingesting | Scrub] = []
        if config.storage_url.startswith("s3:"):
            self._recurring.append(Recurring("probe", self._probing.settle, seconds=_HOUR))
        if config.gc == "daily":
            self._recurring.append(Daily(_collection(shelves)))
        if config.xet_scrub:
            self._recurring.append(_scrub(config, shelves, meter))
        if config.xet and config.xet_ingest != "off" and find_spec("hf_xet") is not None:
            self._recurring.append(_ingesting(config, shelves, self.prover, meter))
            if config.xet_ingest == "auto":
                wholes = Wholes(shelves.database, smallest=SMALLEST, freed=meter.freed.inc)
                self._recurring.append(Recurring("wholes", wholes.run, seconds=_MINUTE))
                # Apart: to go back is to read whole objects.
                once = Once(shelves.database, shelves.store)
                self._recurring.append(Recurring("once", once.run, seconds=_MINUTE))

    def storage(self) -> str:
        """Name what the shelf was found to enforce; empty while that is not known."""
        return self._probing.found.enforces if self._probing.found else ""

    def start(self) -> None:
        """Begin."""
        self.prover.start()
        for work in self._recurring:
            work.start()

    def close(self) -> None:
        """End what waits, and give what runs a few seconds; may be repeated."""
        for work in self._recurring:
            work.close()
        self.prover.close()
        self._roll_ups.close()


def _collection(shelves: Shelves) -> Gc:
    return Gc(
        database=shelves.database,
        store=shelves.store,
        repositories=shelves.repositories,
        manifests=shelves.manifests,
    )


def _scrub(config: Config, shelves: Shelves, meter: Meter) -> Scrub:
    return Scrub(
        database=shelves.database,
        store=shelves.store,
        rate=config.xet_scrub,
        read=meter.scrubbed.inc,
        damaged=meter.damaged.set,
    )


def _ingesting(config: Config, shelves: Shelves, prover: Prover, meter: Meter) -> Ingesting:
    door = InnerDoor(
        database=shelves.database,
        quotas=shelves.quotas,
        sharing=config.xet_domain,
        store=shelves.store,
        tables=shelves.tables,
        folder=shelves.slot.quarantine,
        told=prover.tell,
    )
    return Ingesting(
        Ingests(shelves.database, smallest=SMALLEST), door.send, counted=meter.ingests, sent=meter.ingested.inc
    )


def _lifespan(
    config: Config, shelves: Shelves, pools: Pools, beside: Beside, xet: XetHouse | None
) -> Lifespan[Starlette]:
    @contextlib.asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = config.threads
        beside.start()
        yield
        beside.close()
        if xet is not None:
            xet.close()
        pools.close()
        shelves.close()

    return run


def _cors(config: Config) -> list[Middleware]:
    """Let scripts of other origins read what the Hub's own clients in browsers look for."""
    if not config.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Range", "If-None-Match", "X-Xet-Session-Id"],
            expose_headers=_EXPOSED,
            max_age=86_400,
        )
    ]


def _lfs_host(config: Config, shelves: Shelves, access: DoorAccess, origins: Origins) -> LfsHost:
    return LfsHost(
        access=access,
        links=shelves.links,
        uploads=shelves.uploads,
        linker=shelves.linker,
        locks=shelves.locks,
        secrets=config.secrets(),
        origin=origins.origin,
    )


def _lfs_routes(
    config: Config, shelves: Shelves, pools: Pools, host: LfsHost, prover: Prover, cas: Cas | None
) -> list[Route]:
    door = LfsRoutes(
        host=host,
        store=shelves.store,
        transfer=pools.transfer,
        told=prover.tell,
        policy=Policy(
            upload=config.upload,
            redirect=config.download == "redirect",
            multipart_threshold=config.multipart_threshold,
            part_size=config.part_size,
            max_file=config.max_file,
        ),
        render=Problems("lfs").render,
        refer=None if cas is None else cas.refer,
    )
    return _spoken("lfs", [door])


def _hub_routes(shelves: Shelves, desk: Desk, pools: Pools, auth: Auth, cas: Cas | None) -> list[Route]:
    arrivals = Arrivals(auth=auth, revisions=desk.revisions)
    doors: list[Door] = [
        # First what is asked most: routes are matched in order.
        FileDoor(
            arrivals=arrivals,
            revisions=desk.revisions,
            transfer=pools.transfer,
            held=shelves.links.object_key,
            unpacked=Unpacked(revisions=desk.revisions, store=shelves.store),
            cas=cas,
        ),
        RepoDoor(arrivals=arrivals, revisions=desk.revisions, facts=desk.facts, xet=cas is not None),
        AccountDoor(auth=auth, profiles=Profiles(shelves.database)),
        UsageDoor(auth=auth, usages=Usages(shelves.database, shelves.quotas)),
        ManageDoor(auth=auth, arrivals=arrivals, repos=desk.repos),
        UploadDoor(
            arrivals=arrivals,
            preupload=Preupload(revisions=desk.revisions),
            commits=desk.commits,
            awaiting=desk.awaiting,
        ),
        RefDoor(arrivals=arrivals, branches=desk.branches),
        ListDoor(auth=auth, catalog=desk.catalog, revisions=desk.revisions),
        TreeDoor(arrivals=arrivals, revisions=desk.revisions, cas=cas),
        XetDoor(auth=auth, arrivals=arrivals, copies=desk.copies, cas=cas),
    ]
    return _spoken("hub", doors)


def _git_routes(config: Config, shelves: Shelves, desk: Desk, pools: Pools, auth: Auth) -> list[Route]:
    responses = Responses(shelves.slot.answers, config.pack_cache // 4, pools.builders, memory=32 * _MIB)
    agent = f"weightroom/{version('weightroom')}"
    door = GitDoor(
        auth=auth,
        repositories=shelves.repositories,
        upload_pack=UploadPack(desk.views, responses, agent=agent),
        upload_pack_v0=UploadPackV0(desk.views, responses, agent=agent),
        pushes=Pushes(
            judging=Judging(receiver=desk.receiver, workers=pools.pushers, awaiting=desk.awaiting),
            quarantine=shelves.slot.quarantine,
            limits=push_limits(config),
            agent=agent,
            fsync=config.durable,
        ),
        threads=Threads(config.byte_threads),
    )
    return _spoken("git", [door])


def _spoken(dialect: Dialect, doors: Iterable[Door]) -> list[Route]:
    """Make whatever the doors' routes raise leave in the dialect of the door."""
    problems = Problems(dialect)
    routes = [route for door in doors for route in door.routes()]
    for route in routes:
        route.app = InDialect(route.app, problems)
    return routes
