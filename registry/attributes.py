"""What `.gitattributes` and `.gitignore` say of a path, by git's own matching; pure.

Patterns come from strangers, so they are matched without regular expressions: a name with `*` in time length × length,
folders with `**` by a table. Git matches bytes, `?` stands for one of them; here every byte is one Latin-1 character.
Source: gitattributes(5), gitignore(5) "PATTERN FORMAT", wildmatch as git applies it to paths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

Value = str | bool | None
"""Set, unset (`-name`), a string (`name=value`), or unspecified (`!name`, or nothing said)."""

MOST_LINES = 10_000
LONGEST_LINE = 2_048

_BLANK = re.compile(r"[ \t\r]+")
_CLASSES: Mapping[str, Callable[[str], bool]] = {
    "alnum": lambda one: one.isascii() and one.isalnum(),
    "alpha": lambda one: one.isascii() and one.isalpha(),
    "blank": lambda one: one in " \t",
    "cntrl": lambda one: ord(one) < 32 or ord(one) == 127,
    "digit": lambda one: one in "0123456789",
    "graph": lambda one: 32 < ord(one) < 127,
    "lower": lambda one: one.isascii() and one.islower(),
    "print": lambda one: 32 <= ord(one) < 127,
    "punct": lambda one: 32 < ord(one) < 127 and not one.isalnum(),
    "space": lambda one: one in " \t\n\v\f\r",
    "upper": lambda one: one.isascii() and one.isupper(),
    "xdigit": lambda one: one in "0123456789abcdefABCDEF",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern; without a slash it names a file in any folder below, else a path from the file's own folder."""

    parts: tuple[str, ...]
    anchored: bool

    def matches(self, path: str) -> bool:
        """Judge a path relative to the folder of the pattern's file."""
        names = path.split("/")
        if not self.anchored:
            return match_name(self.parts[0], names[-1])
        return _match_parts(self.parts, tuple(names))


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: Pattern
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class _Ignore:
    pattern: Pattern
    ignores: bool
    folders_only: bool


class Attributes:
    """The `.gitattributes` files of a tree, by folder ("" is the root)."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._rules = {_raw(folder): list(_attribute_rules(content)) for folder, content in files.items()}

    def get(self, path: str, name: str) -> Value:
        """Give an attribute of a path: the file nearest to it decides, in a file the last line that matches."""
        rule = self._rule(path, name)
        return rule.values[name] if rule is not None else None

    def is_lfs(self, path: str) -> bool | None:
        """Tell whether a path goes to LFS; None if no line speaks of its filter."""
        rule = self._rule(path, "filter")
        return rule.values["filter"] == "lfs" if rule is not None else None

    def _rule(self, path: str, name: str) -> _Rule | None:
        for folder, rest in _upwards(_raw(path)):
            for rule in reversed(self._rules.get(folder, ())):
                if name in rule.values and rule.pattern.matches(rest):
                    return rule
        return None


class Ignores:
    """The `.gitignore` files of a tree, by folder ("" is the root)."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._rules = {_raw(folder): list(_ignore_rules(content)) for folder, content in files.items()}

    def ignored(self, path: str) -> bool:
        """Tell whether a file is ignored; what lies in an ignored folder cannot be taken back."""
        path = _raw(path)
        parts = path.split("/")
        above = ("/".join(parts[:cut]) for cut in range(1, len(parts)))
        return any(self._says(folder, is_folder=True) for folder in above) or self._says(path, is_folder=False)

    def _says(self, path: str, *, is_folder: bool) -> bool:
        for folder, rest in _upwards(path):
            for rule in reversed(self._rules.get(folder, ())):
                if (is_folder or not rule.folders_only) and rule.pattern.matches(rest):
                    return rule.ignores
        return False


def folders_above(path: str) -> list[str]:
    """List the folders whose files speak of a path, the root first."""
    return [folder for folder, _ in _upwards(path)][::-1]


