"""Open the shelf that a storage URL names.

file:DIR
s3://bucket/prefix?endpoint=URL&region=NAME&style=path|virtual&public=URL

`public` is the address under which clients reach the bucket, when it is another one than ours.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from lfs.errors import BadStorage
from lfs.local import GIB, LocalStore
from lfs.s3.bucket import Place
from lfs.s3.shelf import S3Store
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
            Place(
                bucket=parts.netloc,
                prefix=parts.path,
                endpoint=options.get("endpoint"),
                region=options.get("region") or "us-east-1",
                style=options.get("style", "path"),
                access_key=access_key,
                secret_key=secret_key,
                public=options.get("public"),
            )
        )
    raise BadStorage("The storage URL is neither file:DIR nor s3://bucket/prefix?endpoint=…&region=…&style=path.")


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := set(options) - {"endpoint", "region", "style", "public"}:
        raise BadStorage(f"The storage URL has an unknown option: {', '.join(sorted(unknown))}.")
    if options.get("style", "path") not in ("path", "virtual"):
        raise BadStorage("The storage URL's style is path or virtual.")
    for name in ("endpoint", "public"):
        if options.get(name):
            _check_address(name, options[name], virtual=options.get("style") == "virtual")
    return options


def _check_address(name: str, url: str, *, virtual: bool) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", 0
    if not host or port == 0 or parts.scheme not in ("http", "https") or parts.query or parts.username is not None:
        raise BadStorage(f"The storage URL's {name} is http://host:port or https://host:port, escaped where needed.")
    if virtual and _is_numeric(host):
        raise BadStorage(f"With style=virtual the storage URL's {name} needs a host name, not an address.")


def _is_numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
