"""The registry's settings: read once at the top, checked together, passed on as plain values."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from registry import settings
from registry.settings import GIB, MIB

PREFIX = "WEIGHTROOM_"

# fmt: off
SIDECAR_NAMES = frozenset({
    "REGISTRY", "REGISTRY_TOKEN", "MODELS", "SIDECAR_HOST", "SIDECAR_PORT", "DEVICE", "CHECKOUTS", "API_KEYS",
    "MODEL_BYTES", "IDLE_SECONDS", "SHARED_STORE", "DTYPE", "QUANTIZE", "MAX_QUEUE", "DEADLINE", "DRAIN_SECONDS",
    "LOAD_SECONDS", "REFRESH", "ALLOW_PICKLE", "CHECKOUT_BYTES", "QUEUE",
})
"""Settings of the sidecar, which shares the prefix and often the environment: known here, and passed by."""
# fmt: on
_PASSED_BY = ("TEST_", "REQUIRE", "FAILPOINTS")

_SECRET_BYTES = 32
_ENDPOINT = re.compile(r"[?&](endpoint=[^&]*)")


class ConfigError(Exception):
    """One or more settings cannot be used; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What an operator can set; each variable is the field's name in capitals after `WEIGHTROOM_`."""

    data: Path = Path("data")
    """Folder of the embedded database, the store, the caches and the secret."""
    database: str | None = field(default=None, repr=False)
    """`sqlite:///FILE` or `postgresql+psycopg://USER:PASSWORD@HOST/NAME`; unset: `registry.db` in `DATA`."""
    storage: str | None = None
    """`file:DIR` or `s3://BUCKET/PREFIX?endpoint=URL&public=URL&region=NAME&style=path`; unset: `objects` in `DATA`."""
    s3_access_key: str | None = None
    """Access key of the bucket; unset: boto3's own chain of files and variables."""
    s3_secret_key: str | None = field(default=None, repr=False)
    """Secret key of the bucket; goes with `S3_ACCESS_KEY`."""
    storage_from: str | None = None
    """The storage that is being left: what is not yet in `STORAGE` is read from here; see `weightroom storage copy`."""
    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` opens the server to the network."""
    port: int = 8000
    """Port to listen on; 0 takes a free one and prints it."""
    workers: int = 1
    """Server processes; more than one needs several cores and shares the database and the store."""
    public_url: str | None = None
    """What clients see, such as `https://models.example` or `https://example.org/models`; unset: from each request."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Addresses or networks, comma-separated, whose `X-Forwarded-*` headers are believed."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages, comma-separated, whose scripts may read answers; `*` for all; no cookies are involved."""
    secret: tuple[bytes, ...] = field(default=(), repr=False)
    """Key that signs grants, 32 characters or more; two, comma-separated, change it; unset: a file in `DATA`."""
    fsync: Literal["always", "never"] = "always"
    """`always`, or `never`, which gives up the promise that acknowledged writes survive a power cut."""
    min_free: int = 2 * GIB
    """Free bytes of the disk below which writes are refused; reads go on."""
    threads: int = 40
    """Requests with small bodies that run at once in one process."""
    byte_threads: int = 40
    """Transfers of large bodies that run at once in one process."""
    upload_slots: int = 64
    """Uploads of LFS objects through one process at once; more are asked to come back."""
    download: Literal["redirect", "proxy"] = "redirect"
    """`redirect` sends downloads of LFS objects to the bucket itself; `proxy` sends them through this server."""
    upload: Literal["direct", "staging", "proxy"] = "direct"
    """`direct` sends uploads to a bucket that enforces hashes, `staging` to any, `proxy` through this server."""
    multipart_threshold: int = GIB
    """Size from which clients that can upload an LFS object in parts are asked to."""
    part_size: int = 64 * MIB
    """Size of such a part; grown for objects that would have more than 10,000 of them."""
    proof_seconds: int = 600
    """How long a commit waits for uploads of its objects to be read back and hashed."""
    xet: bool = True
    """`on`: large files come and go by Xet, as current Hugging Face clients want; `off`: writers turn Xet off, too."""
    xet_domain: Literal["namespace", "repo", "instance"] = "namespace"
    """Within what chunks are shared: `namespace` (its public and its private repos apart), `repo` or `instance`."""
    xet_ingest: Literal["auto", "off", "keep"] = "auto"
    """`auto`, with `hf_xet` installed: large files that came by Git LFS are kept by their chunks, after a day only so;
    clients without Xet then get them through this server, not a bucket. `keep`: whole as well. `off`: only whole."""
    xet_scrub: int = 20_000_000
    """Bytes in a second of stored chunks that each process reads again and proves, all within a month; 0: none."""
    quota: int | None = None
    """Bytes that a namespace may hold unless it has a quota of its own; unset: no limit."""
    gc: Literal["daily", "off"] = "daily"
    """`daily` collects once a day what no ref has needed for weeks; `off` leaves it to `weightroom gc`."""
    heavy: int = field(default_factory=lambda: max(1, min(os.cpu_count() or 1, 8)))
    """Child processes that check pushes; each may take a core and up to 4 GiB."""
    pack_cache: int = 10 * GIB
    """Bytes of disk that copies of git packs from a bucket may take; a local store needs none."""
    memory_cache: int = 128 * MIB
    """Bytes of memory in each process for trees, small files and cards."""
    anonymous_read: bool = True
    """`on`: public repositories are readable without a token. `off`: everybody brings one."""
    max_pack: int = 2 * GIB
    """Largest pack of one push, compressed; weights belong in LFS."""
    max_inflated: int = 8 * GIB
    """Largest sum of the objects of one push, inflated."""
    max_objects: int = 1_000_000
    """Most git objects in one push."""
    max_blob: int = 100 * MIB
    """Largest file that may live in git itself and not in LFS."""
    max_file: int | None = None
    """Largest LFS object; unset: no limit."""
    limit_api: int = 1_000
    """Requests in 300 s from one address to the Hub API; a user gets ten times as many; 0: no limit."""
    limit_resolve: int = 10_000
    """The same for downloads of files."""
    limit_git: int = 600
    """The same for git."""
    limit_lfs: int = 3_000
    """The same for Git LFS."""
    limit_xet: int = 100_000
    """The same for Xet, where every small file is a request; those that carry bytes do not count."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Check every `WEIGHTROOM_*` variable; an empty one counts as unset.

        Raises: ConfigError, naming all that is wrong and not only the first.
        """
        found = {name[len(PREFIX) :]: text.strip() for name, text in environ.items() if name.startswith(PREFIX)}
        problems = [f"{PREFIX}{name}: no such setting" for name in sorted(found) if not _known(name)]
        values: dict[str, object] = {}
        for name, parse in settings.PARSERS.items():
            text = found.get(name, "")
            if not text:
                continue
            try:
                values[name.lower()] = parse(text)
            except ValueError as error:
                shown = "" if name in settings.HIDDEN else f" {text!r}"
                problems.append(f"{PREFIX}{name}:{shown} {error}")
        problems += _crossed(values)
        if problems:
            raise ConfigError(problems)
        return cls(**values)  # type: ignore[arg-type]  # each value was made by the parser of its own field

    @property
    def database_url(self) -> str:
        """Where the rows are."""
        return self.database or f"sqlite:///{self.data.absolute() / 'registry.db'}"

    @property
    def storage_url(self) -> str:
        """Where the bytes are."""
        return self.storage or f"file:{self.data.absolute() / 'objects'}"

    @property
    def embedded(self) -> bool:
        """True if the rows are in a file of this machine."""
        return self.database_url.startswith("sqlite")

    @property
    def durable(self) -> bool:
        """True if acknowledged writes survive a power cut."""
        return self.fsync == "always"

    def secrets(self) -> tuple[bytes, ...]:
        """Return the keys that sign, newest first; without a setting the one in `DATA/secret`, made when absent.

        Raises: ConfigError (the file cannot be made or read, or is too short to be ours).
        """
        return self.secret or (_secret_file(self.data / "secret"),)


