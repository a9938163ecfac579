"""The operations of one Hub commit, collected as they arrive and checked one by one.

File contents go to a spool on disk at once, so a commit costs memory for its paths only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from registry.errors import BadBody, BadPath, TooLarge
from registry.git import fsck
from registry.git.filenames import Severity
from registry.git.spool import Spool
from registry.names import is_oid, is_sha, is_sha_prefix

# Deletions may name what older rules let in, within reason.
_LONGEST = 64 << 10

Portable = Literal["refuse", "warn", "off"]


@dataclass(frozen=True, slots=True)
class DraftLimits:
    """What one commit may hold; sizes in bytes."""

    operations: int = 25_000
    inline: int = 512 << 20
    """All file contents together, LFS objects not counted."""
    file: int = 100 << 20
    """One file content; larger ones belong to LFS."""
    message: int = 64 << 10
    """Summary and description together."""


@dataclass(frozen=True, slots=True)
class PutFile:
    """A path becomes a file with a blob of the spool."""

    path: bytes
    blob: str


@dataclass(frozen=True, slots=True)
class PutLarge:
    """A path becomes a pointer; `size` is None where the client leaves it to us."""

    path: bytes
    oid: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Delete:
    """A path, file or folder, goes away."""

    path: bytes


Operation = PutFile | PutLarge | Delete


class Draft:
    """A commit being collected. Not thread-safe; leaving it removes its files."""

    def __init__(self, folder: Path, name: str, *, limits: DraftLimits, portable: Portable) -> None:
        self.spool = Spool(folder, name)
        self.message = ""
        self.parent: str | None = None
        """The tip that the client saw: a full id or a prefix of it."""
        self.operations: list[Operation] = []
        self._limits = limits
        self._portable = portable

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.spool.close()

    def head(self, summary: str, description: str = "", parent: str | None = None) -> None:
        """Take title, description and the tip that the client saw.

        Raises: BadBody, TooLarge.
        """
        if not summary.strip():
            raise BadBody("A commit needs a summary.")
        if len(summary) + len(description) > self._limits.message:
            raise TooLarge(f"Summary and description are limited to {self._limits.message} characters.")
        if parent is not None and not (is_sha(parent) or is_sha_prefix(parent)):
            raise BadBody("parentCommit must be a commit id of 7 to 40 lower-case hex digits.")
        self.message = f"{summary}\n\n{description}" if description.strip() else summary
        self.parent = parent

    def file(self, path: str, size: int, pieces: Iterable[bytes]) -> None:
        """Take a file of `size` bytes.

        Raises: BadPath, TooLarge, SizeMismatch.
        """
        checked = self._path(path)
        self._count()
        if size > self._limits.file:
            raise TooLarge(
                f"{path[:200]!r} has {size} bytes; more than {self._limits.file} belong to LFS (WEIGHTROOM_MAX_BLOB)."
            )
        if self.spool.inflated + size > self._limits.inline:
            raise TooLarge(
                f"File contents in one commit are limited to {self._limits.inline} bytes: commit fewer files "
                "at once, or store them with LFS."
            )
        self.operations.append(PutFile(checked, self.spool.add(size, pieces)))

    def large_file(self, path: str, oid: str, size: int | None) -> None:
        """Take an LFS object of this repo as a file.

        Raises: BadPath, BadBody, TooLarge.
        """
        checked = self._path(path)
        self._count()
        if not is_oid(oid):
            raise BadBody(f"The oid of {path!r} is not a SHA-256 in lower-case hex.")
        if size is not None and size < 0:
            raise BadBody(f"The size of {path!r} is negative.")
        self.operations.append(PutLarge(checked, oid, size))

    def delete(self, path: str) -> None:
        """Take the removal of a file or folder. Any name may be removed, also one that could not be added.

        Raises: BadPath, TooLarge.
        """
        self._count()
        trimmed = path.strip("/")
        try:
            encoded = trimmed.encode()
        except UnicodeEncodeError as error:
            raise BadPath(f"{path[:200]!r} is not a path: it is not valid Unicode.") from error
        if not encoded or len(encoded) > _LONGEST:
            raise BadPath(f"{path[:200]!r} is not a path of a file or folder.")
        self.operations.append(Delete(encoded))

    def _count(self) -> None:
        if len(self.operations) >= self._limits.operations:
            raise TooLarge(f"A commit is limited to {self._limits.operations} operations: split it into several.")

    def _path(self, path: str) -> bytes:
        if len(path) > fsck.LONGEST_PATH:
            # Before anything looks into it: a line may hold a path of many millions of parts.
            raise BadPath(f"A path of more than {fsck.LONGEST_PATH} bytes is not allowed.")
        refused = (Severity.REFUSE, Severity.PORTABLE) if self._portable == "refuse" else (Severity.REFUSE,)
        for finding in fsck.check_path(path):
            if finding.severity in refused:
                raise BadPath(f"{path[:200]!r} is not allowed as a path: {finding.text}.")
        return path.encode()
