"""What the registry holds, asked over HTTP: which commit a name means, its files, and their proven bytes.

A token goes to the registry alone: httpx drops it when a redirect leaves for the bucket. The environment's proxies are
not used, and nothing but the registry and what it redirects to is ever asked.

Files that are kept by their chunks come whole as well, put together by the registry: hf_xet does not prove what it
fetches, and here every byte is hashed on its way to the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import httpx

from inference.errors import ModelAbsent, ModelRefused, Overloaded, Unavailable
from inference.names import ModelName, is_sha

PIECE = 1 << 20
QUESTION_SECONDS = 5.0
"""For the answer to what a name means; requests wait for it, and a former answer may stand in."""
MAX_ENTRIES = 100_000
MAX_PAGES = 1_000
TRIES = 4
"""Attempts at one file; each goes on where the last one broke off."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name, and the commit it meant when asked."""

    repo: str
    revision: str | None
    sha: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit. `sha256` is set for LFS files; `blob` is the git id of others."""

    path: str
    size: int
    blob: str
    sha256: str | None = None

    @property
    def oid(self) -> str:
        """What the bytes must hash to."""
        return self.sha256 or self.blob

    def hasher(self) -> _Hash:
        """Start the hash that proves this file."""
        return hashlib.sha256() if self.sha256 else hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Registry:
    """A client of one registry; thread-safe."""

    def __init__(self, url: str, *, seconds: float = 30.0):
        self._url = url.rstrip("/")
        # `identity`: the bytes are hashed as they come, so nobody may compress them on the way.
        self._client = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=5.0),
            follow_redirects=True,
            trust_env=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "weightroom-sidecar"},
        )

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def resolve(self, name: ModelName, token: str | None) -> Resolved:
        """Ask which commit a name means, as the owner of `token` may read it.

        Raises: ModelAbsent (absent, or hidden from this token), Unavailable (`registry_unavailable`).
        """
        path = f"{self._url}/api/models/{quote(name.repo)}"
        if name.revision is not None:
            path += f"/revision/{quote(name.revision, safe='')}"
        answer = _decoded(self._get(path, token, QUESTION_SECONDS))
        sha, repo = (answer.get("sha"), answer.get("id")) if isinstance(answer, dict) else (None, None)
        if not isinstance(sha, str) or not is_sha(sha):
            raise ModelAbsent(f"{name.repo} has no commit yet", param="model")
        return Resolved(repo if isinstance(repo, str) and repo else name.repo, name.revision, sha)

    def files(self, repo: str, sha: str, token: str | None) -> list[Entry]:
        """List the files of a commit.

        Raises: ModelAbsent, ModelRefused (a listing that is too long, or no listing), Unavailable.
        """
        following: str | None = f"{self._url}/api/models/{quote(repo)}/tree/{sha}?recursive=true"
        found: list[Entry] = []
        for _ in range(MAX_PAGES):
            if following is None:
                return found
            response = self._get(following, token)
            page = _decoded(response)
            if not isinstance(page, list):
                raise ModelRefused(f"the registry's listing of {repo}@{sha} is not a list")
            found += [_entry(item) for item in page if isinstance(item, dict) and item.get("type") == "file"]
            if len(found) > MAX_ENTRIES:
                break
            following = self._own(response.links.get("next", {}).get("url"))
        raise ModelRefused(f"{repo}@{sha} lists more than {MAX_ENTRIES} files; the sidecar takes no more")

    def fetch(self, repo: str, sha: str, entry: Entry, part: Path, token: str | None) -> None:
        """Bring a file's bytes to `part`, going on after what lies there already, and prove them.

        Durable at return. A `part` whose bytes prove wrong is removed.
        Raises: ModelAbsent, Unavailable (broken connection, wrong bytes), Overloaded (the disk is full).
        """
        url = f"{self._url}/{quote(repo)}/resolve/{sha}/{quote(entry.path)}"
        for _ in range(TRIES):
            before = part.stat().st_size if part.exists() else 0
            hasher, at = _rehash(entry, part)
            if self._append(url, token, entry, part, at, hasher) == entry.size:
                break
            if part.stat().st_size <= before:
                raise _away(f"{entry.path} broke off at byte {before}")
        if part.stat().st_size != entry.size or hasher.hexdigest() != entry.oid:
            part.unlink()
            raise _away(f"{entry.path} of {repo}@{sha} does not have the bytes that its commit names")

    def _append(self, url: str, token: str | None, entry: Entry, part: Path, at: int, hasher: _Hash) -> int:
        """Stream from byte `at`; return the size reached, which is short when the connection broke."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(part, flags if part.exists() else flags | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            if at < entry.size:
                headers = _headers(token) | ({"Range": f"bytes={at}-"} if at else {})
                try:
                    with self._client.stream("GET", url, headers=headers) as response:
                        _check(response, 206 if at and response.status_code != 200 else 200)
                        # A server that does not know Range sends the whole file: what is here already is passed over.
                        known = at if response.status_code == 200 else 0
                        # Pieces as they arrive: a chunk size would hold bytes back, and lose them when it breaks.
                        for piece in _after(response.iter_raw(), known):
                            at += len(piece)
                            if at > entry.size:
                                raise _away(f"it sends more bytes than {entry.path} has")
                            file.write(piece)
                            hasher.update(piece)
                except httpx.HTTPError:
                    pass
            file.flush()
            os.fsync(fd)
        return at

    def _get(self, url: str, token: str | None, seconds: float | None = None) -> httpx.Response:
        timeout = self._client.timeout if seconds is None else httpx.Timeout(seconds)
        try:
            response = self._client.get(url, headers=_headers(token), timeout=timeout)
        except httpx.HTTPError as error:
            raise _away(type(error).__name__) from error
        _check(response, 200)
        return response

    def _own(self, url: str | None) -> str | None:
        """Keep a page's successor only if it is this registry's: a token is about to go there."""
        if url is None:
            return None
        joined = httpx.URL(self._url + "/").join(url)
        own = httpx.URL(self._url)
        if (joined.scheme, joined.host, joined.port) != (own.scheme, own.host, own.port):
            joined = joined.copy_with(scheme=own.scheme, host=own.host, port=own.port)
        return str(joined)


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _check(response: httpx.Response, expected: int) -> None:
    status = response.status_code
    if status == expected:
        return
    if status in (401, 403, 404):
        raise ModelAbsent("no such model or revision, or your key may not read it", param="model")
    wait = response.headers.get("Retry-After", "")
    raise _away(f"it answered {status}", int(wait) if wait.isdigit() and len(wait) < 5 else 2)


