"""The sidecar's settings: read once at the top, checked together, passed on as plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

PREFIX = "WEIGHTROOM_"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

# The registry shares the prefix, and often the environment: its names are known here, and passed by.
# fmt: off
REGISTRY_NAMES = frozenset({
    "DATA", "DATABASE", "STORAGE", "S3_ACCESS_KEY", "S3_SECRET_KEY", "HOST", "PORT", "WORKERS", "PUBLIC_URL",
    "TRUSTED_PROXIES", "RAW_ORIGIN", "CORS_ORIGINS", "SECRET", "REDIS", "XET", "XET_DOMAIN", "UPLOAD", "DOWNLOAD",
    "FSYNC", "UPLOAD_SLOTS", "MULTIPART_THRESHOLD", "XET_INGEST", "PART_SIZE", "INLINE_SIZE", "MIN_FREE", "THREADS",
    "BYTE_THREADS", "HEAVY", "PACK_CACHE", "MEMORY_CACHE", "SIGNUP", "ANONYMOUS_READ", "OUTBOUND_ALLOW", "QUEUE",
    "STORAGE_FROM", "PROOF_SECONDS", "QUOTA", "GC",
})
# fmt: on
REGISTRY_PREFIXES = ("LIMIT_", "MAX_", "TEST_", "REQUIRE", "FAILPOINTS")

_UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", re.ASCII)
_PICKLE = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", re.ASCII)
_HASH_FILE_LINE = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class WrongSettings(Exception):
    """One or more settings cannot be used; the message has one line for each."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Config:
    """What an operator can set; each variable is the field's name in capitals after `WEIGHTROOM_`."""

    registry: str
    """URL of the registry that models come from; required."""
    registry_token: str | None = field(default=None, repr=False)
    """Read token with which the sidecar itself asks the registry; callers' own tokens are used where they have one."""
    models: tuple[str, ...] = ()
    """Models to load at start and keep, comma-separated: `name[@revision]`; others load when asked for."""
    sidecar_host: str = "127.0.0.1"
    """Address to listen on."""
    sidecar_port: int = 8001
    """Port to listen on; 0 takes a free one."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    checkouts: Path = Path("checkouts")
    """Folder of checked-out revisions, one folder for each commit sha."""
    checkout_bytes: int = 100 * 2**30
    """Disk that checked-out revisions may take together, e.g. `100GiB`; those in use stay all the same."""
    api_keys: str = "registry"
    """`registry` (keys are registry tokens), `none` (loopback only), or a file with one SHA-256 in hex per line."""
    model_bytes: int | None = None
    """Device memory that loaded models may hold together, e.g. `12GiB`; unset: 80 % of the device."""
    idle_seconds: float = 300.0
    """Unload a model that nobody has used for this long; 0 keeps it until memory is needed."""
    shared_store: Path | None = None
    """The `objects` folder of a registry on the same disk: weights that lie there whole are linked, not downloaded."""
    dtype: str = "auto"
    """`auto`, `float32`, `bfloat16` or `float16`."""
    quantize: str = "none"
    """`none`, `int8` or `int4`: weights are made smaller while loading, at some cost in quality."""
    max_queue: int = 256
    """Requests that may wait for one model before new ones are refused with 429."""
    deadline: float = 600.0
    """Seconds from arrival after which a request is given up, unless it names its own `timeout`."""
    drain_seconds: float = 30.0
    """Seconds that running requests get to finish after SIGTERM."""
    load_seconds: float = 300.0
    """Seconds that a request waits for its model to load before it is told to come back."""
    refresh: float = 2.0
    """Seconds for which a branch's commit is believed before the registry is asked again."""
    allow_pickle: frozenset[str] = frozenset()
    """Revisions whose pickled weights may be loaded, comma-separated: `namespace/name@<40 hex>`."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Check every `WEIGHTROOM_*` variable.

        Raises: WrongSettings, naming all that is wrong and not only the first.
        """
        found = {name[len(PREFIX) :]: text.strip() for name, text in environ.items() if name.startswith(PREFIX)}
        problems = [f"{PREFIX}{name}: no such setting" for name in sorted(found) if not _known(name)]
        values: dict[str, object] = {}
        for name, parse in PARSERS.items():
            text = found.get(name, "")
            if not text:
                continue
            try:
                values[name.lower()] = parse(text)
            except ValueError as error:
                shown = "" if name == "REGISTRY_TOKEN" else f" {text!r}"
                problems.append(f"{PREFIX}{name}:{shown} {error}")
        problems += _crossed(values, found)
        if problems:
            raise WrongSettings(problems)
        return cls(**values)  # type: ignore[arg-type]  # each value was made by the parser of its own field


