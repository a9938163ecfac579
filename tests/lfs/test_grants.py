"""A grant opens one act on one object until its time; nothing else passes for one."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import GrantInvalid
from lfs.grants import Grant, Grants, brief, lasting

OID = "ab" * 32
GRANT = Grant("put", 7, OID, 1234, 1_000_100, 42, "0123456789abcdef" * 2)
numbers = st.integers(0, 2**64 - 1)
grants = st.builds(
    Grant,
    st.sampled_from(["get", "put", "verify", "part", "complete", "tus"]),
    numbers,
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    numbers,
    st.integers(1_000_000, 2**64 - 1),
    numbers,
    st.binary(min_size=16, max_size=16).map(lambda raw: raw.hex() if any(raw) else ""),
)


def grants_at(now: float, *secrets: bytes) -> Grants:
    return Grants(secrets or (b"secret",), lambda: now)


@given(grants)
def test_a_grant_survives_its_text(grant: Grant) -> None:
    ours = grants_at(1_000_000)
    assert ours.read(ours.issue(grant), grant.op, grant.oid) == grant


@given(st.text(max_size=200))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(GrantInvalid):
        grants_at(0).read(text, "get", OID)


def test_no_byte_can_be_changed() -> None:
    ours = grants_at(1_000_000)
    raw = bytearray(urlsafe_b64decode(ours.issue(GRANT) + "=="))
    for at in range(len(raw)):
        forged = bytes(raw[:at]) + bytes([raw[at] ^ 1]) + bytes(raw[at + 1 :])
        with pytest.raises(GrantInvalid):
            ours.read(urlsafe_b64encode(forged).rstrip(b"=").decode(), "put", OID)


def test_a_grant_is_for_its_act_and_object() -> None:
    ours = grants_at(1_000_000)
    text = ours.issue(GRANT)
    for op, oid in (("get", OID), ("verify", OID), ("put", "cd" * 32)):
        with pytest.raises(GrantInvalid):
            ours.read(text, op, oid)  # type: ignore[arg-type]


def test_a_grant_for_an_upload_is_for_no_other() -> None:
    ours = grants_at(1_000_000)
    text = ours.issue(GRANT)
    assert ours.read_for(text, "put", GRANT.upload) == GRANT
    nameless = ours.issue(replace(GRANT, upload=""))
    for told, op, upload in ((text, "part", GRANT.upload), (text, "put", "ab" * 16), (nameless, "put", "")):
        with pytest.raises(GrantInvalid):
            ours.read_for(told, op, upload)  # type: ignore[arg-type]


@given(grants)
def test_a_claim_signed_by_another_key_is_refused(grant: Grant) -> None:
    forged = grants_at(1_000_000, b"another").issue(grant)
    with pytest.raises(GrantInvalid, match="not made by this server"):
        grants_at(1_000_000).read(forged, "put", OID)


def test_a_grant_ends() -> None:
    text = grants_at(1_000_000).issue(GRANT)
    assert grants_at(1_000_100).read(text, "put", OID) == GRANT
    with pytest.raises(GrantInvalid, match="expired"):
        grants_at(1_000_101).read(text, "put", OID)


def test_the_key_before_is_still_accepted_and_no_longer_signs() -> None:
    before, rotated, after = (grants_at(1_000_000, *keys) for keys in ((b"old",), (b"new", b"old"), (b"new",)))
    assert rotated.read(before.issue(GRANT), "put", OID) == GRANT
    assert after.read(rotated.issue(GRANT), "put", OID) == GRANT
    with pytest.raises(GrantInvalid):
        after.read(before.issue(GRANT), "put", OID)


def test_a_grant_for_nobody_and_no_upload() -> None:
    grant = replace(GRANT, actor_id=0, upload="")
    ours = grants_at(1_000_000)
    assert ours.read(ours.issue(grant), "put", OID) == grant


def test_leave_lasts_as_long_as_it_is_needed() -> None:
    assert (brief(1), brief(1 << 31)) == (900, 6 * 3600)
    assert (lasting(1), lasting(200_000 << 20), lasting(1 << 60)) == (86400, 200_000, 7 * 86400)
