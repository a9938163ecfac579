"""What a caller may call a model, and what a file of a checkout may be called; parsed once, pure.

name  = repo ["@" revision] [":" extra]
repo  = namespace "/" name, or name
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from inference.errors import ModelAbsent, ModelRefused

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
_EXTRA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@+-]{0,511}")
_SHA = re.compile(r"[0-9a-f]{40}")
_BARRED = re.compile(r'[\x00-\x1f\x7f\\<>:"|?*]')
_DEVICE = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)

MAX_PATH = 1024
MAX_COMPONENT = 255
MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class ModelName:
    """A name as asked for; `revision` None is the default branch, `extra` a file or an adapter inside."""

    repo: str
    revision: str | None = None
    extra: str | None = None

    @property
    def is_fixed(self) -> bool:
        """True if the revision is a commit sha, which never moves."""
        return self.revision is not None and is_sha(self.revision)


def parse(text: str) -> ModelName:
    """Read a model name.

    Raises: ModelAbsent (nothing can have this name).
    """
    head, _, extra = text.partition(":")
    repo, _, revision = head.partition("@")
    parts = repo.split("/")
    is_repo = 1 <= len(parts) <= 2 and all(_PART.fullmatch(part) and ".." not in part for part in parts)
    is_revision = "@" not in head or (bool(_REVISION.fullmatch(revision)) and ".." not in revision)
    is_extra = ":" not in text or (bool(_EXTRA.fullmatch(extra)) and ".." not in extra)
    if not (is_repo and is_revision and is_extra):
        raise ModelAbsent(f"{text[:200]!r} is not a model name; write namespace/name[@revision]", param="model")
    return ModelName(repo, revision or None, extra or None)


def is_sha(text: object) -> bool:
    """Say whether this is a commit's name: 40 lower-case hex digits."""
    return isinstance(text, str) and _SHA.fullmatch(text) is not None


def check_path(path: str) -> str:
    """Return a path that is safe to create inside a fresh folder on any file system.

    Raises: ModelRefused, naming the path.
    """
    parts = path.split("/")
    is_sound = len(path.encode(errors="replace")) <= MAX_PATH and len(parts) <= MAX_DEPTH
    if not is_sound or not all(_is_component(part) for part in parts):
        raise ModelRefused(f"the revision has a file whose path cannot be checked out: {path[:200]!r}")
    return path


def folded(path: str) -> str:
    """Give the form under which two paths are one on some file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _is_component(part: str) -> bool:
    """Judge one component; leading dots are refused whole, which covers `.`, `..`, `.git` and our own manifest."""
    is_plain = bool(part) and not part.startswith((".", "-")) and not part.endswith((".", " "))
    # Format characters (zero-width, direction marks) make two names look, or on HFS+ be, the same.
    is_visible = part.isprintable() and not any(unicodedata.category(character) == "Cf" for character in part)
    is_short = len(part.encode(errors="replace")) <= MAX_COMPONENT
    return is_plain and is_visible and is_short and not _BARRED.search(part) and not _DEVICE.fullmatch(part)
