"""A batch is one question to the host, whatever a client wrote into it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.batch import Batch, parse
from lfs.errors import LfsError
from lfs.grants import Grants
from lfs.host import Held, Leave, Wanted
from tests.lfs.memory_host import MemoryHost

LEAVE = Leave(1, 1, "ann", may_write=True, may_force=False)
NOW = 1_000_000
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
fields = st.sampled_from(["operation", "objects", "transfers", "ref", "hash_algo", "oid", "size", "name"])
wanted = st.builds(Wanted, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(0, 2**63 - 1))


def batch(host: MemoryHost) -> Batch:
    return Batch(host=host, grants=Grants([b"secret"], lambda: NOW))


def body(operation: str, objects: list[Wanted]) -> bytes:
    sent = [{"oid": each.oid, "size": each.size} for each in objects]
    return json.dumps({"operation": operation, "objects": sent}).encode()


@given(st.binary(max_size=200))
def test_garbage_is_refused_in_our_words(raw: bytes) -> None:
    with pytest.raises(LfsError):
        parse(raw)


@given(st.dictionaries(fields, anything, max_size=6), st.lists(st.dictionaries(fields, anything), max_size=3))
def test_json_of_any_shape_is_answered_or_refused_in_our_words(sent: dict[str, object], objects: list[object]) -> None:
    for operation in ("upload", "download"):
        raw = json.dumps({**sent, "operation": operation, "objects": objects}).encode()
        try:
            request = parse(raw)
        except LfsError:
            continue
        answer = batch(MemoryHost()).answer(request, LEAVE, "http://host")
        assert len(answer["objects"]) == len(objects)  # type: ignore[arg-type]


@given(st.lists(wanted, min_size=1, max_size=20), st.data())
def test_what_is_linked_needs_no_upload_and_what_is_not_no_download(objects: list[Wanted], data: st.DataObject) -> None:
    host = MemoryHost()
    objects = list({each.oid: each for each in objects}.values())
    for each in objects:
        if data.draw(st.booleans()):
            host.objects[each.oid] = Held(each.size, f"lfs/{each.oid}", "stored", linked=False)
            if data.draw(st.booleans()):
                host.links.add((LEAVE.repo_id, each.oid))
    linked = {oid for _, oid in host.links}
    for operation in ("upload", "download"):
        answer = batch(host).answer(parse(body(operation, objects)), LEAVE, "http://host")
        for item in answer["objects"]:  # type: ignore[attr-defined]
            if operation == "upload":
                assert ("actions" in item) == (item["oid"] not in linked)
            else:
                assert ("actions" in item) == (item["oid"] in linked)
                assert item.get("error", {}).get("code") == (None if item["oid"] in linked else 404)


@pytest.mark.parametrize("operation", ["upload", "download"])
def test_a_hundred_objects_are_one_question(operation: str) -> None:
    host = MemoryHost()
    objects = [Wanted(f"{number:064x}", number) for number in range(100)]
    batch(host).answer(parse(body(operation, objects)), LEAVE, "http://host")
    assert host.looks == 1


def test_links_live_as_long_as_the_object_needs() -> None:
    host = MemoryHost()
    large = Wanted("ab" * 32, 2 << 30)
    answer = batch(host).answer(parse(body("upload", [large])), LEAVE, "http://host")
    action = answer["objects"][0]["actions"]["upload"]  # type: ignore[index]
    assert action["expires_in"] == 6 * 3600 - 60
    grant = Grants([b"secret"], lambda: NOW).read(action["href"].partition("grant=")[2], "put", large.oid)
    assert (grant.repo_id, grant.actor_id, grant.size, grant.expires) == (1, 1, 2 << 30, NOW + 6 * 3600)
    assert grant.upload in host.uploads