def _raw(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def _upwards(path: str) -> Iterator[tuple[str, str]]:
    """Give each folder above a path, nearest first, and the path as seen from there."""
    parts = path.split("/")
    for cut in range(len(parts) - 1, -1, -1):
        yield "/".join(parts[:cut]), "/".join(parts[cut:])


# Lines


def _lines(content: bytes) -> Iterator[str]:
    text = content.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    for line in text.split("\n")[:MOST_LINES]:
        if len(line) < LONGEST_LINE:
            yield line.removesuffix("\r")


def _attribute_rules(content: bytes) -> Iterator[_Rule]:
    for line in _lines(content):
        stripped = line.strip(" \t\r")
        if not stripped or stripped.startswith(("#", "[attr]")):
            continue
        text, words = _first_word(stripped)
        # Git refuses `!` here, and a pattern for folders says nothing about files.
        if text and not text.startswith("!") and not text.endswith("/"):
            yield _Rule(_pattern(text), dict(_value(word) for word in _BLANK.split(words)))


def _first_word(line: str) -> tuple[str, str]:
    """Cut the pattern off; one in double quotes is written as a C string."""
    if line.startswith('"'):
        quoted = _unquoted(line)
        if quoted is not None:
            return quoted
    word, *rest = _BLANK.split(line, maxsplit=1)
    return word, "".join(rest)


def _unquoted(line: str) -> tuple[str, str] | None:
    at, out = 1, bytearray()
    escapes = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, "\\": 92, '"': 34}
    while at < len(line) and line[at] != '"':
        if line[at] != "\\":
            out += line[at].encode("latin-1")
            at += 1
        elif line[at + 1 : at + 2] in escapes:
            out.append(escapes[line[at + 1]])
            at += 2
        elif len(octal := line[at + 1 : at + 4]) == 3 and set(octal) <= set("01234567") and octal[0] in "0123":
            out.append(int(octal, 8))
            at += 4
        else:
            return None
    return (out.decode("latin-1"), line[at + 1 :]) if at < len(line) else None


def _value(word: str) -> tuple[str, Value]:
    if word.startswith("-"):
        return word[1:], False
    if word.startswith("!"):
        return word[1:], None
    name, equals, value = word.partition("=")
    return name, value if equals else True


def _ignore_rules(content: bytes) -> Iterator[_Ignore]:
    for line in _lines(content):
        text = _trimmed(line)
        if not text or text.startswith("#"):
            continue
        ignores = not text.startswith("!")
        text = text if ignores else text[1:]
        folders_only = text.endswith("/")
        text = text.removesuffix("/")
        if text:
            yield _Ignore(_pattern(text), ignores, folders_only)


def _trimmed(line: str) -> str:
    """Drop spaces at the end, unless a backslash keeps one."""
    bare = line.rstrip(" ")
    slashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if slashes % 2 and bare != line else bare


def _pattern(text: str) -> Pattern:
    anchored = "/" in text
    return Pattern(tuple(text.removeprefix("/").split("/")) if anchored else (text,), anchored)


# Matching


def _match_parts(parts: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Match folder by folder; `**` alone stands for any number of folders, at the end for at least one name."""
    reach = {0}
    for index, part in enumerate(parts):
        if part == "**":
            first = min(reach) + (1 if index == len(parts) - 1 else 0)
            reach = set(range(first, len(names) + 1))
        else:
            reach = {at + 1 for at in reach if at < len(names) and match_name(part, names[at])}
        if not reach:
            return False
    return len(names) in reach


def match_name(pattern: str, name: str) -> bool:
    """Match one name against `*`, `?`, `[…]` and backslash escapes; nothing here stands for a slash."""
    at = place = 0
    star, retry = -1, 0
    while place < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, retry = at, place
            at += 1
            continue
        step = _match_one(pattern, at, name[place])
        if step is not None:
            at, place = step, place + 1
        elif star >= 0:
            retry += 1
            at, place = star + 1, retry
        else:
            return False
    return all(one == "*" for one in pattern[at:])


def _match_one(pattern: str, at: int, character: str) -> int | None:
    """Match one character; give the place behind what matched it."""
    if at >= len(pattern):
        return None
    one = pattern[at]
    if one == "?":
        return at + 1
    if one == "[":
        return _match_set(pattern, at + 1, character)
    if one == "\\":
        return at + 2 if pattern[at + 1 : at + 2] == character else None
    return at + 1 if one == character else None


def _match_set(pattern: str, at: int, character: str) -> int | None:
    """Match a bracket expression that begins before `at`; one without an end matches nothing."""
    negated = pattern[at : at + 1] in ("!", "^")
    at += negated
    found, first = False, True
    while first or pattern[at : at + 1] != "]":
        first = False
        if pattern.startswith("[:", at) and (end := pattern.find(":]", at)) > 0:
            kind = _CLASSES.get(pattern[at + 2 : end])
            if kind is None:
                return None
            found, at = found or kind(character), end + 2
            continue
        low, at = _set_member(pattern, at)
        if low is None:
            return None
        high: str | None = low
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("]", ""):
            high, at = _set_member(pattern, at + 1)
        found = found or (high is not None and low <= character <= high)
    return at + 1 if found != negated else None


def _set_member(pattern: str, at: int) -> tuple[str | None, int]:
    if pattern[at : at + 1] == "\\":
        at += 1
    return (pattern[at], at + 1) if at < len(pattern) else (None, at)
