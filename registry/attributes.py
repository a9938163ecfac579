"""What `.gitattributes` and `.gitignore` say of a path, by git's own matching; pure.

Git matches bytes, and `?` stands for one of them; here every byte is one Latin-1 character.
Source: gitattributes(5), gitignore(5) "PATTERN FORMAT".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from registry.globs import MOST_STEPS, Budget, Pattern, pattern_of

Value = str | bool | None
"""Set, unset (`-name`), a string (`name=value`), or unspecified (`!name`, or nothing said)."""

MOST_LINES = 10_000
LONGEST_LINE = 2_048
_BLANK = re.compile(r"[ \t\r]+")


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

    def __init__(self, files: Mapping[str, bytes], *, steps: int = MOST_STEPS) -> None:
        self._budget = Budget(steps)
        self._rules = {_raw(folder): list(_attribute_rules(content)) for folder, content in files.items()}

    def get(self, path: str, name: str) -> Value:
        """Give an attribute of a path: the file nearest to it decides, in a file the last line that matches.

        Raises: TooCostly.
        """
        rule = self._rule(path, name)
        return rule.values[name] if rule is not None else None

    def is_lfs(self, path: str) -> bool | None:
        """Tell whether a path goes to LFS; None if no line speaks of its filter.

        Raises: TooCostly.
        """
        rule = self._rule(path, "filter")
        return rule.values["filter"] == "lfs" if rule is not None else None

    def _rule(self, path: str, name: str) -> _Rule | None:
        for folder, rest in _upwards(_raw(path)):
            for rule in reversed(self._rules.get(folder, ())):
                if name in rule.values and rule.pattern.matches(rest, self._budget):
                    return rule
        return None


class Ignores:
    """The `.gitignore` files of a tree, by folder ("" is the root)."""

    def __init__(self, files: Mapping[str, bytes], *, steps: int = MOST_STEPS) -> None:
        self._budget = Budget(steps)
        self._rules = {_raw(folder): list(_ignore_rules(content)) for folder, content in files.items()}

    def ignored(self, path: str) -> bool:
        """Tell whether a file is ignored; what lies in an ignored folder cannot be taken back.

        Raises: TooCostly.
        """
        path = _raw(path)
        parts = path.split("/")
        above = ("/".join(parts[:cut]) for cut in range(1, len(parts)))
        return any(self._says(folder, is_folder=True) for folder in above) or self._says(path, is_folder=False)

    def _says(self, path: str, *, is_folder: bool) -> bool:
        for folder, rest in _upwards(path):
            for rule in reversed(self._rules.get(folder, ())):
                if (is_folder or not rule.folders_only) and rule.pattern.matches(rest, self._budget):
                    return rule.ignores
        return False


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
            yield _Rule(pattern_of(text), dict(_value(word) for word in _BLANK.split(words)))


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
            yield _Ignore(pattern_of(text), ignores, folders_only)


def _trimmed(line: str) -> str:
    """Drop spaces at the end, unless a backslash keeps one."""
    bare = line.rstrip(" ")
    slashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if slashes % 2 and bare != line else bare
