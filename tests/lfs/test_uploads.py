"""An upload is bytes first, then the link; whoever fails in between has linked nothing."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from lfs.errors import Busy, DigestMismatch, ObjectAbsent, QuotaExceeded, SizeConflict
from lfs.grants import Grant
from lfs.host import Held, Proof, Wanted
from lfs.store import lfs_key
from lfs.uploads import Uploads
from tests.contracts.memory_store import MemoryStore
from tests.lfs.memory_host import MemoryHost

BODY = b"weights" * 100
OID = hashlib.sha256(BODY).hexdigest()


def granted(host: MemoryHost, repo_id: int = 1) -> Grant:
    upload = host.begin(repo_id, 1, [Wanted(OID, len(BODY))])[OID]
    return Grant("put", repo_id, OID, len(BODY), 0, 1, upload)


def test_eight_uploads_of_one_object_all_succeed() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store)
    grants = [granted(host, repo_id) for repo_id in (1, 2) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda grant: uploads.take(grant, [BODY]), grants))
    assert host.links == {(1, OID), (2, OID)}
    assert store.objects == {lfs_key(OID): BODY}


def test_a_host_that_refuses_at_the_end_has_made_no_link() -> None:
    class Full(MemoryHost):
        def finish(self, upload_id: str, key: str, proof: Proof) -> None:
            raise QuotaExceeded("The repo is full.")

    host, store = Full(), MemoryStore()
    with pytest.raises(QuotaExceeded):
        Uploads(host=host, store=store).take(granted(host), [BODY])
    with pytest.raises(ObjectAbsent):
        Uploads(host=host, store=store).confirm(1, OID, len(BODY))


def test_an_upload_that_was_given_up_links_nothing() -> None:
    host, store = MemoryHost(), MemoryStore()
    grant = granted(host)
    host.uploads.clear()
    with pytest.raises(ObjectAbsent):
        Uploads(host=host, store=store).take(grant, [BODY])
    assert host.links == set()


def test_wrong_bytes_never_reach_the_host() -> None:
    host, store = MemoryHost(), MemoryStore()
    with pytest.raises(DigestMismatch):
        Uploads(host=host, store=store).take(granted(host), [bytes(len(BODY))])
    assert (host.links, host.objects, store.objects) == (set(), {}, {})


def test_damaged_bytes_of_another_repo_are_not_taken_for_the_new_ones() -> None:
    host, store = MemoryHost(), MemoryStore()
    store.objects[lfs_key(OID)] = bytes(len(BODY))
    host.objects[OID] = Held(len(BODY), lfs_key(OID), "damaged", linked=False)
    Uploads(host=host, store=store).take(granted(host), [BODY])
    held = host.look(1, [OID])[OID]
    assert held.state == "stored"
    assert store.objects[held.key] == BODY


def test_bytes_that_are_being_deleted_are_not_written_to() -> None:
    host, store = MemoryHost(), MemoryStore()
    host.objects[OID] = Held(len(BODY), lfs_key(OID), "deleting", linked=False)
    with pytest.raises(Busy):
        Uploads(host=host, store=store).take(granted(host), [BODY])


def test_verify_compares_the_size() -> None:
    host, store = MemoryHost(), MemoryStore()
    uploads = Uploads(host=host, store=store)
    uploads.take(granted(host), [BODY])
    uploads.confirm(1, OID, len(BODY))
    with pytest.raises(SizeConflict):
        uploads.confirm(1, OID, 1)
    with pytest.raises(ObjectAbsent):
        uploads.confirm(2, OID, len(BODY))
