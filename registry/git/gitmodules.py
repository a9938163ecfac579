"""`.gitmodules`, read as git reads its configuration files, and what in it could run something on a client.

    [submodule "name"]      section, with a quoted name
        path = folder       key = value; values may be quoted, continued by a final backslash, followed by a comment

Source: git-config, "SYNTAX"; CVE-2018-11235, CVE-2018-17456, CVE-2020-5260, CVE-2025-48384.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from registry.git.filenames import Finding, Severity

LARGEST = 1 << 20
"""Bytes that such a file may have."""

_SECTION = re.compile(rb'\[\s*([-.A-Za-z0-9]+)(?:[ \t]+"((?:[^"\\\n]|\\[^\n])*)")?\s*\]')
_KEY = re.compile(rb"([A-Za-z][-A-Za-z0-9]*)[ \t]*")
_ESCAPES = {ord("n"): b"\n", ord("t"): b"\t", ord("b"): b"\b", ord('"'): b'"', ord("\\"): b"\\"}


class _Unreadable(Exception):
    """Git would stop reading here as well."""


def check_gitmodules(data: bytes) -> list[Finding]:
    """Judge the content of a `.gitmodules` blob."""
    if len(data) > LARGEST:
        return [_refuse("gitmodulesLarge", f".gitmodules of {len(data)} bytes; at most {LARGEST} are taken")]
    try:
        settings = list(_settings(data))
    except _Unreadable as error:
        return [_refuse("gitmodulesParse", f".gitmodules cannot be read: {error}")]
    return [found for name, key, value in settings for found in _judge(name, key, value)]


def _refuse(key: str, text: str) -> Finding:
    return Finding(key, Severity.REFUSE, text)


def _judge(name: bytes, key: bytes, value: bytes) -> Iterator[Finding]:
    if not name or b".." in re.split(rb"[/\\]", name):
        yield _refuse("gitmodulesName", f"submodule name {name!r} leaves its folder")
    if key == b"url" and (value.startswith(b"-") or {10, 13} & {*value, *unquote_to_bytes(value)}):
        yield _refuse("gitmodulesUrl", f"submodule URL {value[:200]!r} is not one")
    if key == b"path" and (value.startswith(b"-") or {10, 13} & set(value)):
        yield _refuse("gitmodulesPath", f"submodule path {value[:200]!r} reads as an option")
    if key == b"update" and value.startswith(b"!"):
        yield _refuse("gitmodulesUpdate", "submodule update runs a command")


def _settings(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield (submodule name, key in lower case, value); a section without keys yields an empty key."""
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    name: bytes | None = None
    at = 0
    while at < len(data):
        if data[at : at + 1].isspace():
            at += 1
        elif data[at] in b"#;":
            at = _line_end(data, at)
        elif data[at] == ord("["):
            name, at = _section(data, at)
            if name is not None:
                yield name, b"", b""
        else:
            key, value, at = _setting(data, at)
            if name is not None:
                yield name, key, value


def _section(data: bytes, at: int) -> tuple[bytes | None, int]:
    found = _SECTION.match(data, at)
    if found is None:
        raise _Unreadable("bad section")
    section, quoted = found[1].lower(), found[2]
    if quoted is None and section.startswith(b"submodule."):
        return found[1][len(b"submodule.") :], found.end()
    if section != b"submodule" or quoted is None:
        return None, found.end()
    return re.sub(rb"\\(.)", rb"\1", quoted), found.end()


def _setting(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    found = _KEY.match(data, at)
    if found is None:
        raise _Unreadable("bad key")
    key, at = found[1].lower(), found.end()
    if data[at : at + 1] != b"=":
        if at < len(data) and data[at] not in b"\n#;":
            raise _Unreadable("bad key")
        return key, b"", _line_end(data, at)
    value, at = _value(data, at + 1)
    return key, value, at


def _value(data: bytes, at: int) -> tuple[bytes, int]:
    out, quoted, kept = bytearray(), False, 0
    while at < len(data) and data[at] != ord("\n"):
        byte = data[at]
        at += 1
        if byte == ord("\\"):
            if data[at : at + 1] != b"\n":
                if at >= len(data) or data[at] not in _ESCAPES:
                    raise _Unreadable("bad escape")
                out += _ESCAPES[data[at]]
                kept = len(out)
            at += 1
        elif byte == ord('"'):
            quoted = not quoted
            kept = len(out)
        elif not quoted and byte in b"#;":
            at = _line_end(data, at)
        elif quoted or out or byte not in b" \t\r\f\v":
            out.append(byte)
            kept = kept if not quoted and byte in b" \t\r\f\v" else len(out)
    if quoted:
        raise _Unreadable("quote without end")
    return bytes(out[:kept]), at


def _line_end(data: bytes, at: int) -> int:
    end = data.find(b"\n", at)
    return len(data) if end < 0 else end
