"""upload-pack, protocol versions 0 and 1: for old clients, JGit and dulwich.

Over HTTP every request tells everything again: wants with capabilities, the depth, a flush, haves, `done`.
Source: gitprotocol-pack, gitprotocol-http.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from registry.errors import BadBody, RegistryError
from registry.git import pkt
from registry.git.fetch import Fetch, Wishes, framed, parse_oid
from registry.git.pkt import Buffer, Mark, PktReader, chomp
from registry.git.responses import Responses
from registry.git.snapshot import ZERO, Snapshot
from registry.git.view import View, Views

_CAPABILITIES = (
    b"multi_ack multi_ack_detailed no-done thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not "
    b"deepen-relative no-progress include-tag allow-tip-sha1-in-want allow-reachable-sha1-in-want filter "
    b"object-format=sha1"
)
_KNOWN = frozenset(name.partition(b"=")[0] for name in _CAPABILITIES.split()) | {b"agent", b"session-id"}
_OLD_SIDE_BAND = 995


class UploadPackV0:
    """Answers version 0 requests. Thread-safe, synchronous; what it returns is made while it is read."""

    def __init__(self, views: Views, responses: Responses, *, agent: str) -> None:
        self._views = views
        self._responses = responses
        self._agent = b"agent=" + agent.encode()

    def advertisement(self, snapshot: Snapshot, *, version: int = 0) -> Iterator[bytes]:
        """List the shown refs; the first line carries the capabilities. Version 1 says its number first."""
        view = self._views.view(snapshot)
        head = view.refs.get(snapshot.head)
        capabilities = [_CAPABILITIES, self._agent]
        lines: list[bytes] = []
        if head is not None:
            capabilities.insert(1, b"symref=HEAD:" + snapshot.head)
            lines.append(head.target.encode() + b" HEAD")
        for ref in view.refs.values():
            lines.append(ref.target.encode() + b" " + ref.name)
            if ref.peeled:
                lines.append(ref.peeled.encode() + b" " + ref.name + b"^{}")
        lines = lines or [ZERO.encode() + b" capabilities^{}"]
        lines[0] += b"\0" + b" ".join(capabilities)
        first = [pkt.encode(b"version 1\n")] if version == 1 else []
        yield b"".join([*first, *(pkt.encode(line + b"\n") for line in lines), pkt.FLUSH])

    def serve(self, snapshot: Snapshot, body: Iterable[bytes]) -> Iterator[bytes]:
        """Answer one request; never raises for what a client sent."""
        try:
            packets = PktReader(body)
            asked = _Asked(self._views.view(snapshot), packets)
            if not asked.wishes.wants:
                return
            answer, goes_on = asked.negotiate(packets)
        except RegistryError as error:
            yield pkt.encode(b"ERR " + error.message.encode()[:60_000])
            return
        yield answer
        if goes_on:
            yield from asked.pack(self._responses)


class _Asked:
    """The wants of one request, then its haves."""

    def __init__(self, view: View, packets: PktReader) -> None:
        self.view = view
        self.wishes = Wishes()
        self.capabilities: frozenset[bytes] = frozenset()
        self._read_wants(packets)

    def _read_wants(self, packets: PktReader) -> None:
        for packet in packets:
            if packet is Mark.FLUSH:
                break
            if isinstance(packet, Mark):
                raise BadBody("unexpected packet among the wants")
            line = chomp(packet)
            if line.startswith(b"want ") and not self.wishes.wants:
                line = self._first_want(line)
            if line.startswith((b"have ", b"done")) or not self.wishes.take(line):
                raise BadBody(f"git upload-pack: protocol error, expected to get oid, not '{line[:60]!r}'")
        self.wishes.relative = b"deepen-relative" in self.capabilities
        self.fetch = Fetch(self.view, self.wishes)

    def _first_want(self, line: bytes) -> bytes:
        """Take the capabilities off the first want."""
        names = line[45:].split()
        self.capabilities = frozenset(names)
        for name in names:
            if name.partition(b"=")[0] not in _KNOWN:
                raise BadBody(f"unknown capability '{name.decode('utf-8', 'replace')[:60]}'")
        return line[:45]

    def negotiate(self, packets: PktReader) -> tuple[bytes, bool]:
        """Answer depth and haves; also say whether the pack follows."""
        lines = self.fetch.shallow_lines() if self.fetch.depth else []
        answer = [pkt.encode(line) for line in lines]
        if self.fetch.depth:
            answer.append(pkt.FLUSH)
        talk = _Talk(self.fetch, self.capabilities)
        goes_on = talk.run(packets)
        return b"".join(answer + talk.said), goes_on

    def pack(self, responses: Responses) -> Iterator[bytes]:
        """Yield the pack, framed as the client can read it."""
        # The haves came after the wants were checked: check again, now with them.
        fetch = Fetch(self.view, self.wishes)
        has = self.capabilities
        blocks = fetch.blocks(responses, thin=b"thin-pack" in has, ofs=b"ofs-delta" in has, tags=b"include-tag" in has)
        if b"side-band-64k" in has:
            return framed(blocks)
        if b"side-band" in has:
            return framed(blocks, payload=_OLD_SIDE_BAND)
        return _raw(blocks)


class _Talk:
    """The exchange of haves and acknowledgments, of one request."""

    def __init__(self, fetch: Fetch, capabilities: frozenset[bytes]) -> None:
        self._fetch = fetch
        self._detailed = b"multi_ack_detailed" in capabilities
        self._multi = self._detailed or b"multi_ack" in capabilities
        self._no_done = b"no-done" in capabilities
        self._common: list[bytes] = []
        self._judged = 0
        self._enough = False
        self._strangers = False
        self.said: list[bytes] = []

    def run(self, packets: PktReader) -> bool:
        """Read haves; True if the pack follows, False if the client must ask again."""
        for packet in packets:
            if packet is Mark.FLUSH:
                return self._at_flush()
            line = b"" if isinstance(packet, Mark) else chomp(packet)
            if line == b"done":
                if self._common and self._multi:
                    self._say(b"ACK", self._common[-1])
                elif not self._common:
                    self.said.append(pkt.encode(b"NAK\n"))
                return True
            if not line.startswith(b"have "):
                raise BadBody(f"git upload-pack: expected SHA1 list, got '{line[:60]!r}'")
            self._have(parse_oid(line[5:]))
            self._fetch.wishes.take(line)
        return False

    def _have(self, id: bytes) -> None:
        if not self._fetch.view.has_commit(id):
            self._strangers = True
            if self._multi and self._ready():
                self._say(b"ACK", id, b" ready" if self._detailed else b" continue")
            return
        self._common.append(id)
        if self._multi:
            self._say(b"ACK", id, b" common" if self._detailed else b" continue")
        elif len(self._common) == 1:
            self._say(b"ACK", id)

    def _at_flush(self) -> bool:
        ready = self._detailed and bool(self._common) and not self._strangers and self._ready()
        if ready:
            self._say(b"ACK", self._common[-1], b" ready")
        if self._multi or not self._common:
            self.said.append(pkt.encode(b"NAK\n"))
        if ready and self._no_done:
            self._say(b"ACK", self._common[-1])
            return True
        return False

    def _ready(self) -> bool:
        """Tell whether what is common is enough; walked anew only after something new became common."""
        if not self._enough and len(self._common) > self._judged:
            self._judged = len(self._common)
            self._enough = self._fetch.view.graph.all_reach(self._fetch.wishes.wants, self._common)
        return self._enough

    def _say(self, word: bytes, id: bytes, rest: bytes = b"") -> None:
        self.said.append(pkt.encode(word + b" " + id.hex().encode() + rest + b"\n"))


def _raw(blocks: Iterator[Buffer]) -> Iterator[bytes]:
    return (bytes(block) for block in blocks if block)
