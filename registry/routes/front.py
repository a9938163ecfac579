"""The front of every door: request id, log line, security headers, origin, rate buckets, refusal of odd paths.

Plain ASGI, around the whole application. What it learns stands in `scope["state"]`: `request_id`, `origin`, `client`.
With a public URL that has a path, the path is taken off each request here and stands in `origin`: no room behind knows
of it. The log line has neither the query nor any header, where tokens might be.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.errors import BadPath, BadToken, ObjectAbsent, RateLimited, RegistryError
from registry.limits import Limits, Reading
from registry.routes.auth import fingerprint, token_of
from registry.routes.meter import Meter, Seen
from registry.routes.problems import Dialect, Problems

log = logging.getLogger("registry.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_GIT = ("/info/refs", "/git-upload-pack", "/git-receive-pack")
# Objects themselves are left out: the clients that send parts of them do not come back after a 429.
_LFS = re.compile(r"/info/lfs/(objects/batch|verify|locks.*)\Z")
# What brings or fetches the bytes themselves is bounded where it is taken: by slots, places and signatures.
_XET_BYTES = re.compile(r"POST /xet/[^/]+/g[^/]+/(v[0-9]/)?(xorb|shard)s?(/.*)?|[A-Z]+ /xet/blob/.*", re.DOTALL)
_XET_CHUNK = re.compile(r"/xet/[^/]+/g[^/]+/(v[0-9]/)?chunks?/")
_QUIET = frozenset({"/health", "/ready", "/metrics"})
# An answer that already says otherwise keeps its own word.
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"same-site"),
)


class Origins:
    """Derives from a request what the client sees as scheme, host, port and prefix, and who the client is.

    Forwarded headers count only from `trusted` peers; with a `public_url` the origin is always that, its path included.
    """

    def __init__(self, public_url: str | None, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._public_url = public_url
        self._trusted = tuple(trusted)
        self._prefix = [] if public_url is None else public_url.split("/")[3:]

    def origin(self, headers: Mapping[str, str], scheme: str, peer: str | None = None) -> str:
        """Return the origin without a slash at the end; `peer` is the address that the connection comes from."""
        if self._public_url is not None:
            return self._public_url
        host = headers.get("host", "")
        if peer is not None and self.trusts(peer):
            scheme = _last(headers.get("x-forwarded-proto")) or scheme
            host = _last(headers.get("x-forwarded-host")) or host
        if not _HOST.fullmatch(host) or scheme not in ("http", "https"):
            return "http://localhost"
        return f"{scheme}://{host}"

    def within(self, raw: str, headers: Mapping[str, str], peer: str) -> str:
        """Return a raw path as it stands below the prefix of the public URL.

        A proxy may have taken the prefix off or left it. Only where a repo's own address begins with the same word
        are the two alike; a trusted proxy that has taken it off says so with `X-Forwarded-Prefix`.
        """
        count = len(self._prefix)
        parts = raw.split("/")
        if not count or [unquote(part) for part in parts[1 : count + 1]] != self._prefix:
            return raw
        if self.trusts(peer) and _last(headers.get("x-forwarded-prefix")).strip("/") == "/".join(self._prefix):
            return raw
        return "/" + "/".join(parts[count + 1 :])

    def client(self, headers: Mapping[str, str], peer: str) -> str:
        """Return the client's address: the last hop that is not a proxy of ours."""
        if not self.trusts(peer):
            return peer
        for hop in reversed(headers.get("x-forwarded-for", "").split(",")):
            try:
                address = str(ip_address(hop.strip()))
            except ValueError:
                break
            if not self.trusts(address):
                return address
        return peer

    def trusts(self, peer: str) -> bool:
        """True if forwarded headers from this address are believed."""
        if not self._trusted:
            return False
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


