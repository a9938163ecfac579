"""What one process is made of, from the ground up: shelves of rows and bytes, pools of workers, the desk that acts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lfs.heavy import Heavy
from lfs.moving import Moving
from lfs.shelves import open_store
from lfs.store import ObjectStore
from lfs.transfer import Transfer
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from registry.authors import Authors
from registry.awaiting import Awaiting
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
from registry.git.verdict import Limits as PushLimits
from registry.git.view import Views
from registry.linking import Linker
from registry.links import Links
from registry.locks import LockRows
from registry.names import RepoType
from registry.policy import Policy
from registry.publish import Publisher
from registry.quota import Quotas
from registry.receive import Receiver
from registry.repos import Repos
from registry.revisions import Resolved, Revisions
from registry.routes.auth import DoorAccess
from registry.slots import Slot
from registry.upkeep.background import Background
from registry.upkeep.repack import Repack
from registry.uploads import Uploads
from registry.xet_copies import Copies
from registry.xet_following import Following
from registry.xorbs import XetRows

HEAVY_MEMORY = 4 << 30
HEAVY_SECONDS = 600.0
_PUSHES = 16
"""Pushes that are judged at the same time; further ones wait, with their packs in quarantine."""


class Shelves:
    """Rows and bytes of one process, and what reads them; also what `fsck` and `doctor` look at.

    `store` is where `to` and `source` are one while bytes move between them; `source` is None when none move. Files
    that came by Xet lie on it like any object, whether new ones may come that way or not.
    """

    def __init__(self, config: Config) -> None:
        self.database = Database(config.database_url, durable=config.durable)
        self.to = _shelf(config, config.storage_url)
        self.source = _shelf(config, config.storage_from) if config.storage_from else None
        stored = self.to if self.source is None else Moving(to=self.to, source=self.source)
        self.quotas = Quotas(self.database, default=config.quota)
        self.xet = XetRows(self.database, self.quotas, sharing=config.xet_domain)
        self.tables = Tables(stored, memory=config.memory_cache // 8)
        self.store: ObjectStore = WithFiles(stored, self.xet, self.tables)
        self.slot = Slot(config.data)
        self.packs = PackCache(self.store, self.slot.packs, config.pack_cache)
        self.manifests = ManifestStore(self.packs, memory=config.memory_cache // 2)
        self.repositories = Repositories(self.database)
        self.links = Links(self.database)
        self.uploads = Uploads(self.database, self.quotas)
        self.linker = Linker(self.database, self.quotas)
        self.locks = LockRows(self.database)

    def close(self) -> None:
        """Let go of connections and folders; may be repeated."""
        self.database.dispose()
        self.slot.close()


def _shelf(config: Config, url: str) -> ObjectStore:
    return open_store(
        url,
        fsync=config.durable,
        min_free=config.min_free,
        access_key=config.s3_access_key,
        secret_key=config.s3_secret_key,
    )


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
        self.roll_ups = _roll_ups(shelves, pools)
        self.receiver = _receiver(config, shelves, pools, self._published)
        self.awaiting = Awaiting(shelves.uploads.unproven, seconds=config.proof_seconds)
        self.commits = Commits(
            repositories=shelves.repositories,
            manifests=shelves.manifests,
            receiver=self.receiver,
            links=shelves.links,
            uploads=shelves.uploads,
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
        self.copies = Copies(shelves.database, shelves.xet, shelves.links, shelves.linker)
        following = Following(shelves.database, config.xet_domain)
        self.repos = Repos(shelves.database, access, shelves.quotas, start=self.commits.start, following=following)

    def _published(self, repo_id: int) -> None:
        self.roll_ups.tell(repo_id)
        self.catalog.refresh(repo_id)

    def _describe(self, kind: RepoType, repo_id: int, sha: str) -> Facts:
        manifest_version = self._repositories.snapshot(repo_id).manifest_version
        return self.facts.read(kind, Resolved(repo_id, sha, manifest_version))


def _receiver(config: Config, shelves: Shelves, pools: Pools, published: Callable[[int], None]) -> Receiver:
    checks = Checks(manifests=shelves.manifests, packs=shelves.packs, heavy=pools.heavy)
    return Receiver(
        repositories=shelves.repositories,
        policy=Policy(links=shelves.links, locks=shelves.locks, uploads=shelves.uploads, quotas=shelves.quotas),
        publisher=Publisher(shelves.database, shelves.store, shelves.quotas),
        check=checks.run,
        limits=push_limits(config),
        published=published,
    )


def _roll_ups(shelves: Shelves, pools: Pools) -> Background:
    repack = Repack(
        database=shelves.database,
        repositories=shelves.repositories,
        packs=shelves.packs,
        publisher=Publisher(shelves.database, shelves.store, shelves.quotas),
        heavy=pools.heavy,
        folder=shelves.slot.quarantine,
    )
    return Background("roll-up", repack.run)


def push_limits(config: Config) -> PushLimits:
    """Name what one push may bring."""
    return PushLimits(
        pack=config.max_pack, inflated=config.max_inflated, objects=config.max_objects, blob=config.max_blob
    )
