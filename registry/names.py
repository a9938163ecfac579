"""Names that come from the wire, parsed once: repos, revisions, and the raw path of a file in a revision."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from registry.errors import BadName, BadPath

RepoType = Literal["model", "dataset", "space"]

WEB_PREFIX: dict[RepoType, str] = {"model": "", "dataset": "datasets/", "space": "spaces/"}
"""What stands before `namespace/name` in web and git paths."""
API_NOUN: dict[RepoType, str] = {"model": "models", "dataset": "datasets", "space": "spaces"}
"""The collection's name in API paths."""
TYPE_OF_NOUN: dict[str, RepoType] = {noun: kind for kind, noun in API_NOUN.items()}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
_SHA = re.compile(r"[0-9a-f]{40}\Z")
_OID = re.compile(r"[0-9a-f]{64}\Z")
_PREFIX = re.compile(r"[0-9a-f]{7,39}\Z")
# Folded; as namespaces they would shadow routes of ours.
_RESERVED = frozenset(
    {"api", "assets", "buckets", "datasets", "docs", "health", "join", "kernels", "lfs", "login", "logout", "metrics"}
    | {
        "models",
        "new",
        "oauth",
        "organizations",
        "raw",
        "ready",
        "resolve",
        "search",
        "settings",
        "spaces",
        "static",
        "v1",
        "v2",
        "xet",
    }
)


@dataclass(frozen=True, slots=True)
class RepoId:
    """A repo as the Hub names it: type, namespace and name, spelled as asked."""

    type: RepoType
    namespace: str
    name: str

    @property
    def full(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def web(self) -> str:
        """Path of the repo below the origin: `datasets/ns/name`."""
        return WEB_PREFIX[self.type] + self.full

    @property
    def fold(self) -> str:
        """The form that look-ups compare: case does not tell two repos apart."""
        return self.full.casefold()


def check_name(text: str, noun: str) -> str:
    """Return a namespace or repo name that keeps the rules.

    Raises: BadName, with the rule it breaks.
    """
    if not _NAME.match(text):
        raise BadName(
            f"{noun} {text!r} is not allowed: use 1 to 96 letters, digits, '-', '_' or '.', first a letter or digit."
        )
    if ".." in text or "--" in text:
        raise BadName(f"{noun} {text!r} is not allowed: it may not contain '..' or '--'.")
    if text.endswith((".", "-")) or text.lower().endswith((".git", ".lock", ".ipynb")):
        raise BadName(f"{noun} {text!r} is not allowed: it may not end with '.', '-', '.git', '.lock' or '.ipynb'.")
    return text


def check_namespace(text: str) -> str:
    """Return a name that a user or organisation may take.

    Raises: BadName.
    """
    check_name(text, "Name")
    if text.casefold() in _RESERVED:
        raise BadName(f"Name {text!r} is reserved; choose another.")
    return text


def repo_id(kind: RepoType, namespace: str, name: str) -> RepoId:
    """Make a checked `RepoId`.

    Raises: BadName.
    """
    return RepoId(kind, check_name(namespace, "Namespace"), check_name(name, "Repo name"))


def parse_repo_id(kind: RepoType, text: str) -> RepoId:
    """Read `namespace/name`.

    Raises: BadName.
    """
    namespace, slash, name = text.partition("/")
    if not slash or "/" in name:
        raise BadName(f"Repo {text!r} is not of the form 'namespace/name'.")
    return repo_id(kind, namespace, name)


def is_sha(text: str) -> bool:
    """True for a full lower-case commit id."""
    return _SHA.match(text) is not None


def is_sha_prefix(text: str) -> bool:
    """True for 7 to 39 lower-case hex digits."""
    return _PREFIX.match(text) is not None


def is_oid(text: str) -> bool:
    """True for a lower-case SHA-256: no path, no upper case, nothing around it."""
    return _OID.match(text) is not None


def split_revpath(raw: str, known: Collection[str] = ()) -> tuple[str, str]:
    """Split `{revision}/{path}` as it stood in the raw URL, before unquoting.

    A revision with a slash comes quoted (`refs%2Fpr%2F1/a/b`) from the Hub's clients and bare (`refs/pr/1/a/b`) from
    others: if the first segment is `refs`, the longest of `known` that the rest begins with wins, else `refs/x/y`.
    Raises: BadPath (not UTF-8 once unquoted).
    """
    head, _, rest = raw.partition("/")
    revision = _unquoted(head)
    path = _unquoted(rest)
    if revision != "refs" or not rest:
        return revision, path
    whole = f"refs/{path}"
    fits = [name for name in known if whole == name or whole.startswith(name + "/")]
    if fits:
        revision = max(fits, key=len)
    else:
        revision = "/".join(whole.split("/", 3)[:3])
    return revision, whole[len(revision) + 1 :]


def _unquoted(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise BadPath("The path in the URL is not UTF-8.") from error
