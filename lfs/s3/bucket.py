"""The connection to a bucket: a client whose calls end within bounds, and what the bucket refuses in our words.

Every call is tried at most three times and may be repeated: a lost answer to a success is the normal case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from lfs.errors import Damaged, Denied, LfsError, Missing, NoSpace, RangeUnsatisfiable, SizeMismatch, Unavailable
from lfs.presign import Credentials
from lfs.store import check_key

TRIES = 3


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that one try may take to connect, and to wait for the next byte."""

    connect: float = 5.0
    read: float = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bucket is, and as whom we come.

    `prefix` stands before every key. `endpoint` None is Amazon's own. `style` is `path` or `virtual`. Keys of None
    leave it to boto3's own chain: environment, profile, role. `public` is the address under which clients reach the
    bucket, if it is another one.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    style: str = "path"
    access_key: str | None = None
    secret_key: str | None = None
    public: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a URL; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Bucket:
    """One boto3 client, shared by threads, and the names that objects have in the bucket."""

    def __init__(self, place: Place, patience: Patience) -> None:
        self.place, self._patience = place, patience
        self.prefix = place.prefix.strip("/") + "/" if place.prefix.strip("/") else ""
        self._session = _session(place)
        self.client = _connect(self._session, place, patience)

    @property
    def endpoint(self) -> str:
        """The address that requests go to, Amazon's own one included."""
        return str(self.client.meta.endpoint_url)

    def at(self, key: str) -> dict[str, str]:
        """Name an object as boto3 does. Raises: BadKey."""
        return {"Bucket": self.place.bucket, "Key": self.prefix + check_key(key)}

    def credentials(self) -> Credentials:
        """Return keys that are good now; temporary ones are renewed when they near their end. Raises: Denied."""
        found = self._session.get_credentials()
        if found is None:
            raise Denied("There are no keys for the bucket; set S3_ACCESS_KEY and S3_SECRET_KEY.")
        with told("the bucket's keys"):
            frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")

    def fetch(self, method: str, href: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Go to a signed URL as a client would, once; by the proxies and authorities that we use ourselves.

        Raises: Unavailable.
        """
        from botocore.awsrequest import AWSRequest
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        web = URLLib3Session(
            verify=self._session.get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(href),
            timeout=(self._patience.connect, self._patience.read),
        )
        try:
            with told("the bucket"):
                answer = web.send(AWSRequest(method, href, dict(headers), body).prepare())
        finally:
            web.close()
        return Answer(
            answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, answer.content
        )


def _session(place: Place) -> Any:
    from botocore.session import get_session

    session = get_session()
    session.register_component("data_loader", _models())
    if place.access_key and place.secret_key:
        session.set_credentials(place.access_key, place.secret_key)
    return session


@cache
def _models() -> Any:
    """Return the descriptions of services that boto3 reads, once for all connections of a process.

    Reading them is nearly all that opening a bucket costs: 80 ms of CPU, and 10 without.
    """
    from botocore.session import get_session

    return get_session().get_component("data_loader")


def _connect(session: Any, place: Place, patience: Patience) -> Any:
    """Return a boto3 client whose calls end within bounds."""
    from boto3.session import Session
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": place.style},
        connect_timeout=patience.connect,
        read_timeout=patience.read,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=64,
        tcp_keepalive=True,
        # Since 1.36 the defaults add CRC32 trailers that other servers than Amazon's refuse or mis-answer.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = Session(botocore_session=session, region_name=place.region).client
    return client("s3", endpoint_url=place.endpoint or None, config=config)


@contextmanager
def told(key: str) -> Iterator[None]:
    """Say what the bucket refused, in our words."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _translated(error.response, key) from error
    except BotoCoreError as error:
        raise Unavailable(f"The bucket does not answer ({type(error).__name__}); try again.") from error


def said(answer: Any, name: str) -> Any:
    """Return what every answer of a bucket has; one without it came from something in between, and nothing was done.

    Raises: Unavailable.
    """
    try:
        return answer[name]
    except KeyError as error:
        raise Unavailable(
            f"What answers for the bucket is none ({name} is missing); look at what is between."
        ) from error


def _translated(response: Any, key: str) -> LfsError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = response.get("Error", {}).get("Code", "")
    if code == "NoSuchBucket":
        return Denied("The bucket does not exist; make it, or correct WEIGHTROOM_STORAGE.")
    if code == "EntityTooSmall":
        return SizeMismatch("The bucket takes no part below 5 MiB but the last; raise PART_SIZE.")
    if status == 404 or code in ("NoSuchKey", "NoSuchUpload", "InvalidPart", "404"):
        return Missing(f"Nothing is stored as {key}.")
    if status == 416 or code == "InvalidRange":
        return RangeUnsatisfiable(f"{key} does not have that range.", size=0)
    if code in ("QuotaExceeded", "XMinioStorageFull", "EntityTooLarge") or status == 507:
        return NoSpace(f"The bucket takes no more ({code}); free space, then send again.")
    if status == 412:
        return Damaged(f"{key} changed while it was read; run `weightroom fsck --read-data`.")
    if status == 501:
        return Denied(f"The bucket's server cannot do this ({code}); use another storage server.")
    if status in (301, 401, 403) or code in ("AuthorizationHeaderMalformed", "ExpiredToken", "InvalidToken"):
        return Denied(f"The bucket refuses our keys ({code}); check S3_ACCESS_KEY, S3_SECRET_KEY and their rights.")
    return Unavailable(f"The bucket failed ({status} {code}); try again.")