def _known(name: str) -> bool:
    return name in PARSERS or name in REGISTRY_NAMES or name.startswith(REGISTRY_PREFIXES)


def _crossed(values: Mapping[str, object], found: Mapping[str, str]) -> list[str]:
    """Find what is wrong only in company."""
    problems = []
    if not found.get("REGISTRY"):
        problems.append(f"{PREFIX}REGISTRY: missing; models come from there (--registry URL)")
    host = values.get("sidecar_host", "127.0.0.1")
    if values.get("api_keys") == "none" and host not in LOOPBACK:
        problems.append(f"{PREFIX}API_KEYS: 'none' is for loopback only, and {PREFIX}SIDECAR_HOST is {host!r}")
    return problems


def _text(text: str) -> str:
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an http(s) URL")
    if parts.username or parts.password:
        raise ValueError("carries a password; use WEIGHTROOM_REGISTRY_TOKEN")
    return text.rstrip("/")


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) or not low <= float(text) <= high:
            raise ValueError(f"is not a number of seconds from {low:g} to {high:g}")
        return float(text)

    return parse


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text, re.ASCII)
    if not match or match[2].upper() not in _UNITS or int(match[1]) == 0:
        raise ValueError("is not a size such as 8000000000 or 8GiB")
    return int(match[1]) * _UNITS[match[2].upper()]


def _names(pattern: re.Pattern[str], form: str) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        wrong = [name for name in names if not pattern.fullmatch(name)]
        if wrong:
            raise ValueError(f"has {wrong[0]!r}, which is not {form}")
        return names

    return parse


def _pickles(text: str) -> frozenset[str]:
    return frozenset(_names(_PICKLE, "namespace/name@<40 hex>")(text))


def _keys(text: str) -> str:
    if text in ("none", "registry"):
        return text
    path = Path(text)
    if not path.is_file():
        raise ValueError("is neither 'registry', 'none' nor a file")
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    if not any(lines) or any(line and not _HASH_FILE_LINE.fullmatch(line) for line in lines):
        raise ValueError("holds something other than SHA-256 lines of 64 lower-case hex digits")
    return text


PARSERS: Mapping[str, Callable[[str], object]] = {
    "REGISTRY": _url,
    "REGISTRY_TOKEN": _text,
    "MODELS": _names(_NAME, "name[@revision]"),
    "SIDECAR_HOST": _text,
    "SIDECAR_PORT": _whole(0, 65535),
    "DEVICE": _one_of("auto", "cpu", "cuda"),
    "CHECKOUTS": Path,
    "CHECKOUT_BYTES": _bytes,
    "API_KEYS": _keys,
    "MODEL_BYTES": _bytes,
    "IDLE_SECONDS": _seconds(0, 10**7),
    "SHARED_STORE": Path,
    "DTYPE": _one_of("auto", "float32", "bfloat16", "float16"),
    "QUANTIZE": _one_of("none", "int8", "int4"),
    "MAX_QUEUE": _whole(1, 100_000),
    "DEADLINE": _seconds(1, 86_400),
    "DRAIN_SECONDS": _seconds(0, 86_400),
    "LOAD_SECONDS": _seconds(1, 86_400),
    "REFRESH": _seconds(0, 86_400),
    "ALLOW_PICKLE": _pickles,
}
