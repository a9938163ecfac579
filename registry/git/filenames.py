"""What one name in a tree may be: traversal, disguises of `.git` on HFS+ and NTFS, names other systems cannot hold.

Verdicts are memoised per distinct name, so a tree that repeats known names costs lookups only.
Source: git's fsck messages; Apple TN1150 (HFS+ ignores some code points); Microsoft, "Naming Files, Paths, and
Namespaces".
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

LONGEST_NAME = 255
"""Bytes of one path component."""


class Severity(enum.Enum):
    """What a finding means: never let in, refused by the portable-name policy, or told to the pusher."""

    REFUSE = "refuse"
    PORTABLE = "portable"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule: `id` is git's own message id where one exists."""

    id: str
    severity: Severity
    text: str


class Special(enum.Enum):
    """Files that git itself reads from a checkout."""

    MODULES = ".gitmodules"
    ATTRIBUTES = ".gitattributes"
    IGNORE = ".gitignore"
    MAILMAP = ".mailmap"


class NameVerdict(NamedTuple):
    """What a name breaks, which special file it opens on some system, and its form for finding collisions."""

    findings: tuple[Finding, ...]
    special: Special | None
    folded: str


_IGNORED = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])
_DOT_GIT = re.compile(r"(?:\.git|git~[1-9])[. ]*(?:$|[:/\\])", re.S)
_TAIL = re.compile(r"[. ]*(?:$|:)", re.S)
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[1-9¹²³]|lpt[0-9¹²³]) *(?:$|[.:])", re.S)
_RESERVED = re.compile(rb'[<>:"|?*\x01-\x1f\x7f]')
# Names for which no rule but that of devices can hold: they neither begin nor end with a dot, nor have a tilde.
_PLAIN_NAME = rb"[0-9A-Za-z_](?:[-+@=,.0-9A-Za-z_]{0,253}[-+@=,0-9A-Za-z_])?"
_PLAIN = re.compile(_PLAIN_NAME)
_PLAIN_LINES = re.compile(rb"(?:" + _PLAIN_NAME + rb"\n)*+")
_DEVICE_LINE = re.compile(rb"^(?:con|prn|aux|nul|com[1-9]|lpt[0-9])(?:$|\.)", re.I | re.M)
_SHORT_NAMES = {
    Special.MODULES: "gi7eba",
    Special.ATTRIBUTES: "gi7d29",
    Special.IGNORE: "gi250a",
    Special.MAILMAP: "maba30",
}


@lru_cache(maxsize=1 << 16)
def check_name(name: bytes) -> NameVerdict:
    """Judge one path component, whatever its mode."""
    if _PLAIN.fullmatch(name) and not _DEVICE.match(name.decode().lower()):
        return NameVerdict((), None, name.decode().lower())
    text = name.decode("utf-8", "replace")
    seen_by_hfs = text.translate(_IGNORED).casefold() if not name.isascii() else text.lower()
    findings = [*_traversal(name, text), *_git_family(text, seen_by_hfs), *_portable(name, text)]
    return NameVerdict(tuple(findings), _special(text.lower(), seen_by_hfs), fold(text))


def all_plain(names: Sequence[bytes]) -> bool:
    """True if no rule can hold for any of the names: most names, judged in a tenth of the time."""
    lines = b"".join([name + b"\n" for name in names])
    plain = lines.count(b"\n") == len(names) and _PLAIN_LINES.fullmatch(lines)
    return bool(plain) and not _DEVICE_LINE.search(lines)


def fold(text: str) -> str:
    """Bring names that some file system takes for one another to one form: NFC and no case."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def show(name: bytes) -> str:
    """Render a name for a message: UTF-8, with control and broken bytes escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)[:300]


def _traversal(name: bytes, text: str) -> list[Finding]:
    found = []
    if not name:
        found.append(("emptyName", "empty name"))
    if name == b".":
        found.append(("hasDot", "'.' as a name"))
    if name == b"..":
        found.append(("hasDotdot", "'..' as a name"))
    if b"/" in name:
        found.append(("fullPathname", f"'/' in the name {text!r}"))
    if b"\0" in name:
        found.append(("nulInName", f"NUL in the name {text!r}"))
    if b"\\" in name:
        found.append(("backslashInName", f"'\\' in the name {text!r}"))
    return [Finding(key, Severity.REFUSE, said) for key, said in found]


def _git_family(text: str, seen_by_hfs: str) -> list[Finding]:
    parts = {part for form in (text.lower(), seen_by_hfs) for part in form.split("\\")}
    if any(_DOT_GIT.match(part) for part in parts):
        return [Finding("hasDotgit", Severity.REFUSE, f"{text!r} is '.git' on some file system")]
    return []


def _portable(name: bytes, text: str) -> list[Finding]:
    found = []
    if _DEVICE.match(text.lower()):
        found.append(("deviceName", f"{text!r} is a device on Windows"))
    if name.endswith((b".", b" ")) and name not in (b".", b".."):
        found.append(("trailingDotOrSpace", f"{text!r} ends with a dot or space, which Windows drops"))
    if _RESERVED.search(name):
        found.append(("reservedCharacter", f"{text!r} has a character that Windows cannot store"))
    if len(name) > LONGEST_NAME:
        found.append(("longName", f"a name of {len(name)} bytes; at most {LONGEST_NAME} fit"))
    findings = [Finding(key, Severity.PORTABLE, said) for key, said in found]
    if "�" in text and b"\xef\xbf\xbd" not in name:
        findings.append(Finding("nameNotUtf8", Severity.WARN, f"{show(name)!r} is not UTF-8"))
    return findings


def _special(lowered: str, seen_by_hfs: str) -> Special | None:
    for special, short in _SHORT_NAMES.items():
        if any(_ntfs_special(form, special.value, short) for form in {lowered, seen_by_hfs}):
            return special
    return None


def _ntfs_special(name: str, whole: str, short: str) -> bool:
    """True if NTFS may open `whole` under this name: itself, its 8.3 name, or its hashed 8.3 name."""
    if name.startswith(whole):
        return bool(_TAIL.match(name, len(whole)))
    if name[:7] == whole[1:7] + "~" and name[7:8] in set("1234"):
        return bool(_TAIL.match(name, 8))
    head, tilde, digits = name[:8].partition("~")
    hashed = len(name) >= 8 and tilde and short.startswith(head) and digits.isascii() and digits.isdigit()
    return bool(hashed and digits[0] != "0" and _TAIL.match(name, 8))
