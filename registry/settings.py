"""Texts of settings → values; pure. Each parser raises ValueError with what the text should have been."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_UNITS = {"": 1, "B": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": TIB}
_UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"([0-9]{1,18})\s*([A-Za-z]*)")
_LISTEN = re.compile(r"[0-9A-Za-z.:_-]{1,253}")
_AUTHORITY = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_PREFIX_PART = re.compile(r"[A-Za-z0-9._~-]{1,96}")
_SHORTEST_SECRET = 32

OWN_PATHS = frozenset({"api", "datasets", "health", "lfs", "metrics", "ready", "spaces", "v1", "version", "xet"})
"""What addresses of this server begin with: a prefix of that name could not be told from them."""


def _text(text: str) -> str:
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(text)

    return parse


def size(text: str) -> int:
    """Read a size in bytes: `1048576`, `64MiB`, `10 GiB`, `2GB`."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError("is not a size such as 1048576, 64MiB or 10 GiB")
    return int(match[1]) * _UNITS[match[2].upper()]


def _some(text: str) -> int:
    found = size(text)
    if found == 0:
        raise ValueError("must be more than 0")
    return found


def _part(text: str) -> int:
    found = size(text)
    if found % MIB or not 5 * MIB <= found <= 5 * GIB:
        raise ValueError("is not a whole number of MiB from 5MiB to 5GiB")
    return found


def _switch(on: str, off: str) -> Callable[[str], bool]:
    def parse(text: str) -> bool:
        if text.lower() not in (on, off):
            raise ValueError(f"is neither {on!r} nor {off!r}")
        return text.lower() == on

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text.lower()

    return parse


def _listen(text: str) -> str:
    if not _LISTEN.fullmatch(text):
        raise ValueError("is not a host name or address")
    return text


def _origin(text: str) -> str:
    origin, path = _split_url(text)
    if path:
        raise ValueError("has more than scheme, host and port")
    return origin


def _public_url(text: str) -> str:
    origin, path = _split_url(text)
    parts = path.split("/")[1:]
    if not all(_PREFIX_PART.fullmatch(part) and part not in (".", "..") for part in parts):
        raise ValueError("has a path that is not /name or /a/name of letters, digits, '.', '_', '~' and '-'")
    if parts and parts[0] in OWN_PATHS:
        raise ValueError(f"has a path that begins with /{parts[0]}, as addresses of this server do; choose another")
    return origin + path


def _split_url(text: str) -> tuple[str, str]:
    """Return scheme, host and port of an http(s) URL, and its path without a slash at the end."""
    try:
        parts = urlsplit(text)
        port_is_a_number = parts.port is None or parts.port > 0
    except ValueError:
        port_is_a_number = False
    if not port_is_a_number or parts.scheme not in ("http", "https") or not _AUTHORITY.fullmatch(parts.netloc):
        raise ValueError("is not an http(s) URL such as https://models.example")
    if "?" in text or "#" in text:
        raise ValueError("has a query or a fragment")
    return f"{parts.scheme}://{parts.netloc}", parts.path.removesuffix("/")


def _origins(text: str) -> tuple[str, ...]:
    return ("*",) if text == "*" else tuple(_origin(part.strip()) for part in text.split(","))


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for part in text.split(","):
        try:
            found.append(ip_network(part.strip()))
        except ValueError:
            raise ValueError(f"has {part.strip()!r}, which is no address or network such as 10.0.0.0/8") from None
    return tuple(found)


def _database(text: str) -> str:
    # Other tools write these; SQLAlchemy would look for a driver that is not installed.
    for short in ("postgres://", "postgresql://"):
        if text.startswith(short):
            return "postgresql+psycopg://" + text.removeprefix(short)
    if not text.startswith(("sqlite:///", "postgresql+psycopg://")) or text == "sqlite:///":
        raise ValueError("is neither sqlite:///FILE nor postgresql+psycopg://USER:PASSWORD@HOST/NAME")
    return text


def _storage(text: str) -> str:
    if not re.fullmatch(r"file:(?!//?$).+|s3://[^/?]+(/[^?]*)?(\?.*)?", text):
        raise ValueError("is neither file:DIR nor s3://BUCKET/PREFIX?endpoint=URL&public=URL&region=NAME&style=path")
    return text


def _secrets(text: str) -> tuple[bytes, ...]:
    found = tuple(part.strip().encode() for part in text.split(","))
    if len(found) > 2:
        raise ValueError("has more than two secrets: the new one and the one before")
    if min(map(len, found)) < _SHORTEST_SECRET:
        raise ValueError(f"has a secret of fewer than {_SHORTEST_SECRET} characters")
    return found


HIDDEN = frozenset({"SECRET", "S3_SECRET_KEY", "DATABASE"})
"""Settings whose text is never shown."""

PARSERS: Mapping[str, Callable[[str], object]] = {
    "DATA": Path,
    "DATABASE": _database,
    "STORAGE": _storage,
    "STORAGE_FROM": _storage,
    "S3_ACCESS_KEY": _text,
    "S3_SECRET_KEY": _text,
    "HOST": _listen,
    "PORT": _whole(0, 65_535),
    "WORKERS": _whole(1, 256),
    "PUBLIC_URL": _public_url,
    "TRUSTED_PROXIES": _networks,
    "CORS_ORIGINS": _origins,
    "SECRET": _secrets,
    "FSYNC": _one_of("always", "never"),
    "MIN_FREE": size,
    "THREADS": _whole(1, 1_000),
    "BYTE_THREADS": _whole(1, 1_000),
    "UPLOAD_SLOTS": _whole(1, 10_000),
    "DOWNLOAD": _one_of("redirect", "proxy"),
    "UPLOAD": _one_of("direct", "staging", "proxy"),
    "MULTIPART_THRESHOLD": _some,
    "PART_SIZE": _part,
    "PROOF_SECONDS": _whole(1, 86_400),
    "XET": _switch("on", "off"),
    "XET_DOMAIN": _one_of("namespace", "repo", "instance"),
    "XET_INGEST": _one_of("auto", "off", "keep"),
    "XET_SCRUB": size,
    "QUOTA": size,
    "GC": _one_of("daily", "off"),
    "HEAVY": _whole(1, 256),
    "PACK_CACHE": size,
    "MEMORY_CACHE": size,
    "ANONYMOUS_READ": _switch("on", "off"),
    "MAX_PACK": _some,
    "MAX_INFLATED": _some,
    "MAX_OBJECTS": _whole(1, 1_000_000_000),
    "MAX_BLOB": _some,
    "MAX_FILE": _some,
    "LIMIT_API": _whole(0, 1_000_000_000),
    "LIMIT_RESOLVE": _whole(0, 1_000_000_000),
    "LIMIT_GIT": _whole(0, 1_000_000_000),
    "LIMIT_LFS": _whole(0, 1_000_000_000),
    "LIMIT_XET": _whole(0, 1_000_000_000),
}
