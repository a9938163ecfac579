"""An upload is bytes first, then the link; whoever fails in between has linked nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import DigestMismatch, LfsError, ObjectAbsent, QuotaExceeded, SizeConflict, Unavailable
from lfs.grants import Grant
from lfs.host import Held, ObjectState, Opening, Proof, UploadMode, Wanted
from lfs.store import lfs_key, staging_key
from lfs.uploads import Uploads, parse_verify
from tests.contracts.memory_store import MemoryStore
from tests.lfs.memory_host import MemoryHost

BODY = b"weights" * 100
OID = hashlib.sha256(BODY).hexdigest()


def granted(host: MemoryHost, repo_id: int = 1) -> Grant:
    upload = host.begin(repo_id, 1, [Opening(Wanted(OID, len(BODY)), "proxy")])[OID]
    return Grant("put", repo_id, OID, len(BODY), 0, 1, upload.id)


def test_eight_uploads_of_one_object_all_succeed() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    grants = [granted(host, repo_id) for repo_id in (1, 2) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda grant: uploads.take(grant, [BODY]), grants))
    assert host.links == {(1, OID), (2, OID)}
    assert store.objects == {lfs_key(OID): BODY}


def test_objects_that_come_together_are_judged_each_for_itself() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    good, wrong, gone, twin = (granted(host, repo_id) for repo_id in (1, 2, 1, 2))
    del host.uploads[gone.upload]
    found = uploads.take_all([(good, BODY), (wrong, bytes(len(BODY))), (gone, BODY), (twin, BODY)])
    assert [type(each) for each in found] == [type(None), DigestMismatch, ObjectAbsent, type(None)]
    assert host.links == {(1, OID), (2, OID)}
    assert store.objects == {lfs_key(OID): BODY}


def test_a_host_that_refuses_at_the_end_has_made_no_link() -> None:
    class Full(MemoryHost):
        def finish(self, upload_id: str, key: str, proof: Proof) -> str:
            raise QuotaExceeded("The repo is full.")

    host, store = Full(), MemoryStore()
    with pytest.raises(QuotaExceeded):
        Uploads(host=host, store=store, told=lambda: None).take(granted(host), [BODY])
    with pytest.raises(ObjectAbsent):
        Uploads(host=host, store=store, told=lambda: None).confirm(1, OID, len(BODY))


def test_an_upload_that_was_given_up_links_nothing() -> None:
    host, store = MemoryHost(), MemoryStore()
    grant = granted(host)
    host.uploads.clear()
    with pytest.raises(ObjectAbsent):
        Uploads(host=host, store=store, told=lambda: None).take(grant, [BODY])
    assert host.links == set()


def test_wrong_bytes_never_reach_the_host() -> None:
    host, store = MemoryHost(), MemoryStore()
    with pytest.raises(DigestMismatch):
        Uploads(host=host, store=store, told=lambda: None).take(granted(host), [bytes(len(BODY))])
    assert (host.links, host.objects, store.objects) == (set(), {}, {})


@pytest.mark.parametrize("state", ["damaged", "condemned", "deleting"])
def test_bytes_that_may_go_or_are_damaged_are_not_taken_for_the_new_ones(state: ObjectState) -> None:
    host, store = MemoryHost(), MemoryStore()
    store.objects[lfs_key(OID)] = bytes(len(BODY))
    host.objects[OID] = Held(len(BODY), lfs_key(OID), state, linked=False)
    Uploads(host=host, store=store, told=lambda: None).take(granted(host), [BODY])
    held = host.look(1, [OID])[OID]
    assert held.state == "stored"
    assert store.objects[held.key] == BODY


def test_verify_compares_the_size() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    uploads.take(granted(host), [BODY])
    uploads.confirm(1, OID, len(BODY))
    with pytest.raises(SizeConflict):
        uploads.confirm(1, OID, 1)
    with pytest.raises(ObjectAbsent):
        uploads.confirm(2, OID, len(BODY))


def opened(host: MemoryHost, mode: UploadMode, repo_id: int = 1) -> Grant:
    """Open an upload that goes past us; returns its leave to verify."""
    upload = host.begin(repo_id, 1, [Opening(Wanted(OID, len(BODY)), mode)])[OID]
    return Grant("verify", repo_id, OID, len(BODY), 0, 1, upload.id)


def test_a_signed_upload_is_linked_by_verify_from_its_own_key_only() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    uploads.take(granted(host, 2), [BODY])
    grant = opened(host, "direct")
    with pytest.raises(ObjectAbsent):
        uploads.verify(grant, len(BODY))
    store.objects[lfs_key(OID, grant.upload)] = BODY
    with pytest.raises(SizeConflict):
        uploads.verify(grant, len(BODY) + 1)
    for _ in range(2):
        uploads.verify(grant, len(BODY))
    assert (1, OID) in host.links
    # The store had the object already: what came is not kept a second time.
    assert store.objects == {lfs_key(OID): BODY}


def test_a_staged_upload_waits_for_its_proof_after_verify() -> None:
    told = []
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: told.append(1))
    grant = opened(host, "staging")
    store.objects[staging_key(grant.upload)] = BODY
    for _ in range(2):
        uploads.verify(grant, len(BODY))
    assert (told, host.links, host.uploads[grant.upload].state) == ([1], set(), "arrived")
    host.fail(grant.upload, "The bytes hash to something else.")
    with pytest.raises(ObjectAbsent, match="something else"):
        uploads.verify(grant, len(BODY))


def test_verify_is_content_when_the_repo_got_the_object_in_another_way() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    grants = [opened(host, mode) for mode in ("direct", "staging", "multipart", "proxy")]
    for grant in grants:
        with pytest.raises(ObjectAbsent):
            uploads.verify(grant, len(BODY))
    uploads.take(granted(host), [BODY])
    for grant in grants:
        uploads.verify(grant, len(BODY))


def test_verify_of_an_upload_that_is_done_is_one_question() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    grant = granted(host)
    uploads.take(grant, [BODY])
    host.looks, store.objects = 0, {}
    uploads.verify(grant, len(BODY))
    assert host.looks == 0


def test_bytes_that_a_store_does_not_let_go_are_left_to_its_sweep() -> None:
    class Stubborn(MemoryStore):
        def delete(self, key: str) -> None:
            raise Unavailable("The bucket is away.")

    host, store = MemoryHost(), Stubborn()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    uploads.take(granted(host, 2), [BODY])
    grant = opened(host, "direct")
    store.objects[lfs_key(OID, grant.upload)] = BODY
    uploads.verify(grant, len(BODY))
    assert (1, OID) in host.links


def test_a_shared_key_is_never_dropped() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store, told=lambda: None)
    slow = granted(host)

    def source() -> Iterator[bytes]:
        # While these bytes come, a signed upload of the same object is done.
        grant = opened(host, "direct", 2)
        store.objects[lfs_key(OID, grant.upload)] = BODY
        uploads.verify(grant, len(BODY))
        yield BODY

    uploads.take(slow, source())
    assert lfs_key(OID) in store.objects
    assert store.objects[host.objects[OID].key] == BODY


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
fields = st.dictionaries(st.sampled_from(["oid", "size", "other"]), anything)


@given(st.binary(max_size=200) | fields.map(lambda told: json.dumps(told).encode()))
def test_a_verify_of_any_shape_is_read_or_refused_in_our_words(raw: bytes) -> None:
    try:
        told = parse_verify(raw)
    except LfsError:
        return
    assert told.size >= 0
    with pytest.raises(ObjectAbsent):
        Uploads(host=MemoryHost(), store=MemoryStore(), told=lambda: None).confirm(1, told.oid, told.size)
