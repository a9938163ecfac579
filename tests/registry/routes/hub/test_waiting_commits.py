"""Commits whose large files arrived and are not proven yet: they wait, and pass or fail with the proof."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from lfs.pointer import Pointer, canonical
from registry.errors import BadBody
from registry.tables.identity import namespaces
from registry.tables.identity import tokens as token_table
from tests.registry.writing import Writing

OID = "a" * 64
HEADER = {"key": "header", "value": {"summary": "Add", "description": ""}}
LARGE = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": OID, "size": 7}}
COMMIT = "/api/models/ann/one/commit/main"


@pytest.fixture
def hub(database, tmp_path):
    made = Writing(database, tmp_path)
    yield made
    made.gate.heavy.close()


def arrived(hub, size=7):
    upload = hub.gate.linked.begin(1, OID, size, "multipart")
    hub.gate.linked.uploads.arrive(upload.id, "key")
    return upload


def send_and(hub, act):
    """Send the commit, do something once the gate has seen it, and return the answer."""
    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(hub.send, COMMIT, [HEADER, LARGE])
        until = time.monotonic() + 20
        while not hub.gate.checked and time.monotonic() < until:
            time.sleep(0.01)
        act()
        return coming.result(timeout=20)


def test_a_commit_waits_and_then_stands(hub):
    upload = arrived(hub)
    answer = send_and(hub, lambda: hub.gate.linked.finish(upload))
    assert answer.status_code == 200, answer.text
    assert hub.files() == {"w.bin": canonical(Pointer(OID, 7))}
    assert hub.leftovers() == []


def test_a_commit_whose_upload_fails_names_file_and_reason(hub):
    upload = arrived(hub)
    answer = send_and(hub, lambda: hub.gate.linked.uploads.fail(upload.id, "Its bytes hash to something else."))
    assert answer.status_code == 400
    assert f"LFS object {OID} (w.bin) failed its check: Its bytes hash" in answer.json()["error"]
    assert hub.tip() is None
    assert hub.leftovers() == []


def test_a_right_that_was_taken_away_during_the_wait_counts(hub, database):
    upload = arrived(hub)

    def revoke():
        with database.write() as connection:
            connection.execute(sa.update(token_table).values(revoked_at=sa.func.now()))
        hub.gate.linked.finish(upload)

    assert send_and(hub, revoke).status_code == 401
    assert hub.tip() is None


def test_patience_ends_with_a_time_to_come_back(database, tmp_path):
    hub = Writing(database, tmp_path, patience=0.2)
    arrived(hub)
    answer = hub.send(COMMIT, [HEADER, LARGE])
    hub.gate.heavy.close()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert answer.json()["error"] == "1 uploaded object (7 bytes) is still being checked; try again in a minute."
    assert hub.tip() is None


def test_an_arrived_object_of_another_size_is_not_the_one_meant(hub):
    arrived(hub, size=8)
    with pytest.raises(BadBody, match="has 8 bytes, not 7"):
        hub.commit(("large", "w.bin", OID, 7))


def test_a_commit_that_does_not_fit_into_the_quota_is_forbidden_with_the_numbers(hub, database):
    with database.write() as connection:
        connection.execute(sa.update(namespaces).where(namespaces.c.id == 1).values(quota=100))
    hub.gate.link(OID, 7)
    hub.gate.linked.begin(1, "b" * 64, 90)
    answer = hub.send(COMMIT, [HEADER, LARGE])
    assert answer.status_code == 403
    assert "ann holds 7 bytes and expects uploads of 90 bytes" in answer.json()["error"]
    assert "quota of 100 bytes" in answer.headers["x-error-message"]
    assert hub.tip() is None
