"""upload-pack, protocol version 2: ls-refs, fetch and object-info over one view.

    command=<name>  capabilities…  0001  arguments…  0000

A refusal is one `ERR` packet; once the pack runs, channel 3. What lies outside the shown refs' reach is neither
served nor acknowledged, not even by a `have`: that would tell strangers what a repo holds.
Source: gitprotocol-v2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lfs.recent import Recent
from registry.errors import BadBody, RegistryError
from registry.git import pkt
from registry.git.fetch import Fetch, Wishes, framed, parse_oid
from registry.git.pkt import Mark, PktReader, chomp
from registry.git.responses import Responses
from registry.git.snapshot import Ref, Snapshot
from registry.git.view import View, Views

_MOST_PREFIXES = 65_536
_MOST_LINES = 400_000
_CAPABILITIES = (
    b"ls-refs=unborn",
    b"fetch=shallow wait-for-done filter ref-in-want sideband-all",
    b"server-option",
    b"object-format=sha1",
    b"object-info",
)
_KNOWN = frozenset((b"agent", b"server-option", b"object-format", b"session-id"))
_FLAGS = frozenset((b"thin-pack", b"ofs-delta", b"no-progress", b"include-tag", b"sideband-all", b"wait-for-done"))
Answer = Iterator[bytes]


class UploadPack:
    """Answers version 2 requests. Thread-safe, synchronous; what it returns is made while it is read."""

    def __init__(self, views: Views, responses: Responses, *, agent: str) -> None:
        self._views = views
        self._responses = responses
        self._agent = b"agent=" + agent.encode()
        self._listings: Recent[tuple[object, ...], bytes] = Recent(16 << 20)
        self._commands: dict[bytes, Callable[[View, list[bytes]], Answer]] = {
            b"ls-refs": self._ls_refs,
            b"fetch": self._fetch,
            b"object-info": self._object_info,
        }

    def advertisement(self) -> bytes:
        """Tell what this server can do; the same for every repo."""
        lines = (b"version 2", self._agent, *_CAPABILITIES)
        return b"".join(pkt.encode(line + b"\n") for line in lines) + pkt.FLUSH

    def serve(self, snapshot: Snapshot, body: Iterable[bytes]) -> Answer:
        """Answer one request; an empty one gets an empty answer.

        Yields bytes; never raises for what a client sent.
        """
        try:
            request = _parse(body)
            answer = self._commands[request.command](self._views.view(snapshot), request.arguments) if request else ()
            pieces = iter(answer)
            first = next(pieces, b"")
        except RegistryError as error:
            yield pkt.encode(b"ERR " + error.message.encode()[:60_000])
            return
        yield first
        yield from pieces

    def _ls_refs(self, view: View, arguments: list[bytes]) -> Answer:
        snapshot = view.snapshot
        key = (snapshot.repo_id, snapshot.refs_version, snapshot.head, *arguments)
        kept = self._listings.get(key)
        if kept is None:
            kept = b"".join(pkt.encode(line + b"\n") for line in _listing(view, arguments)) + pkt.FLUSH
            self._listings.keep(key, kept, len(kept) + sum(map(len, arguments)) + 500)
        yield kept

    def _fetch(self, view: View, arguments: list[bytes]) -> Answer:
        asked = _FetchArguments.parse(view, arguments)
        section = _Sections(sideband=b"sideband-all" in asked.flags)
        waits = b"wait-for-done" in asked.flags
        if not asked.wishes.wants and not (waits and asked.wishes.haves):
            yield pkt.FLUSH
            return
        fetch = Fetch(view, asked.wishes)
        if asked.wishes.haves and not asked.wishes.done:
            ready = not waits and bool(fetch.common) and fetch.ready
            section.add(b"acknowledgments", _acknowledgments(fetch, ready=ready))
            if not ready:
                yield section.bytes() + pkt.FLUSH
                return
        if asked.wishes.shallow or fetch.depth:
            section.add(b"shallow-info", fetch.shallow_lines())
        if asked.refs:
            section.add(b"wanted-refs", [id.hex().encode() + b" " + name for name, id in asked.refs.items()])
        section.add(b"packfile", ())
        blocks = fetch.blocks(
            self._responses,
            thin=b"thin-pack" in asked.flags,
            ofs=b"ofs-delta" in asked.flags,
            tags=b"include-tag" in asked.flags,
        )
        yield section.bytes()
        yield from framed(blocks)

    def _object_info(self, view: View, arguments: list[bytes]) -> Answer:
        lines: list[bytes] = []
        for line in arguments:
            if line == b"size":
                lines.insert(0, b"size")
            elif line.startswith(b"oid "):
                id = parse_oid(line[4:])
                size = str(view.manifest.size(id.hex())).encode() if view.serves(id) else b""
                lines.append(line[4:] + b" " + size)
            else:
                raise BadBody(f"object-info: unexpected line {line[:60]!r}")
        if lines and lines[0] != b"size":
            raise BadBody("object-info: ask for 'size'; nothing else is known of objects here")
        yield b"".join(pkt.encode(line + b"\n") for line in lines) + pkt.FLUSH


@dataclass(frozen=True, slots=True)
class _Request:
    command: bytes
    arguments: list[bytes]


@dataclass(slots=True)
class _FetchArguments:
    wishes: Wishes = field(default_factory=Wishes)
    flags: set[bytes] = field(default_factory=set)
    refs: dict[bytes, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, view: View, arguments: list[bytes]) -> _FetchArguments:
        """Sort the argument lines of a fetch; wanted refs become wants."""
        made = cls()
        for line in arguments:
            if line in _FLAGS:
                made.flags.add(line)
            elif line.startswith(b"want-ref "):
                made._want_ref(view, line[9:])
            elif not made.wishes.take(line):
                raise BadBody(f"unexpected line: '{line.decode('utf-8', 'replace')[:200]}'")
        return made

    def _want_ref(self, view: View, name: bytes) -> None:
        ref = view.refs.get(view.snapshot.head if name == b"HEAD" else name)
        if ref is None:
            raise BadBody(f"unknown ref {name.decode('utf-8', 'replace')[:300]}")
        if name in self.refs:
            raise BadBody(f"duplicate want-ref {name.decode('utf-8', 'replace')[:300]}")
        self.refs[name] = parse_oid(ref.target.encode())
        self.wishes.wants[self.refs[name]] = None


class _Sections:
    """Joins the sections of a fetch answer; with sideband-all each line goes on channel 1."""

    def __init__(self, *, sideband: bool) -> None:
        self._lead = b"\x01" if sideband else b""
        self._made: list[bytes] = []

    def add(self, title: bytes, lines: Iterable[bytes]) -> None:
        if self._made:
            self._made.append(pkt.DELIM)
        self._made += [pkt.encode(self._lead + line + b"\n") for line in (title, *lines)]

    def bytes(self) -> bytes:
        return b"".join(self._made)


def _acknowledgments(fetch: Fetch, *, ready: bool) -> list[bytes]:
    lines = [b"ACK " + id.hex().encode() for id in fetch.common] or [b"NAK"]
    return [*lines, b"ready"] if ready else lines


def _parse(body: Iterable[bytes]) -> _Request | None:
    """Read one request; None if the body is empty or a lone flush, the probe that clients send to learn of auth."""
    packets = PktReader(body)
    head, mark = _lines(packets)
    if not head and mark in (None, Mark.FLUSH):
        return None
    arguments, end = _lines(packets) if mark is Mark.DELIM else ([], mark)
    if end is not Mark.FLUSH:
        raise BadBody("the request does not end with a flush packet")
    if packets.read() is not None:
        raise BadBody("one request may hold one command")
    commands = [line[8:] for line in head if line.startswith(b"command=")]
    if len(commands) != 1:
        raise BadBody("a request holds exactly one command")
    for line in head:
        _check_capability(line)
    if commands[0] not in (b"ls-refs", b"fetch", b"object-info"):
        raise BadBody(f"unknown command '{commands[0].decode('utf-8', 'replace')[:60]}'")
    return _Request(commands[0], arguments)


def _check_capability(line: bytes) -> None:
    name, _, value = line.partition(b"=")
    if name == b"object-format" and value != b"sha1":
        raise BadBody(f"mismatched object format: this repository has sha1, not {value[:30]!r}")
    if name != b"command" and name not in _KNOWN:
        raise BadBody(f"unknown capability '{line.decode('utf-8', 'replace')[:60]}'")


def _lines(packets: PktReader) -> tuple[list[bytes], Mark | None]:
    """Read text lines up to a packet without payload, and say which one, or None at the end of the body."""
    lines: list[bytes] = []
    for packet in packets:
        if isinstance(packet, Mark):
            return lines, packet
        lines.append(chomp(packet))
        if len(lines) > _MOST_LINES:
            raise BadBody(f"more than {_MOST_LINES} lines in one request")
    return lines, None


def _listing(view: View, arguments: list[bytes]) -> Iterator[bytes]:
    prefixes = [line[11:] for line in arguments if line.startswith(b"ref-prefix ")]
    flags = {line for line in arguments if not line.startswith(b"ref-prefix ")}
    if unknown := flags - {b"symrefs", b"peel", b"unborn"}:
        raise BadBody(f"ls-refs: unexpected line '{min(unknown).decode('utf-8', 'replace')[:200]}'")
    if len(prefixes) > _MOST_PREFIXES:
        prefixes = []
    symref = b" symref-target:" + view.snapshot.head if b"symrefs" in flags else b""
    if not prefixes or any(b"HEAD".startswith(prefix) for prefix in prefixes):
        head = view.refs.get(view.snapshot.head)
        if head is not None:
            yield head.target.encode() + b" HEAD" + symref
        elif b"unborn" in flags:
            yield b"unborn HEAD" + symref
    for ref in _chosen(view, prefixes):
        peeled = b" peeled:" + ref.peeled.encode() if ref.peeled and b"peel" in flags else b""
        yield ref.target.encode() + b" " + ref.name + peeled


def _chosen(view: View, prefixes: Sequence[bytes]) -> Iterator[Ref]:
    """Yield refs that start with any prefix, in order, each once, without looking at the others."""
    names, at = view.names, 0
    for prefix in sorted(prefixes) if prefixes else [b""]:
        at = max(at, bisect_left(names, prefix))
        while at < len(names) and names[at].startswith(prefix):
            yield view.refs[names[at]]
            at += 1
