"""Runs the check of a pushed pack: on this thread when it cannot take long, else in a worker process."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from lfs.errors import HeavyOutOfMemory, HeavyTimeout
from lfs.heavy import Heavy
from registry.git import ingest
from registry.git.bases import BasePack, Bases
from registry.git.cache import PackCache
from registry.git.objects import ManifestStore
from registry.git.revived import with_revived
from registry.git.snapshot import Snapshot
from registry.git.verdict import Job, PackPaths, Verdict


class Checks:
    """Checks packs upon a pinned snapshot. Thread-safe."""

    def __init__(self, *, manifests: ManifestStore, packs: PackCache, heavy: Heavy) -> None:
        self._manifests = manifests
        self._packs = packs
        self._heavy = heavy

    def run(self, snapshot: Snapshot, job: Job) -> Verdict:
        """Check a job upon the packs of a snapshot; the job's own `bases` are filled in here.

        Raises: lfs errors of the store, HeavyCrashed.
        """
        manifest = self._manifests.manifest(snapshot.packs)
        bases = Bases([BasePack(pack.file, pack.intro) for pack in manifest.packs])
        verdict = ingest.check_light(job, bases=bases)
        if verdict is None:
            verdict = self._in_worker(snapshot, job)
        return with_revived(manifest, snapshot, job.updates, verdict)

    def _in_worker(self, snapshot: Snapshot, job: Job) -> Verdict:
        with ExitStack() as held:
            leases = [held.enter_context(self._packs.lease(row)) for row in snapshot.packs]
            paths = tuple(PackPaths(str(lease.pack), str(lease.idx), str(lease.intro)) for lease in leases)
            try:
                return self._heavy.submit(ingest.check, replace(job, bases=paths))
            except HeavyTimeout as error:
                return Verdict(unpack_error=f"the check of the pack took too long: {error.message}")
            except HeavyOutOfMemory as error:
                return Verdict(unpack_error=f"the check of the pack needs too much memory: {error.message}")
