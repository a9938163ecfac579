"""The push protocol: refs advertised, commands read, the outcome reported. Pure; bytes in, bytes out.

    client   shallow <oid>* · <old> <new> <ref> NUL capabilities · <old> <new> <ref>* · flush
             [push options · flush] · pack, absent if every command deletes
    server   unpack ok|<reason> · per ref: ok <ref> [option …]* | ng <ref> <reason> · flush, in channel 1

Source: gitprotocol-pack "Pushing Data To a Server", gitprotocol-capabilities.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from registry.git import pkt
from registry.git.pkt import FLUSH, Mark, Packet, PktError, PktReader
from registry.git.snapshot import ZERO, Snapshot, visible

MOST_COMMANDS = 10_000
MOST_OPTIONS = 64
LONGEST_OPTION = 1024
LONGEST_NAME = 4096
"""Bytes of a ref name that are read at all; the rules for names are shorter and answer per ref."""

_COMMAND = re.compile(rb"([0-9a-f]{40}) ([0-9a-f]{40}) (.+)", re.S)
_SHALLOW = re.compile(rb"shallow ([0-9a-f]{40})")
_FEATURES = (
    "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options object-format=sha1"
)
_SIDE_BAND = 0xFFF0 - 5


@dataclass(frozen=True, slots=True)
class Command:
    """One wished ref update; `ZERO` means absent."""

    old: str
    new: str
    name: bytes

    @property
    def deletes(self) -> bool:
        """True if the ref shall go."""
        return self.new == ZERO


@dataclass(frozen=True, slots=True)
class Push:
    """What a client says before its pack."""

    commands: tuple[Command, ...]
    capabilities: frozenset[str] = frozenset()
    options: tuple[str, ...] = ()
    shallow: tuple[str, ...] = ()

    @property
    def brings_pack(self) -> bool:
        """True if a pack follows."""
        return any(not command.deletes for command in self.commands)

    @property
    def atomic(self) -> bool:
        """True if all commands succeed or none."""
        return "atomic" in self.capabilities

    @property
    def side_band(self) -> bool:
        """True if the answer is split into channels."""
        return "side-band-64k" in self.capabilities

    @property
    def quiet(self) -> bool:
        """True if the client wants no progress."""
        return "quiet" in self.capabilities

    @property
    def report(self) -> int:
        """Version of the report that is asked for: 0, 1 or 2."""
        return 2 if "report-status-v2" in self.capabilities else int("report-status" in self.capabilities)


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of one command: `refused` says why, None is success. The rest is told by reports of version 2."""

    name: bytes
    refused: str | None = None
    forced: bool = False
    stored_as: bytes | None = None
    """The ref that was written instead of the one named."""
    old: str | None = None
    new: str | None = None


def advertise(snapshot: Snapshot, *, agent: str) -> bytes:
    """Write the answer to `info/refs?service=git-receive-pack`; always protocol version 0."""
    lines = [pkt.encode(b"# service=git-receive-pack\n"), FLUSH]
    features = f"\0{_FEATURES} agent={agent}".encode()
    for name, ref in snapshot.refs.items():
        if visible(name):
            lines.append(pkt.encode(b"%b %b%b\n" % (ref.target.encode(), name, features)))
            features = b""
    if features:
        lines.append(pkt.encode(b"%b capabilities^{}%b\n" % (ZERO.encode(), features)))
    return b"".join([*lines, FLUSH])


def read_push(reader: PktReader) -> Push:
    """Read all that precedes the pack, which `reader.rest()` then yields.

    Raises: PktError; its message is fit for the client.
    """
    commands: list[Command] = []
    shallow: list[str] = []
    capabilities: frozenset[str] = frozenset()
    for line in _lines(reader):
        found = _SHALLOW.fullmatch(pkt.chomp(line))
        if found:
            shallow.append(found[1].decode())
            continue
        if not commands:
            line, _, words = line.partition(b"\0")
            capabilities = frozenset(words.decode("utf-8", "replace").split())
        commands.append(_command(pkt.chomp(line)))
        if len(commands) + len(shallow) > MOST_COMMANDS:
            raise PktError(f"more than {MOST_COMMANDS} commands in one push")
    _check(commands, capabilities)
    options = tuple(_options(reader)) if commands and "push-options" in capabilities else ()
    return Push(tuple(commands), capabilities, options, tuple(shallow))


def _lines(reader: PktReader) -> Iterator[bytes]:
    """Yield packets up to the flush that ends a section."""
    while (packet := reader.read()) is not Mark.FLUSH:
        if not isinstance(packet, bytes):
            raise PktError(_cut(packet))
        yield packet


def _cut(packet: Packet | None) -> str:
    return "the push ends before its commands do" if packet is None else "unexpected delimiter in a push"


def _command(line: bytes) -> Command:
    if line.startswith(b"push-cert"):
        raise PktError("signed pushes are not supported")
    found = _COMMAND.fullmatch(line)
    if found is None or len(found[3]) > LONGEST_NAME or b"\0" in found[3]:
        raise PktError("protocol error: expected old/new/ref, got other words")
    return Command(found[1].decode(), found[2].decode(), found[3])


def _check(commands: list[Command], capabilities: frozenset[str]) -> None:
    names = {command.name for command in commands}
    if len(names) != len(commands):
        raise PktError("multiple updates for one ref are not allowed")
    for word in capabilities:
        if word.startswith("object-format=") and word != "object-format=sha1":
            raise PktError(f"unsupported object format: {word.partition('=')[2][:20]!r}; this repository uses sha1")


def _options(reader: PktReader) -> Iterator[str]:
    for number, line in enumerate(_lines(reader), 1):
        text = pkt.chomp(line)
        if number > MOST_OPTIONS or len(text) > LONGEST_OPTION:
            raise PktError(f"at most {MOST_OPTIONS} push options of {LONGEST_OPTION} bytes are taken")
        yield text.decode("utf-8", "replace")


def report(unpack: str | None, results: Iterable[Result], push: Push, *, messages: Iterable[str] = ()) -> bytes:
    """Write the whole answer to a push: messages on channel 2, then the report on channel 1, then a flush.

    `unpack` is why the pack could not be taken, None if it could. Without side-band messages are left out, and
    without report-status nothing is reported.
    """
    lines = [pkt.encode(f"unpack {_plain(unpack) if unpack else 'ok'}\n".encode())]
    for result in results:
        lines += [pkt.encode(line + b"\n") for line in _outcome(result, push.report)]
    body = b"".join([*lines, FLUSH]) if push.report else b""
    if not push.side_band:
        return body
    return b"".join([*(progress(text) for text in messages), *pkt.side_band(1, body), FLUSH])


def _outcome(result: Result, version: int) -> Iterator[bytes]:
    if result.refused is not None:
        yield b"ng %b %b" % (result.name, _plain(result.refused).encode())
        return
    yield b"ok " + result.name
    if version == 2:
        told: Mapping[str, bytes | None] = {
            "refname": result.stored_as,
            "old-oid": result.old.encode() if result.old else None,
            "new-oid": result.new.encode() if result.new else None,
        }
        yield from (f"option {key} ".encode() + value for key, value in told.items() if value is not None)
        if result.forced:
            yield b"option forced-update"


def _plain(text: str) -> str:
    """Make one line that fits a packet."""
    return " ".join(text.split())[:4000] or "failed"


def progress(text: str) -> bytes:
    """Frame one message for people; the client shows it behind `remote:`."""
    return b"".join(pkt.side_band(2, text.encode("utf-8", "replace")[:_SIDE_BAND] + b"\n"))