def names() -> tuple[str, ...]:
    """Name every setting, as its variable is called."""
    return tuple(PREFIX + one.name.upper() for one in fields(Config))


def _known(name: str) -> bool:
    return name in settings.PARSERS or name in SIDECAR_NAMES or name.startswith(_PASSED_BY)


def _crossed(values: Mapping[str, object]) -> list[str]:
    """Find what is wrong only in company."""
    problems = []
    if ("s3_access_key" in values) != ("s3_secret_key" in values):
        problems.append(f"{PREFIX}S3_ACCESS_KEY and {PREFIX}S3_SECRET_KEY: set both or none")
    if values.get("port") == 0 and values.get("workers", 1) != 1:
        problems.append(f"{PREFIX}PORT: 0 works with one worker only")
    left, to = values.get("storage_from"), values.get("storage") or _default_storage(values)
    if left and _place(left) == _place(to):
        problems.append(f"{PREFIX}STORAGE_FROM: names the same place as {PREFIX}STORAGE; unset it")
    return problems


def _default_storage(values: Mapping[str, object]) -> str:
    return f"file:{Path(str(values.get('data', 'data'))) / 'objects'}"


def _place(url: object) -> str:
    """Name where a storage URL leads, one name for each place as far as can be told without going there."""
    text = str(url)
    if text.startswith("file:"):
        return "file:" + os.path.abspath(text.removeprefix("file:").removeprefix("//"))
    return text.partition("?")[0].rstrip("/") + "".join(sorted(_ENDPOINT.findall(text)))


def _secret_file(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_secret(path)
        # A copy or a restore may have opened it to others.
        path.chmod(0o600)
        found = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: the server's secret cannot be kept there: {error.strerror}"]) from error
    if len(found) < _SECRET_BYTES:
        raise ConfigError([f"{path}: holds fewer than {_SECRET_BYTES} bytes; delete it to have a new one made"])
    return found


def _make_secret(path: Path) -> None:
    """Write the file aside and link it, so that several processes that start at once agree on one whole secret."""
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".secret-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(aside)
