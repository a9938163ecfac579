"""Settings → application: the only wiring. Reads from the ground up: shelves, desk, doors, front."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Protocol

from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import Lifespan

from lfs.heavy import Heavy
from lfs.routes import LfsRoutes
from lfs.shelves import open_store
from lfs.store import ObjectStore
from lfs.transfer import Transfer
from registry.access import Actor
from registry.authors import Authors
from registry.branches import Branches
from registry.cards import Facts
from registry.catalog import Catalog
from registry.checks import Checks
from registry.commits import Commits
from registry.config import Config
from registry.db import Database
from registry.draft import DraftLimits
from registry.facts import FactReader
from registry.git.cache import PackCache
from registry.git.objects import ManifestStore
from registry.git.repository import Repositories
from registry.git.responses import Responses
from registry.git.upload_pack import UploadPack
from registry.git.upload_pack_v0 import UploadPackV0
from registry.git.verdict import Limits as PushLimits
from registry.git.view import Views
from registry.limits import Limits
from registry.links import Links
from registry.locks import LockRows
from registry.names import RepoType
from registry.policy import Policy
from registry.preupload import Preupload
from registry.profiles import Profiles
from registry.publish import Publisher
from registry.receive import Receiver
from registry.repos import Repos
from registry.revisions import Resolved, Revisions
from registry.routes.auth import Auth, DoorAccess, fingerprint
from registry.routes.blocks import Threads
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
from registry.routes.lfs import LfsHost
from registry.routes.meter import Meter
from registry.routes.ops import OpsDoor
from registry.routes.problems import Dialect, InDialect, Problems, WrongVerbs
from registry.routes.pushes import Pushes
from registry.slots import Slot
from registry.unpacked import Unpacked
from registry.upkeep.background import Background
from registry.upkeep.repack import Repack

HEAVY_MEMORY = 4 << 30
HEAVY_SECONDS = 600.0
_MIB = 1 << 20
_EXPOSED = [
    "X-Repo-Commit",
    "X-Linked-Etag",
    "X-Linked-Size",
    "X-Total-Count",
    "X-Error-Code",
    "X-Error-Message",
    "X-Request-Id",
    "ETag",
    "Link",
    "Content-Range",
    "RateLimit",
    "RateLimit-Policy",
]
_PUSHES = 16
"""Pushes that are judged at the same time; further ones wait, with their packs in quarantine."""


class Door(Protocol):
    """A class of endpoints."""

    def routes(self) -> list[Route]:
        """Name them."""


class Shelves:
    """Rows and bytes of one process, and what reads them; also what `fsck` and `doctor` look at."""

    def __init__(self, config: Config) -> None:
        self.database = Database(config.database_url)
        self.store: ObjectStore = open_store(
            config.storage_url,
            fsync=config.durable,
            min_free=config.min_free,
            access_key=config.s3_access_key,
            secret_key=config.s3_secret_key,
        )
        self.slot = Slot(config.data)
        self.packs = PackCache(self.store, self.slot.packs, config.pack_cache)
        self.manifests = ManifestStore(self.packs, memory=config.memory_cache // 2)
        self.repositories = Repositories(self.database)
        self.links = Links(self.database)
        self.locks = LockRows(self.database)

    def close(self) -> None:
        """Let go of connections and folders; may be repeated."""
        self.database.dispose()
        self.slot.close()


class Pools:
    """Threads and processes of one server, each for its own kind of work."""

    def __init__(self, config: Config, store: ObjectStore) -> None:
        self.heavy = Heavy(workers=config.heavy, memory_bytes=HEAVY_MEMORY, deadline=HEAVY_SECONDS)
        self.builders = ThreadPoolExecutor(max_workers=2 * config.heavy, thread_name_prefix="fetch")
        self.pushers = ThreadPoolExecutor(max_workers=_PUSHES, thread_name_prefix="push")
        self.transfer = Transfer(
            store=store,
            threads=config.byte_threads,
            upload_slots=config.upload_slots,
            redirect=config.download == "redirect",
        )

    def close(self) -> None:
        """Finish the pushes that are being judged, and stop all other work."""
        self.builders.shutdown(wait=False, cancel_futures=True)
        self.pushers.shutdown()
        self.heavy.close()


class Desk:
    """What acts on the shelves, for every door."""

    def __init__(self, config: Config, shelves: Shelves, pools: Pools, access: DoorAccess) -> None:
        self.views = Views(shelves.manifests)
        self.revisions = Revisions(
            repositories=shelves.repositories,
            manifests=shelves.manifests,
            views=self.views,
            memory=config.memory_cache // 4,
        )
        self.facts = FactReader(revisions=self.revisions, held=shelves.links.object_key, store=shelves.store)
        self.catalog = Catalog(shelves.database, describe=self._describe, anonymous_read=config.anonymous_read)
        self._repositories = shelves.repositories
        authors = Authors(shelves.database)
        checks = Checks(manifests=shelves.manifests, packs=shelves.packs, heavy=pools.heavy)
        self.roll_ups = _roll_ups(shelves, pools)
        self.receiver = Receiver(
            repositories=shelves.repositories,
            policy=Policy(shelves.links, shelves.locks),
            publisher=Publisher(shelves.database, shelves.store),
            check=checks.run,
            limits=_push_limits(config),
            published=self._published,
        )
        self.commits = Commits(
            repositories=shelves.repositories,
            manifests=shelves.manifests,
            receiver=self.receiver,
            links=shelves.links,
            authors=authors,
            quarantine=shelves.slot.quarantine,
            limits=DraftLimits(file=config.max_blob),
        )
        self.branches = Branches(
            repositories=shelves.repositories,
            manifests=shelves.manifests,
            revisions=self.revisions,
            receiver=self.receiver,
            authors=authors,
            quarantine=shelves.slot.quarantine,
        )
        self.repos = Repos(shelves.database, access, start=self.commits.start)

    def _published(self, repo_id: int) -> None:
        self.roll_ups.tell(repo_id)
        self.catalog.refresh(repo_id)

    def _describe(self, kind: RepoType, repo_id: int, sha: str) -> Facts:
        manifest_version = self._repositories.snapshot(repo_id).manifest_version
        return self.facts.read(kind, Resolved(repo_id, sha, manifest_version))


def _roll_ups(shelves: Shelves, pools: Pools) -> Background:
    repack = Repack(
        database=shelves.database,
        repositories=shelves.repositories,
        packs=shelves.packs,
        publisher=Publisher(shelves.database, shelves.store),
        heavy=pools.heavy,
        folder=shelves.slot.quarantine,
    )
    return Background("roll-up", repack.run)


def build(config: Config, *, draining: threading.Event | None = None) -> Starlette:
    """Wire a server; `draining` turns its readiness off. Nothing is listened on yet.

    Raises: ConfigError (the secret), lfs errors (the store cannot be opened).
    """
    limits = Limits(
        {"api": config.limit_api, "resolve": config.limit_resolve, "git": config.limit_git, "lfs": config.limit_lfs}
    )
    meter = Meter()
    origins = Origins(config.public_url, config.trusted_proxies)
    shelves = Shelves(config)

    def greet(token: str, actor: Actor) -> None:
        if actor.user_id is not None:
            limits.know(fingerprint(token), actor.user_id)

    access = DoorAccess(shelves.database, anonymous_read=config.anonymous_read, greet=greet)
    pools = Pools(config, shelves.store)
    desk = Desk(config, shelves, pools, access)
    ops = OpsDoor(
        database=shelves.database,
        store=shelves.store,
        meter=meter,
        version=version("weightroom"),
        draining=draining or threading.Event(),
    )
    routes = [
        *ops.routes(),
        *_hub_routes(shelves, desk, pools, Auth(access)),
        *_lfs_routes(config, shelves, pools, access, origins),
        *_git_routes(config, shelves, desk, pools, Auth(access)),
    ]

    front = Middleware(Front, origins=origins, limits=limits, meter=meter)
    app = Starlette(
        routes=routes,
        middleware=[front, *_cors(config)],
        exception_handlers={405: WrongVerbs(routes)},
        lifespan=_lifespan(config, shelves, pools, desk),
    )
    # A redirect to the same path with a slash more or less costs clients their Authorization header.
    app.router.redirect_slashes = False
    return app


def _lifespan(config: Config, shelves: Shelves, pools: Pools, desk: Desk) -> Lifespan[Starlette]:
    @contextlib.asynccontextmanager
    async def run(app: Starlette) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = config.threads
        yield
        desk.roll_ups.close()
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
            allow_headers=["Authorization", "Content-Type", "Range", "If-None-Match"],
            expose_headers=_EXPOSED,
            max_age=86_400,
        )
    ]


def _lfs_routes(config: Config, shelves: Shelves, pools: Pools, access: DoorAccess, origins: Origins) -> list[Route]:
    host = LfsHost(
        access=access,
        links=shelves.links,
        locks=shelves.locks,
        secrets=config.secrets(),
        origin=origins.origin,
    )
    door = LfsRoutes(
        host=host,
        store=shelves.store,
        transfer=pools.transfer,
        max_file=config.max_file,
        render=Problems("lfs").render,
    )
    return _spoken("lfs", [door])


def _hub_routes(shelves: Shelves, desk: Desk, pools: Pools, auth: Auth) -> list[Route]:
    arrivals = Arrivals(auth=auth, revisions=desk.revisions)
    doors: list[Door] = [
        # First what is asked most: routes are matched in order.
        FileDoor(
            arrivals=arrivals,
            revisions=desk.revisions,
            transfer=pools.transfer,
            held=shelves.links.object_key,
            unpacked=Unpacked(revisions=desk.revisions, store=shelves.store),
        ),
        RepoDoor(arrivals=arrivals, revisions=desk.revisions, facts=desk.facts),
        AccountDoor(auth=auth, profiles=Profiles(shelves.database)),
        ManageDoor(auth=auth, arrivals=arrivals, repos=desk.repos),
        UploadDoor(arrivals=arrivals, preupload=Preupload(revisions=desk.revisions), commits=desk.commits),
        RefDoor(arrivals=arrivals, branches=desk.branches),
        ListDoor(auth=auth, catalog=desk.catalog, revisions=desk.revisions),
        TreeDoor(arrivals=arrivals, revisions=desk.revisions),
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
            receiver=desk.receiver,
            quarantine=shelves.slot.quarantine,
            limits=_push_limits(config),
            workers=pools.pushers,
            agent=agent,
            fsync=config.durable,
        ),
        threads=Threads(config.byte_threads),
    )
    return _spoken("git", [door])


def _push_limits(config: Config) -> PushLimits:
    return PushLimits(
        pack=config.max_pack, inflated=config.max_inflated, objects=config.max_objects, blob=config.max_blob
    )


def _spoken(dialect: Dialect, doors: Iterable[Door]) -> list[Route]:
    """Make whatever the doors' routes raise leave in the dialect of the door."""
    problems = Problems(dialect)
    routes = [route for door in doors for route in door.routes()]
    for route in routes:
        route.app = InDialect(route.app, problems)
    return routes
