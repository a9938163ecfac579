"""The body of a Hub commit: one JSON object a line, taken into a draft as the lines arrive.

    {"key": "header", "value": {"summary", "description", "parentCommit"?}}          first
    {"key": "file", "value": {"path", "content", "encoding": "base64" | "utf-8"}}
    {"key": "lfsFile", "value": {"path", "algo": "sha256", "oid", "size"?}}
    {"key": "deletedFile" | "deletedFolder", "value": {"path"}}

Memory holds one line. The content of a long one is cut out before the rest is parsed, and decoded in pieces.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry.draft import Draft
from registry.errors import BadBody, TooLarge
from registry.routes.hub import fields

LONGEST_LINE = 96 << 20
MOST_BYTES = 1 << 30
_LONG = 1 << 20
_PIECE = 1 << 20
# A quote inside a JSON string has a backslash before it, so this begins a member of the line's object and no text.
_CONTENT = re.compile(rb'"content"[ \t]*:[ \t]*"')
_PLAIN = re.compile(rb"[A-Za-z0-9+/=_-]*+")


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Base64 of a file as it stood in a line."""

    data: memoryview

    @property
    def size(self) -> int:
        """Bytes after decoding, if this is base64 at all.

        Raises: BadBody (its length says that it is not; a size made of it could be negative).
        """
        if len(self.data) % 4:
            raise BadBody('"content" is not base64: its length is no multiple of four.')
        padding = bytes(self.data[-2:]).count(b"=")
        return len(self.data) // 4 * 3 - padding

    def pieces(self) -> Iterator[bytes]:
        """Decode a MiB at a time.

        Raises: BadBody.
        """
        for start in range(0, len(self.data), _PIECE):
            try:
                yield binascii.a2b_base64(self.data[start : start + _PIECE], strict_mode=True)
            except binascii.Error as error:
                raise BadBody('"content" is not base64.') from error


class CommitLines:
    """Takes the body of one commit, chunk by chunk. Not thread-safe."""

    def __init__(self, draft: Draft, *, longest_line: int = LONGEST_LINE, most_bytes: int = MOST_BYTES) -> None:
        self._draft = draft
        self._longest = longest_line
        self._most = most_bytes
        self._seen = 0
        self._begun = False
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body; every line that ends in them is in the draft at return.

        Raises: BadBody, BadPath, TooLarge.
        """
        self._seen += len(chunk)
        if self._seen > self._most:
            raise TooLarge(f"The body of a commit is limited to {self._most} bytes: split it into several.")
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            self._rest += line
            self._check_length()
            self._line(self._rest)
            self._rest = bytearray()
        self._rest += rest
        self._check_length()

    def end(self) -> None:
        """Take the last line, which needs no line feed.

        Raises: BadBody, BadPath, TooLarge.
        """
        self._line(self._rest)
        self._rest = bytearray()
        if not self._begun:
            raise BadBody("The body of a commit begins with a header line.")

    def _check_length(self) -> None:
        if len(self._rest) > self._longest:
            # A refusal's traceback holds this object until the next collection of garbage: it must not hold the line.
            self._rest.clear()
            raise TooLarge(f"A line of a commit is limited to {self._longest} bytes: store large files with LFS.")

    def _line(self, line: bytearray) -> None:
        if not line.strip():
            return
        content = _cut_out(line) if len(line) > _LONG else None
        found = _parsed(line if content is None else content[0])
        key, value = found.get("key"), found.get("value")
        if not isinstance(value, dict):
            raise BadBody('Each line of a commit has a "key" and a "value" object.')
        if content is not None and value.get("content") != "":
            raise BadBody('"content" belongs into the "value" of a "file" line.')
        if not self._begun:
            if key != "header":
                raise BadBody("The first line of a commit is its header.")
            self._header(value)
        else:
            self._operation(key, value, content[1] if content is not None else None)

    def _header(self, value: Mapping[str, object]) -> None:
        summary, description = fields.maybe_text(value, "summary") or "", fields.maybe_text(value, "description") or ""
        self._draft.head(summary, description, fields.maybe_text(value, "parentCommit") or None)
        self._begun = True

    def _operation(self, key: object, value: Mapping[str, object], content: _Encoded | None) -> None:
        path = fields.text(value, "path")
        if key == "file":
            self._file(path, value, content)
        elif key == "lfsFile":
            if value.get("algo", "sha256") not in ("sha256", None):
                raise BadBody('"algo" must be "sha256".')
            self._draft.large_file(path, fields.text(value, "oid"), fields.whole(value, "size"))
        elif key in ("deletedFile", "deletedFolder"):
            self._draft.delete(path)
        else:
            raise BadBody(f"The operation {str(key)[:100]!r} is unknown.")

    def _file(self, path: str, value: Mapping[str, object], content: _Encoded | None) -> None:
        encoding = fields.maybe_text(value, "encoding") or "utf-8"
        text = fields.text(value, "content")
        if encoding == "base64":
            encoded = content or _Encoded(memoryview(_ascii(text)))
            self._draft.file(path, encoded.size, encoded.pieces())
        elif encoding == "utf-8":
            # Base64 letters mean themselves here, so what was cut out is the text as well.
            data = bytes(content.data) if content is not None else text.encode()
            self._draft.file(path, len(data), [data])
        else:
            raise BadBody('"encoding" must be "base64" or "utf-8".')


def _cut_out(line: bytearray) -> tuple[bytes, _Encoded] | None:
    """Take a long, plain content out of a line; None if it has escapes or is not there."""
    begin = _CONTENT.search(line)
    if begin is None:
        return None
    stop = line.find(b'"', begin.end())
    plain = _PLAIN.match(line, begin.end())
    if plain is None or plain.end() != stop:
        return None
    return bytes(line[: begin.end()] + line[stop:]), _Encoded(memoryview(line)[begin.end() : stop])


def _parsed(line: bytes | bytearray) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadBody("A line of the commit is not JSON.") from error
    if not isinstance(found, dict):
        raise BadBody("A line of the commit is no JSON object.")
    return found


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise BadBody('"content" is not base64.') from error
