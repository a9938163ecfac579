"""Git's path patterns: `*`, `?`, `[…]`, and `**` for any number of folders; pure.

Patterns come from strangers, so they are matched without regular expressions: a name with `*` in time length × length,
folders with `**` by a table, and all of them together within a budget of steps.
Source: gitignore(5) "PATTERN FORMAT", wildmatch as git applies it to paths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MOST_STEPS = 5_000_000
"""A few seconds of matching; a thousand files against a thousand common patterns take a fifth of it."""
_WILD = frozenset("*?[\\")

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


class TooCostly(Exception):
    """Matching these paths against these patterns takes more steps than anybody needs."""


class Budget:
    """Steps that may still be taken."""

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take steps.

        Raises: TooCostly.
        """
        self._left -= steps
        if self._left < 0:
            raise TooCostly("too many or too complicated patterns")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern; without a slash it names a file in any folder below, else a path from the file's own folder."""

    parts: tuple[str, ...]
    anchored: bool
    literal: str | None = None
    """The whole pattern, if it names one path only."""
    suffix: str | None = None
    """What follows the `*` of a pattern like `*.bin`."""

    def matches(self, path: str, budget: Budget) -> bool:
        """Judge a path relative to the folder of the pattern's file.

        Raises: TooCostly.
        """
        if self.literal is not None or self.suffix is not None:
            budget.spend(1)
        if self.suffix is not None:
            return path.endswith(self.suffix)
        name = path if self.anchored else path.rpartition("/")[2]
        if self.literal is not None:
            return name == self.literal
        return _match_parts(self.parts, name.split("/"), budget)


def pattern_of(text: str) -> Pattern:
    """Read a pattern, without the marks that its file puts around it."""
    anchored = "/" in text
    text = text.removeprefix("/")
    if _WILD.isdisjoint(text):
        return Pattern((), anchored, literal=text)
    if not anchored and text[0] == "*" and _WILD.isdisjoint(text[1:]):
        return Pattern((), anchored, suffix=text[1:])
    return Pattern(tuple(text.split("/")) if anchored else (text,), anchored)


def _match_parts(parts: Sequence[str], names: Sequence[str], budget: Budget) -> bool:
    """Match folder by folder; `**` alone stands for any number of folders, at the end for at least one name."""
    reach = {0}
    for index, part in enumerate(parts):
        if part == "**":
            first = min(reach) + (1 if index == len(parts) - 1 else 0)
            reach = set(range(first, len(names) + 1))
            budget.spend(len(reach))
        else:
            reach = {at + 1 for at in reach if at < len(names) and match_name(part, names[at], budget)}
        if not reach:
            return False
    return len(names) in reach


def match_name(pattern: str, name: str, budget: Budget) -> bool:
    """Match one name against `*`, `?`, `[…]` and backslash escapes; nothing here stands for a slash.

    Raises: TooCostly.
    """
    found, steps = _match_wild(pattern, name)
    budget.spend(steps)
    return found


def _match_wild(pattern: str, name: str) -> tuple[bool, int]:
    """Match, going back to the last star only; also tell how many steps it took."""
    at = place = steps = 0
    star, retry = -1, 0
    while place < len(name):
        steps += 1
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
            return False, steps
    return all(one == "*" for one in pattern[at:]), steps + 1


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
