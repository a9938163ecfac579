"""Xet over HTTP: the content-addressed storage that hf_xet talks to.

    /xet/{domain}/g{generation}/…   what the Hub gave a token for; the token says in whose name
    /xet/blob/{key}                 one range of one stored object; its signature is all it takes
    /v1/telemetry                   what clients tell of themselves, outside the path that they were given

All else below /xet is 404: that is how clients find out what is not spoken here, and fall back.

Source: the CAS specification 1.1.0, and what hf_xet 1.1 to 1.8 does beyond it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lfs import http_range
from lfs.bodies import Json
from lfs.doors import Door, Verbs
from lfs.errors import GrantInvalid, Missing, NeedsLogin, NotAllowed, ObjectAbsent, TooLarge
from lfs.store import ObjectStore, Span
from lfs.transfer import Outgoing, Transfer
from lfs.xet import answers, asked, plan
from lfs.xet.filers import Filers
from lfs.xet.filing import Filing
from lfs.xet.index import File, Leave, Scope, XetIndex
from lfs.xet.places import Place, Places
from lfs.xet.proving import LONGEST
from lfs.xet.tables import Tables
from lfs.xet.taking import Taking
from lfs.xet.tokens import LIFETIME, XetTokens

# A shard is in memory while it is checked, and its thread computes: more at a time would be no faster.
FILERS = 2
# Shards that come in, wait for the filers or are with them: 2 GiB of disk, if all of them are as long as may be.
PLACES = 32
# Commits by grant that are copied, read and proven at a time: clients send up to 64, and others need threads as well.
COMMITTERS = 16
# Of one answer, which takes 30 MB then. Clients make pieces of 512 KiB on the average, and ask for 8 GB at most.
MAX_TERMS = 1 << 16

# How hf_xet wrote these addresses before 1.6 (shards), before 1.3 (all of them), and before 1.1.10 (in the singular).
_FORMER = {
    "/shards": "/v1/shards",
    "/chunks/{prefix}/{hash}": "/v1/chunks/{prefix}/{hash}",
    "/xorbs/{prefix}/{hash}": "/v1/xorbs/{prefix}/{hash}",
    "/reconstructions/{hash}": "/v1/reconstructions/{hash}",
    "/shard/{prefix}/{hash}": "/v1/shards",
    "/chunk/{prefix}/{hash}": "/v1/chunks/{prefix}/{hash}",
    "/xorb/{prefix}/{hash}": "/v1/xorbs/{prefix}/{hash}",
    "/reconstruction/{hash}": "/v1/reconstructions/{hash}",
}
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class XetRoutes:
    """The Xet door of one index and one shelf.

    `origin` tells scheme and authority that the client of a request sees. Large shards wait in `folder`, and `places`
    bounds how many there are at a time. `greet` hears of each token that turns out to be good, and whose it is.
    """

    def __init__(
        self,
        *,
        index: XetIndex,
        store: ObjectStore,
        taking: Taking,
        filing: Filing,
        tables: Tables,
        tokens: XetTokens,
        transfer: Transfer,
        origin: Callable[[Request], str],
        folder: Path | None = None,
        places: Places | None = None,
        greet: Callable[[str, int], None] = lambda token, actor_id: None,
    ) -> None:
        self._index, self._store, self._taking, self._filing = index, store, taking, filing
        self._tables, self._tokens, self._transfer = tables, tokens, transfer
        self._origin, self._folder, self._greet = origin, folder, greet
        self._threads, self._committers = CapacityLimiter(FILERS), CapacityLimiter(COMMITTERS)
        self._places, self._filers = places or Places(PLACES), Filers(FILERS)

    def routes(self) -> list[Route]:
        """The table of routes; the last one takes all that begins like them."""
        at = "/xet/{domain}/g{generation}"
        table: dict[str, Verbs] = {
            "/v1/telemetry": {"POST": self.telemetry},
            "/xet/blob/{key:path}": {"GET": self.blob},
            f"{at}/v1/chunks/{{prefix}}/{{hash}}": {"GET": asked.on_thread(self.chunk)},
            f"{at}/v1/xorbs/{{prefix}}/{{hash}}": {"HEAD": asked.on_thread(self.has_xorb), "POST": self.take_xorb},
            f"{at}/v1/xorb-grants/{{prefix}}/{{hash}}": {"POST": asked.on_thread(self.grant)},
            f"{at}/v1/xorb-commits/{{prefix}}/{{hash}}/grant/{{id}}": {"POST": self.commit},
            f"{at}/v1/shards": {"POST": self.file},
            f"{at}/v2/shards": {"POST": self.follow},
            f"{at}/v1/reconstructions/{{hash}}": {"GET": asked.on_thread(self.reconstruct_1)},
            f"{at}/v2/reconstructions/{{hash}}": {"GET": asked.on_thread(self.reconstruct_2)},
            f"{at}/v1/files/{{hash}}": {"HEAD": asked.on_thread(self.has_file)},
        }
        table |= {at + former: table[at + now] for former, now in _FORMER.items()}
        table["/xet/{rest:path}"] = {"GET": self.absent}
        return [Route(path, Door(verbs, answers.render)) for path, verbs in table.items()]

    def chunk(self, request: Request, body: bytes) -> Response:
        """GET: xorbs around a chunk that this domain has, as a shard with keyed hashes; for those who write."""
        try:
            found = self._around(request)
        except answers.PASSES as error:
            # By this every client sends the chunk at once. hf_xet 1.1 to 1.8 does so after a 429 as well; of other
            # clients that is not known, and one that tried again for minutes would have sent it long before.
            raise ObjectAbsent("There is no time to look for this chunk; send it.") from error
        if found is None:
            raise ObjectAbsent("Nobody marked this chunk; send it.")
        return Response(found, media_type="application/octet-stream")

    def has_xorb(self, request: Request, body: bytes) -> Response:
        """HEAD: the length of a xorb."""
        return answers.length(self._taking.head(self._enter(request, "read"), asked.hash_of(request)))

    async def take_xorb(self, request: Request) -> ASGIApp:
        """POST: take a xorb; 200 after it is proven and durable."""
        leave, hash = await run_in_threadpool(self._enter, request, "write"), asked.hash_of(request)
        length = asked.check_length(request, LONGEST, "xorb")

        def take(source: Iterable[bytes]) -> bool:
            return self._taking.post(leave, hash, source, announced=length)

        inserted = await self._transfer.receive(request.receive, take)
        return answers.said({"was_inserted": inserted})

    def grant(self, request: Request, body: bytes) -> Response:
        """POST: leave to send a xorb to the store itself; 200 if it is here, 404 if it has to come through us."""
        leave = self._writing(request)
        ticket = self._taking.ask_grant(leave, asked.hash_of(request), *asked.announced(body))
        if ticket is None:
            raise ObjectAbsent("This store signs no addresses; send the xorb to this server.")
        if ticket == "stored":
            return answers.said({})
        told: Json = {"id": ticket.id, "method": ticket.method, "url": ticket.url, "headers": dict(ticket.headers)}
        return answers.said(told, 201)

    async def commit(self, request: Request) -> ASGIApp:
        """POST: prove what was sent to the store; 200 after it is live."""
        await asked.small(request.receive)
        inserted = await to_thread.run_sync(self._committed, request, limiter=self._committers)
        return answers.said({"was_inserted": inserted})

    async def file(self, request: Request) -> ASGIApp:
        """POST: file the files of a shard; 200 after all of them are durable."""
        leave = await self._filing_leave(request)
        with self._places.taken(leave.actor_id) as place:
            spool = await place.waiting(self._shard(request))
            inserted = await self._filed(place, leave, spool, lambda verified, total: None)
        return answers.said({"result": int(inserted)})

    async def follow(self, request: Request) -> ASGIApp:
        """POST: file the files of a shard, telling in lines of JSON how far that is."""
        leave = await self._filing_leave(request)
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(self._places.taken(leave.actor_id))
            spool = await place.waiting(self._shard(request))
            return answers.Followed(partial(self._filed, place, leave, spool), done=stack.pop_all().close)

    def reconstruct_1(self, request: Request, body: bytes) -> Response:
        """GET: which chunks of which xorbs make a file or a range of it, and where to fetch each; for older clients."""
        return answers.said(plan.answer_v1(self._planned(request), self._opening(request)))

    def reconstruct_2(self, request: Request, body: bytes) -> Response:
        """GET: which chunks of which xorbs make a file or a range of it, and where to fetch each."""
        return answers.said(plan.answer_v2(self._planned(request), self._opening(request)))

    def has_file(self, request: Request, body: bytes) -> Response:
        """HEAD: the length of a file that this repo links."""
        return answers.length(self._linked(request).size)

    async def blob(self, request: Request) -> ASGIApp:
        """GET: the bytes that a signed address opens, and no others."""
        key, span, expires, signature = asked.signed(request)
        self._tokens.check(key, span, expires, signature)
        # Without its range, or with a condition that may undo it, this would open all of the object.
        if request.headers.get("range") != f"bytes={span.start}-{span.end - 1}" or "if-range" in request.headers:
            raise GrantInvalid("This link opens one range only; send it as the header Range.")
        try:
            size = (await run_in_threadpool(self._store.stat, key)).size
        except Missing as error:
            raise GrantInvalid("What this link was made for lies elsewhere by now; ask for a new one.") from error
        return self._transfer.send(Outgoing(key, size, key.rpartition("/")[2]), redirect=False)

    async def telemetry(self, request: Request) -> ASGIApp:
        """POST: take what a client tells of itself, and forget it."""
        await asked.small(request.receive)
        return answers.said({})

    async def absent(self, request: Request) -> ASGIApp:
        """GET, and any other verb: 404, by which clients find out what is not spoken here."""
        raise ObjectAbsent("Nothing is served at this address.")

    def _committed(self, request: Request) -> bool:
        leave = self._enter(request, "write")
        return self._taking.commit(leave, request.path_params["id"], asked.hash_of(request))

    def _around(self, request: Request) -> bytes | None:
        return self._filing.dedup(self._writing(request), asked.hash_of(request))

    def _writing(self, request: Request) -> Leave:
        """Let nobody who only reads find out what is stored. Raises: ObjectAbsent, and as `_enter`."""
        leave = self._enter(request, "read")
        if leave.scope != "write":
            raise ObjectAbsent("This is answered to those who may write.")
        return leave

    def _enter(self, request: Request, scope: Scope) -> Leave:
        """Return what the token of a request says, if it still holds and is for this. Leave to write is one to read.

        Raises: NeedsLogin, BadToken, NotAllowed, RepoAbsent, ObjectAbsent.
        """
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise NeedsLogin("Send the Xet token that the Hub gave you: Authorization: Bearer xet_….")
        leave = self._tokens.read(token.strip())
        if leave.domain != request.path_params["domain"]:
            raise NotAllowed("This Xet token is for another address; use the one that came with it.")
        if scope == "write" and leave.scope != "write":
            raise NotAllowed("This Xet token is for reading; ask the Hub for one to write.")
        if not _NUMBER.fullmatch(request.path_params["generation"]):
            raise ObjectAbsent("The generation in this address is no number; use the address that came with the token.")
        self._index.enter(leave, int(request.path_params["generation"]))
        if leave.actor_id:
            self._greet(token.strip(), leave.actor_id)
        return leave

    def _linked(self, request: Request) -> File:
        """Return the file of a request. Raises: ObjectAbsent (this repo has none, whatever others have)."""
        file = self._index.find(self._enter(request, "read").repo_id, asked.hash_of(request))
        if file is None:
            raise ObjectAbsent("This repo has no such file; ask the Hub for its hash again.")
        return file

    def _planned(self, request: Request) -> plan.Plan:
        file = self._linked(request)
        pair = http_range.asked(request.headers.get("range"), file.size)
        span = Span(*pair) if pair else None
        if (count := plan.count(file, span)) > MAX_TERMS:
            raise TooLarge(f"This range of the file is in {count} pieces; ask for a shorter one.")
        return plan.plan(file, span, self._index.located, self._tables.load)

    def _opening(self, request: Request) -> plan.UrlOf:
        """Return what signs an address of bytes: the store's own where that binds a range, else one of ours."""
        base = f"{self._origin(request)}/xet/blob"

        def url_of(key: str, span: Span) -> str:
            signed = self._store.url(key, "GET", LIFETIME, span=span)
            return signed.href if signed else f"{base}/{key}?{self._tokens.sign(key, span)}"

        return url_of

    async def _filing_leave(self, request: Request) -> Leave:
        """Look whether a shard may come, before anything of it is read. Raises: as `_enter`, TooLarge, WrongType."""
        leave = await run_in_threadpool(self._enter, request, "write")
        asked.check_length(request, asked.MAX_SHARD, "shard")
        return leave

    async def _shard(self, request: Request) -> IO[bytes]:
        """Take a shard in: into memory if it is small, else into a file until it is its turn."""
        return await self._transfer.receive(request.receive, lambda source: asked.spooled(source, self._folder))

    async def _filed(self, place: Place, leave: Leave, spool: IO[bytes], tell: answers.Tell) -> bool:
        """File a shard when it is its turn. Raises: Busy (the place was lost before), and as `Filing.file`."""
        try:
            await place.waiting(self._filers.turn(leave.actor_id))
        except BaseException:
            spool.close()
            raise
        try:
            return await to_thread.run_sync(_file, self._filing, leave, spool, tell, limiter=self._threads)
        finally:
            self._filers.end(leave.actor_id)


def _file(filing: Filing, leave: Leave, spool: IO[bytes], tell: answers.Tell) -> bool:
    with spool:
        data = spool.read()
    return filing.file(leave, data, tell)