class Front:
    """Stands before every route; see the module."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        origins: Origins,
        limits: Limits,
        meter: Meter,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._origins = origins
        self._limits = limits
        self._meter = meter
        self._ticks = ticks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on what is no request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = (scope.get("client") or ("", 0))[0]
        state = scope.setdefault("state", {})
        state["request_id"] = scope["request_id"] = _request_id(headers)
        state["origin"] = self._origins.origin(headers, scope["scheme"], peer)
        state["client"] = self._origins.client(headers, peer)
        _settle(scope, state["origin"])
        self._descend(scope, headers, peer)
        reading = self._reading(scope, headers, state["client"])
        answer = _Answer(send, state["request_id"], reading)
        began = self._ticks()
        self._meter.begin()
        try:
            await self._serve(scope, receive, answer, reading)
        finally:
            self._tell(scope, answer, self._ticks() - began)

    def _descend(self, scope: Scope, headers: Headers, peer: str) -> None:
        """Take the prefix off both forms of the path."""
        raw = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0].decode("latin-1")
        found = self._origins.within(raw, headers, peer)
        if found != raw:
            scope["path"] = scope["path"][len(unquote(raw.removesuffix(found))) :] or "/"
            scope["raw_path"] = found.encode("latin-1")

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer, reading: Reading | None) -> None:
        refusal: Response | None = None
        if reading is not None and reading.refused:
            refusal = _refused(_too_many(reading, scope["path"]), scope)
        elif _odd(scope):
            refusal = _refused(BadPath("The path has empty, dotted or control-character parts."), scope)
        try:
            await (refusal or self._app)(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception:
            log.exception("request %s failed outside every door", scope["state"]["request_id"])
            if answer.whole:
                return
            if answer.status:
                raise
            text = f"The server failed; its log has more under request id {scope['state']['request_id']}.\n"
            await PlainTextResponse(text, 500)(scope, receive, answer)

    def _reading(self, scope: Scope, headers: Headers, client: str) -> Reading | None:
        bucket = bucket_of(scope["path"], scope["method"])
        if bucket is None:
            return None
        try:
            token = token_of(headers)
        except BadToken:
            token = None
        return self._limits.take(bucket, client, None if token is None else fingerprint(token))

    def _tell(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "")
        # 499 is what nginx logs for a client that left before its answer.
        seen = Seen(scope["method"], route, scope["path"], answer.status or 499, seconds, answer.sent)
        self._meter.end(seen)
        if seen.path not in _QUIET:
            log.info("%s", _Line(scope, seen))


class _Line:
    """A log line, written only when a handler asks for it."""

    def __init__(self, scope: Scope, seen: Seen) -> None:
        self._scope = scope
        self._seen = seen

    def __str__(self) -> str:
        """Write one JSON object."""
        seen, state = self._seen, self._scope["state"]
        line = {
            "id": state["request_id"],
            "method": seen.method,
            "path": seen.path,
            "status": seen.status,
            "bytes": seen.sent,
            "ms": round(seen.seconds * 1000, 1),
            "client": state["client"],
        }
        trace = Headers(scope=self._scope).get("x-amzn-trace-id", "")
        if _REQUEST_ID.fullmatch(trace):
            line["trace"] = trace
        return json.dumps(line)


class _Answer:
    """Sends on, adding headers and counting."""

    def __init__(self, send: Send, request_id: str, reading: Reading | None) -> None:
        self._send = send
        self._id = request_id
        self._reading = reading
        self.status = 0
        self.sent = 0
        self.whole = False

    async def __call__(self, message: Message) -> None:
        """Send one message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], *self._more(message["headers"])]
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
        elif message["type"] == "http.response.zerocopysend":
            self.sent += message["count"]
            self.whole = not message.get("more_body", False)
        await self._send(message)

    def _more(self, present: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        names = {name.lower() for name, _ in present}
        added = [(name, value) for name, value in _SAFE if name not in names]
        if b"x-request-id" not in names:
            added.append((b"x-request-id", self._id.encode()))
        if self._reading is not None:
            found = [(name.encode(), text.encode()) for name, text in self._reading.headers()]
            # A chunk that is not looked for is 404, and not to be asked for again.
            again = self.status == 429
            added += [(name, text) for name, text in found if name not in names and (again or name != b"retry-after")]
        return added


def _settle(scope: Scope, origin: str) -> None:
    """Make scheme and Host of the request those of its origin, so that no room behind derives another one."""
    scheme, _, rest = origin.partition("://")
    host = rest.partition("/")[0]
    scope["scheme"] = scheme
    others = [pair for pair in scope["headers"] if pair[0] != b"host"]
    scope["headers"] = [(b"host", host.encode()), *others]


_DIALECTS: Mapping[str, Dialect] = {"api": "hub", "resolve": "hub", "xet": "hub", "lfs": "lfs", "git": "git"}


def bucket_of(path: str, method: str = "GET") -> str | None:
    """Say which rate bucket a request counts in; None for what is never limited."""
    if path.startswith("/api/"):
        return "api"
    if path.startswith("/xet/"):
        return None if _XET_BYTES.fullmatch(f"{method} {path}") else "xet"
    if _LFS.search(path):
        return "lfs"
    if path.endswith(_GIT):
        return "git"
    return "resolve" if "/resolve/" in path else None


def _too_many(reading: Reading, path: str) -> RegistryError:
    if _XET_CHUNK.match(path):
        # Whoever asks for a chunk is uploading: told that it is not here they send it, told to wait they may give up.
        return ObjectAbsent("There is no time to look for this chunk; send it.")
    text = (
        f"Too many requests: {reading.quota} in {reading.seconds} s are used up; come back then, "
        f"or raise WEIGHTROOM_LIMIT_{reading.bucket.upper()}."
    )
    return RateLimited(text, retry_after=reading.seconds)


def _refused(error: RegistryError, scope: Scope) -> Response:
    """Refuse in the dialect of the door that the path would have led to."""
    bucket = bucket_of(scope["path"], scope["method"])
    dialect = "plain" if bucket is None else _DIALECTS[bucket]
    return Problems(dialect).render(error, Request(scope))


def _odd(scope: Scope) -> bool:
    """True for paths that proxies and file systems read in more than one way."""
    path: str = scope["path"]
    parts = path.split("/")[1:]
    return (
        not path.startswith("/")
        or any(character < " " or character == "\x7f" for character in path)
        or "\\" in path
        or any(part in (".", "..") for part in parts)
        or "" in parts[:-1]
    )


def _request_id(headers: Headers) -> str:
    found = headers.get("x-request-id", "")
    # A name to look for in a log, no secret: asking the system for its bytes would let other threads go first.
    return found if _REQUEST_ID.fullmatch(found) else f"{random.getrandbits(128):032x}"


def _last(header: str | None) -> str:
    return "" if header is None else header.rpartition(",")[2].strip()
