"""A batch is one question to the host, whatever a client wrote into it."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.actions import Caller, Referral
from lfs.batch import Batch, parse
from lfs.choices import Policy
from lfs.errors import LfsError
from lfs.grants import Grants
from lfs.host import Held, Leave, ObjectState, Wanted
from lfs.store import Signed, Span, lfs_key, staging_key
from tests.contracts.memory_store import MemoryParts, MemoryStore
from tests.lfs.memory_host import MemoryHost

LEAVE = Leave(1, 1, "ann", may_write=True, may_force=False)
NOW = 1_000_000
ONE = "ab" * 32
GIT_LFS = "git-lfs/3.8.1 (GitHub; linux amd64; go 1.24)"
Answer = dict[str, Any]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
fields = st.sampled_from(["operation", "objects", "transfers", "ref", "hash_algo", "oid", "size", "name"])
wanted = st.builds(Wanted, st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(0, 2**63 - 1))


def batch(host: MemoryHost) -> Batch:
    return Batch(host=host, store=MemoryStore(), grants=Grants([b"secret"], lambda: NOW))


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
        answer = batch(MemoryHost()).answer(request, LEAVE, Caller("http://host"))
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
        answer = batch(host).answer(parse(body(operation, objects)), LEAVE, Caller("http://host"))
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
    batch(host).answer(parse(body(operation, objects)), LEAVE, Caller("http://host"))
    assert host.looks == 1


def test_links_live_as_long_as_the_object_needs() -> None:
    host = MemoryHost()
    large = Wanted("ab" * 32, 2 << 30)
    answer = batch(host).answer(parse(body("upload", [large])), LEAVE, Caller("http://host"))
    action = answer["objects"][0]["actions"]["upload"]  # type: ignore[index]
    assert action["expires_in"] == 6 * 3600 - 60
    grant = Grants([b"secret"], lambda: NOW).read(action["href"].partition("grant=")[2], "put", large.oid)
    assert (grant.repo_id, grant.actor_id, grant.size, grant.expires) == (1, 1, 2 << 30, NOW + 6 * 3600)
    assert grant.upload in host.uploads


class Signing(MemoryStore):
    """A shelf that signs for clients, as a bucket does."""

    def __init__(self, *, enforces: bool = True) -> None:
        super().__init__()
        self.enforces = enforces

    def url(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        span: Span | None = None,
    ) -> Signed | None:
        if sha256 is not None and not self.enforces:
            return None
        headers = {} if method == "GET" else {"content-type": "application/octet-stream", "x-digest": sha256 or ""}
        return Signed(f"https://bucket/{key}?for={seconds}", headers)


def asked(policy: Policy, store: MemoryStore, host: MemoryHost, *, agent: str = GIT_LFS, **more: object) -> Answer:
    grants = Grants([b"secret"], lambda: NOW)
    raw = json.dumps({"operation": "upload", "objects": [{"oid": ONE, "size": 5}], **more}).encode()
    caller = Caller("http://host", "org/model.git", agent)
    (item,) = Batch(host=host, store=store, grants=grants, policy=policy).answer(parse(raw), LEAVE, caller)["objects"]  # type: ignore[misc]
    return dict(item)


@pytest.mark.parametrize("way", ["direct", "staging"])
def test_an_upload_past_us_is_verified_with_leave_of_its_own(way: Literal["direct", "staging"]) -> None:
    host = MemoryHost()
    actions = asked(Policy(upload=way), Signing(enforces=way == "direct"), host)["actions"]
    (upload,) = host.uploads.values()
    key = lfs_key(ONE, upload.id) if way == "direct" else staging_key(upload.id)
    assert upload.mode == way
    digest = ONE if way == "direct" else ""
    assert actions["upload"] == {
        "href": f"https://bucket/{key}?for=900",
        "header": {"content-type": "application/octet-stream", "x-digest": digest},
        "expires_in": 840,
    }
    at, _, text = actions["verify"]["href"].partition("?grant=")
    assert at == "http://host/org/model.git/info/lfs/verify"
    grant = Grants([b"secret"], lambda: NOW).read(text, "verify", ONE)
    assert (grant.upload, grant.expires, actions["verify"]["expires_in"]) == (upload.id, NOW + 86400, 86400 - 60)


def test_clients_that_do_not_send_the_headers_of_an_action_come_through_us() -> None:
    for policy, agent in ((Policy(), "hf_hub/2.4.0"), (Policy(), ""), (Policy(upload="proxy"), GIT_LFS)):
        actions = asked(policy, Signing(), MemoryHost(), agent=agent)["actions"]
        assert list(actions) == ["upload"]
        assert actions["upload"]["href"].startswith("http://host/lfs/o/")
        assert actions["upload"]["header"] == {"Content-Type": "application/octet-stream"}


def test_a_download_goes_to_the_bucket_itself_unless_it_may_not_be_reached() -> None:
    host = MemoryHost(objects={ONE: Held(5, "lfs/the-key", "stored", linked=False)}, links={(1, ONE)})
    past = asked(Policy(), Signing(), host, operation="download")["actions"]["download"]
    assert past == {"href": "https://bucket/lfs/the-key?for=900", "expires_in": 840}
    through = asked(Policy(redirect=False), Signing(), host, operation="download")["actions"]["download"]
    assert through["href"].startswith("http://host/lfs/o/")


def test_resumable_uploads_are_named_and_given_again() -> None:
    host = MemoryHost()
    both = [asked(Policy(), MemoryStore(), host, transfers=["basic", "tus"])["actions"] for _ in range(2)]
    (upload,) = host.uploads.values()
    for actions in both:
        assert actions["upload"]["href"].startswith(f"http://host/lfs/tus/{upload.id}?grant=")
        assert actions["upload"]["expires_in"] == 86400 - 60


@pytest.mark.parametrize("state", ["condemned", "deleting", "damaged"])
def test_what_may_go_or_is_damaged_is_asked_for_again(state: ObjectState) -> None:
    host = MemoryHost(objects={ONE: Held(5, lfs_key(ONE), state, linked=False)}, links={(1, ONE)})
    assert "upload" in asked(Policy(), MemoryStore(), host)["actions"]


def test_a_batch_in_parts_is_one_question_one_insert_and_one_note() -> None:
    class Sessions(MemoryStore):
        def parts(self, key: str, part_size: int, session: str = "") -> MemoryParts:
            made = super().parts(key, part_size, session)
            made.begin = lambda: "of " + key  # type: ignore[method-assign]
            return made

    host = MemoryHost()
    objects = [{"oid": f"{number:064x}", "size": number} for number in range(100)]
    policy = Policy(multipart_threshold=50, part_size=10)
    raw = json.dumps({"operation": "upload", "objects": objects, "transfers": ["multipart"]}).encode()
    made = Batch(host=host, store=Sessions(), grants=Grants([b"secret"], lambda: NOW), policy=policy)
    answer = made.answer(parse(raw), LEAVE, Caller("http://host"))
    assert answer["transfer"] == "multipart"
    assert (host.looks, host.begun, host.attached) == (1, 1, 1)
    for upload in host.uploads.values():
        assert upload.session == ("of " + lfs_key(upload.oid, upload.id) if upload.size else "")


@pytest.mark.parametrize("way", ["multipart", "tus"])
def test_nobody_sends_twice_what_is_being_read_back(way: str) -> None:
    host, policy = MemoryHost(), Policy(multipart_threshold=1)
    assert "actions" in asked(policy, MemoryStore(), host, transfers=[way])
    (upload,) = host.uploads.values()
    host.arrive(upload.id, lfs_key(ONE, upload.id))
    assert asked(policy, MemoryStore(), host, transfers=[way]) == {"oid": ONE, "size": 5}
    host.fail(upload.id, "other bytes")
    assert "actions" in asked(policy, MemoryStore(), host, transfers=[way])


def test_a_client_that_speaks_xet_is_sent_to_where_chunks_go_and_opens_nothing() -> None:
    there = Held(5, lfs_key(ONE), "stored", linked=False)
    host = MemoryHost(objects={ONE: there}, links={(1, ONE)})
    header = {"X-Xet-Cas-Url": "http://host/xet/d/g0"}
    asked_for: list[tuple[int, str, str]] = []

    def refer(leave: Leave, caller: Caller, ref: str) -> Referral:
        asked_for.append((leave.repo_id, caller.repo, ref))
        return Referral("http://host/renew", header, 900)

    made = Batch(host=host, store=MemoryStore(), grants=Grants([b"secret"], lambda: NOW), refer=refer)

    def answer(*transfers: str, operation: str = "upload") -> Answer:
        sent = {"operation": operation, "objects": [{"oid": ONE, "size": 5}, {"oid": "cd" * 32, "size": 7}]}
        raw = json.dumps(sent | {"transfers": transfers, "ref": {"name": "main"}}).encode()
        return made.answer(parse(raw), LEAVE, Caller("http://host", "org/model.git"))

    sent = answer("basic", "multipart", "xet")
    here, new = sent["objects"]
    assert sent["transfer"] == "xet"
    assert here == {"oid": ONE, "size": 5}
    assert new["actions"] == {"upload": {"href": "http://host/renew", "header": header, "expires_in": 840}}
    assert (host.begun, asked_for) == (0, [(1, "org/model.git", "main")])
    assert answer("basic", "multipart")["transfer"] == "basic"
    assert answer("xet", "basic", operation="download")["transfer"] == "basic"
    assert len(asked_for) == 1
