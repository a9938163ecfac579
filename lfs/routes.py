"""Git LFS over HTTP: batch, bytes, verify, locks.

    {repo}/info/lfs/objects/batch, verify, locks…            who asks logs in
    /lfs/o/{oid}, /lfs/part/…, /lfs/complete/…, /lfs/tus/…   a grant of the batch is all it takes

Source: git-lfs docs/api/server-discovery.md, batch.md, basic-transfers.md, locking.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.routing import Route

from lfs import batch
from lfs.actions import Caller
from lfs.bodies import Json
from lfs.byte_routes import ByteRoutes, grant_of
from lfs.choices import Policy
from lfs.doors import Door, Verbs, in_json
from lfs.grants import Grants
from lfs.host import Host, Leave, Operation
from lfs.locks import LockDesk
from lfs.multipart import Multipart
from lfs.problems import Render, render
from lfs.store import ObjectStore
from lfs.transfer import Transfer
from lfs.tus import Tus
from lfs.tus_routes import TusRoutes
from lfs.uploads import Uploads, parse_verify


class LfsRoutes:
    """The Git LFS door of one host and one shelf.

    `told` is called when bytes wait for their proof; `clock` gives Unix seconds; `render` writes refusals, so that a
    host with several doors keeps all errors in one place; `refer` sends clients that speak Xet to where chunks go.
    """

    def __init__(
        self,
        *,
        host: Host,
        store: ObjectStore,
        transfer: Transfer,
        told: Callable[[], None],
        policy: Policy = batch.POLICY,
        clock: Callable[[], float] = time.time,
        render: Render = render,
        refer: batch.Refer | None = None,
    ) -> None:
        self._host, self._render = host, render
        secrets = (host.secret(0), host.secret(1))
        self._grants = Grants([secret for secret in secrets if secret is not None], clock)
        self._batch = batch.Batch(host=host, store=store, grants=self._grants, policy=policy, refer=refer)
        self._uploads = Uploads(host=host, store=store, told=told)
        self._bytes = ByteRoutes(
            host=host,
            grants=self._grants,
            transfer=transfer,
            uploads=self._uploads,
            multipart=Multipart(host=host, store=store, told=told),
        )
        tus = Tus(host=host, store=store, told=told)
        self._tus = TusRoutes(grants=self._grants, transfer=transfer, tus=tus)
        self._locks = LockDesk(host=host)

    def batch(self, request: Request, body: bytes) -> Json:
        """POST: say what to move, and where."""
        asked = batch.parse(body)
        leave = self._enter(request, asked.operation)
        base = self._host.base_url(request.headers, request.url.scheme)
        caller = Caller(base, request.path_params["repo"], request.headers.get("user-agent", ""))
        return self._batch.answer(asked, leave, caller)

    def verify(self, request: Request, body: bytes) -> Json:
        """POST: confirm that an object has arrived; by its grant, or by the right to write."""
        told = parse_verify(body)
        if "grant" in request.query_params:
            self._uploads.verify(self._grants.read(grant_of(request), "verify", told.oid), told.size)
        else:
            self._uploads.confirm(self._enter(request, "write").repo_id, told.oid, told.size)
        return {}

    def list_locks(self, request: Request, body: bytes) -> Json:
        """GET: a page of locks."""
        return self._locks.list(self._enter(request, "read"), request.query_params)

    def create_lock(self, request: Request, body: bytes) -> Json:
        """POST: take a lock."""
        return self._locks.create(self._enter(request, "write"), body)

    def verify_locks(self, request: Request, body: bytes) -> Json:
        """POST: the locks that a push has to respect, split by owner."""
        return self._locks.verify(self._enter(request, "write"), body)

    def unlock(self, request: Request, body: bytes) -> Json:
        """POST: give up a lock."""
        return self._locks.remove(self._enter(request, "write"), request.path_params["lock_id"], body)

    def routes(self) -> list[Route]:
        """The table of routes; `{repo}` may end in `.git` and begin with `datasets/` or `spaces/`."""
        at = "/{repo:path}/info/lfs"
        locks: Verbs = {"GET": in_json(self.list_locks), "POST": in_json(self.create_lock, status=201)}
        table: dict[str, Verbs] = {
            "/lfs/o/{oid}": self._bytes.objects(),
            "/lfs/part/{upload}/{number}": self._bytes.parts(),
            "/lfs/complete/{upload}": self._bytes.completion(),
            f"{at}/objects/batch": {"POST": in_json(self.batch)},
            f"{at}/verify": {"POST": in_json(self.verify)},
            f"{at}/locks": locks,
            f"{at}/locks/verify": {"POST": in_json(self.verify_locks)},
            f"{at}/locks/{{lock_id}}/unlock": {"POST": in_json(self.unlock)},
            at: {},
        }
        routes = [Route(path, Door(verbs, self._render)) for path, verbs in table.items()]
        return [*routes, Route("/lfs/tus/{upload}", self._tus.door(self._render))]

    def _enter(self, request: Request, operation: Operation) -> Leave:
        repo: str = request.path_params["repo"]
        return self._host.enter(request.headers, repo.removesuffix(".git"), operation)
