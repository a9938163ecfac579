"""Open the shelf that a storage URL names.

file:DIR
s3://bucket/prefix?endpoint=URL&region=NAME&style=path|virtual
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from lfs.errors import BadStorage
from lfs.local import GIB, LocalStore
from lfs.s3 import S3Store
from lfs.store import ObjectStore

LEFT_FOR_SECONDS = 7 * 24 * 3600.0
"""Age at which an unfinished file of a disk shelf is removed when the shelf is opened."""


def open_store(
    url: str,
    *,
    fsync: bool = True,
    min_free: int = 2 * GIB,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> ObjectStore:
    """Return the shelf; `fsync` and `min_free` (bytes) count on a disk, the keys in a bucket.

    Raises: BadStorage (no such kind, an option that it does not have), Denied, Unavailable.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = url.removeprefix("file:").removeprefix("//")
        if not folder:
            raise BadStorage("The storage URL names no folder; write file:DIR.")
        shelf = LocalStore(Path(folder), fsync=fsync, min_free=min_free)
        # What a crash left half-written has no name yet; nobody comes back for it after days.
        shelf.sweep(LEFT_FOR_SECONDS)
        return shelf
    if parts.scheme == "s3" and parts.netloc:
        options = _options(parts.query)
        return S3Store(
            bucket=parts.netloc,
            prefix=parts.path,
            endpoint=options.get("endpoint"),
            region=options.get("region"),
            style=options.get("style", "path"),
            access_key=access_key,
            secret_key=secret_key,
        )
    raise BadStorage("The storage URL is neither file:DIR nor s3://bucket/prefix?endpoint=…&region=…&style=path.")


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := set(options) - {"endpoint", "region", "style"}:
        raise BadStorage(f"The storage URL has an unknown option: {', '.join(sorted(unknown))}.")
    if options.get("style", "path") not in ("path", "virtual"):
        raise BadStorage("The storage URL's style is path or virtual.")
    return options