def _away(why: str, wait: int = 2) -> Unavailable:
    return Unavailable(f"the registry does not serve: {why}; ask again", code="registry_unavailable", retry_after=wait)


def _decoded(response: httpx.Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise _away("its answer is not JSON") from error


def _entry(item: dict[str, object]) -> Entry:
    lfs = item.get("lfs")
    path, size, blob = item.get("path"), item.get("size"), item.get("oid")
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    is_sound = isinstance(path, str) and type(size) is int and size >= 0 and is_sha(blob)
    if not is_sound or (lfs is not None and not _is_sha256(sha256)):
        raise ModelRefused(f"the registry lists a file without path, size or id: {str(path)[:200]!r}")
    return Entry(str(path), int(str(size)), str(blob), None if sha256 is None else str(sha256))


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _rehash(entry: Entry, part: Path) -> tuple[_Hash, int]:
    """Hash what an earlier attempt left; a part longer than the file is thrown away."""
    hasher = entry.hasher()
    if not part.exists():
        return hasher, 0
    if part.stat().st_size > entry.size:
        part.unlink()
        return hasher, 0
    at = 0
    fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        for piece in _pieces(file.read):
            hasher.update(piece)
            at += len(piece)
    return hasher, at


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(PIECE):
        yield piece


def _after(pieces: Iterator[bytes], known: int) -> Iterator[bytes]:
    """Pass over the first `known` bytes."""
    for piece in pieces:
        if known < len(piece):
            yield piece[known:]
        known = max(0, known - len(piece))


@contextmanager
def disk() -> Iterator[None]:
    """Turn a full or broken disk into our refusal."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise Overloaded(f"the checkout cannot be written: {why}", code="model_capacity", retry_after=60) from error
