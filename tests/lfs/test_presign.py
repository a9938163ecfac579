"""Signed URLs say exactly what botocore's own signer says: it is the judge here, at the same instant."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st

from lfs.presign import LONGEST_SECONDS, Address, Credentials, Signer

KEYS = Credentials("AKEXAMPLE", "secret/with+signs")
TEMPORARY = Credentials("ASEXAMPLE", "other secret", "token//with+signs==")
PATH = Address.of("http://127.0.0.1:9000", "weights")

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
# No two slashes together and no dots alone: botocore would still sign them, but no client would send them so.
paths = st.lists(words.filter(lambda word: "/" not in word and word not in (".", "..")), min_size=1, max_size=4)
values = st.lists(st.text("abYZ09/+=-;:,", min_size=1, max_size=9), min_size=1, max_size=3).map("  ".join)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)


def signer(credentials: Credentials = KEYS, now: float = 1_800_000_000.0) -> Signer:
    return Signer(lambda: credentials, "eu-central-1", clock=lambda: now)


def judged(href: str, method: str, headers: dict[str, str], credentials: Credentials = KEYS) -> str:
    """Return the signature that botocore gives the same request at the instant that the URL names."""
    parts = urlsplit(href)
    asked = {name: found for name, (found,) in parse_qs(parts.query, keep_blank_values=True).items()}
    own = {name: asked.pop(name) for name in list(asked) if name.startswith("X-Amz-")}
    at = datetime.strptime(own["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    request = AWSRequest(method, f"{parts.scheme}://{parts.netloc}{parts.path}", headers, params=asked)
    keys = BotocoreCredentials(credentials.access_key, credentials.secret_key, credentials.token or None)
    auth = S3SigV4QueryAuth(keys, "s3", "eu-central-1", expires=int(own["X-Amz-Expires"]))
    request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    auth._modify_request_before_signing(request)
    canonical = auth.canonical_request(request)
    found: str = auth.signature(auth.string_to_sign(request, canonical), request)
    theirs = {name: each for name, (each,) in parse_qs(urlsplit(request.url).query, keep_blank_values=True).items()}
    assert {**theirs, "X-Amz-Signature": found} == {**asked, **own}
    return found


def signature(href: str) -> str:
    return href.rpartition("X-Amz-Signature=")[2]


@given(
    key=paths.map("/".join),
    method=st.sampled_from(["GET", "PUT", "HEAD", "DELETE"]),
    seconds=st.integers(1, LONGEST_SECONDS),
    query=st.dictionaries(words, words, max_size=3),
    temporary=st.booleans(),
    address=st.sampled_from(
        [
            PATH,
            Address.of("https://s3.example:443", "weights"),
            Address.of("https://s3.example/behind/a%20path/", "weights"),
            Address.of("https://S3.Example:8443", "my.weights", virtual=True),
        ]
    ),
    now=st.integers(0, 4_000_000_000),
)
def test_a_url_is_the_one_that_botocore_signs(
    key: str, method: str, seconds: int, query: dict[str, str], temporary: bool, address: Address, now: int
) -> None:
    credentials = TEMPORARY if temporary else KEYS
    headers = {"content-type": "application/octet-stream"} if method == "PUT" else {}
    mine = signer(credentials, now).url(method, address, key, seconds=seconds, query=query, headers=headers)
    assert signature(mine) == judged(mine, method, headers, credentials)


@given(
    st.dictionaries(
        st.sampled_from(["content-length", "content-type", "range", "x-amz-checksum-sha256", "x-amz-meta-a"]), values
    ),
    st.none() | digests,
)
def test_headers_and_the_hash_of_the_body_are_bound(headers: dict[str, str], sha256: str | None) -> None:
    if sha256:
        headers["x-amz-content-sha256"] = sha256
    mine = signer().url("PUT", PATH, "lfs/x", seconds=60, headers=headers)
    assert signature(mine) == judged(mine, "PUT", headers)
    for name in headers:
        other = signer().url("PUT", PATH, "lfs/x", seconds=60, headers={**headers, name: headers[name] + "0"})
        assert signature(other) != signature(mine)


@pytest.mark.parametrize("style", ["path", "virtual"])
def test_an_address_is_the_one_that_boto3_goes_to(style: str) -> None:
    from botocore.config import Config

    config = Config(signature_version="s3v4", s3={"addressing_style": style})
    keys = {"aws_access_key_id": KEYS.access_key, "aws_secret_access_key": KEYS.secret_key}
    client = get_session().create_client("s3", "eu-central-1", config=config, **keys)
    asked = {"Bucket": "weights", "Key": "some prefix/lfs/é", "PartNumber": 7, "UploadId": "a/b+c", "ContentLength": 5}
    theirs = urlsplit(client.generate_presigned_url("upload_part", Params=asked, ExpiresIn=60))
    instant = parse_qs(theirs.query)["X-Amz-Date"][0]
    now = datetime.strptime(instant, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    address = Address.of(client.meta.endpoint_url, "weights", virtual=style == "virtual")
    query, headers = {"partNumber": "7", "uploadId": "a/b+c"}, {"content-length": "5"}
    mine = urlsplit(signer(now=now).url("PUT", address, asked["Key"], seconds=60, query=query, headers=headers))
    assert (mine.scheme, mine.netloc, mine.path) == (theirs.scheme, theirs.netloc, theirs.path)
    assert parse_qs(mine.query) == parse_qs(theirs.query)


def test_renewed_keys_sign_the_next_url() -> None:
    current = [KEYS]
    signs = Signer(lambda: current[0], "eu-central-1", clock=lambda: 1_800_000_000.0)
    before = signs.url("GET", PATH, "lfs/x", seconds=60)
    current[0] = TEMPORARY
    after = signs.url("GET", PATH, "lfs/x", seconds=60)
    assert signature(after) == judged(after, "GET", {}, TEMPORARY)
    assert "X-Amz-Security-Token=token%2F%2Fwith%2Bsigns%3D%3D" in after
    current[0] = KEYS
    assert signs.url("GET", PATH, "lfs/x", seconds=60) == before


def test_a_new_day_has_a_new_key() -> None:
    clock = [1_800_000_000.0]
    signs = Signer(lambda: KEYS, "eu-central-1", clock=lambda: clock[0])
    for _ in range(3):
        href = signs.url("GET", PATH, "lfs/x", seconds=60)
        assert signature(href) == judged(href, "GET", {})
        clock[0] += 86_400


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_SECONDS + 1])
def test_more_than_seven_days_are_not_signed(seconds: int) -> None:
    with pytest.raises(ValueError, match="seconds"):
        signer().url("GET", PATH, "lfs/x", seconds=seconds)


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(KEYS)
    assert "token//" not in repr(TEMPORARY)


def test_signing_costs_a_batch_next_to_nothing() -> None:
    """Beside botocore's presigning of the same URL, in one run; when this was written it was twenty times as fast."""
    client = get_session().create_client(
        "s3", "eu-central-1", aws_access_key_id=KEYS.access_key, aws_secret_access_key=KEYS.secret_key
    )
    asked = {"Bucket": "weights", "Key": "lfs/x"}

    def clocked(act: object) -> float:
        began = time.perf_counter()
        for _ in range(100):
            act()  # type: ignore[operator]
        return time.perf_counter() - began

    signs = signer()
    ours = min(clocked(lambda: signs.url("GET", PATH, "lfs/x", seconds=60)) for _ in range(3))
    theirs = min(clocked(lambda: client.generate_presigned_url("get_object", Params=asked)) for _ in range(3))
    assert ours < theirs / 4
