"""What lies here by its chunks opens to nobody who may not read it, and does not even show."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
import sqlalchemy as sa

from lfs.xet.tokens import XetTokens
from registry.accounts import Accounts
from registry.config import Config
from registry.db import Database, now
from registry.tables.identity import users
from tests.clients.chunking import Chunker, chunker, file_of
from tests.clients.committing import HEAD, commit
from tests.clients.hostile import Site
from tests.lfs.xet.xorbs import Made, random_xorb
from tests.services.house import House

pytestmark = pytest.mark.clients
_seeds = itertools.count(9_000)

NOWHERE = {"chunk": 404, "xorb": 404, "file": 404, "v1": 404, "v2": 404}
# A store that signs addresses gives leave to send; either says that the bytes are not here.
UNKNOWN = (201, 404)


def fresh() -> Made:
    """Make a xorb that no other test has."""
    return random_xorb(next(_seeds))


def content(xorb: Made) -> bytes:
    """Return the file of all its chunks."""
    return b"".join(xorb.parts)


def sha256(xorb: Made) -> str:
    """Return the SHA-256 of that file."""
    return hashlib.sha256(content(xorb)).hexdigest()


@contextmanager
def database_of(house: House) -> Iterator[Database]:
    """Open the rows of a house."""
    database = Database(Config.from_environ(house.environment).database_url)
    try:
        yield database
    finally:
        database.dispose()


def told(answer: httpx.Response) -> tuple[int, str]:
    """Return what an answer says, but for the names that were asked for."""
    return answer.status_code, re.sub("[0-9a-f]{64}", "…", answer.text)


def test_the_token_of_one_repo_opens_no_file_of_another(site: Site) -> None:
    ours, theirs, xorb = site.repo(private=True), site.repo(private=True), fresh()
    file = chunker(site, theirs).store(xorb, sha256=sha256(xorb))
    for scope in ("read", "write"):
        found = chunker(site, ours, scope).statuses(xorb, file)
        assert (found["file"], found["v1"], found["v2"]) == (404, 404, 404)
    # Who may write to either shares chunks between them: that is what a private domain is.
    assert chunker(site, theirs, "read").statuses(xorb, file)["v2"] == 200


def test_who_only_reads_is_not_told_what_is_stored(site: Site) -> None:
    repo, xorb = site.repo(), fresh()
    file = chunker(site, repo).store(xorb)
    for who in ("owner", "reader", "stranger", None):
        found = chunker(site, repo, "read", who).statuses(xorb, file)
        assert (found["chunk"], found["grant"], found["v2"]) == (404, 404, 200), who
        assert chunker(site, repo, "read", who).send(fresh()).status_code == 403
        assert chunker(site, repo, "read", who).file(xorb).status_code == 403
    for who in ("reader", "stranger", None):
        asked = site.ask("GET", f"/api/models/{repo}/xet-write-token/main", who)
        assert asked.status_code in (401, 403), who


def test_what_is_private_does_not_show_from_a_public_repo(site: Site) -> None:
    private, public, xorb = site.repo(private=True), site.repo(), fresh()
    file = chunker(site, private).store(xorb, sha256=sha256(xorb))
    outside = chunker(site, public)
    found = outside.statuses(xorb, file)
    assert found.pop("grant") in UNKNOWN
    assert found == NOWHERE
    absent = outside.statuses(other := fresh(), file_of(other))
    assert absent.pop("grant") in UNKNOWN
    assert absent == NOWHERE
    # Naming it does not help, and who sends it hears what the first sender heard.
    named = outside.file(xorb)
    assert named.status_code == 400
    assert told(named) == told(outside.file(other))
    assert outside.send(xorb).json() == {"was_inserted": True}
    assert outside.statuses(xorb, file)["v2"] == 404
    assert outside.file(xorb).status_code == 200


def test_absent_and_forbidden_look_alike(site: Site) -> None:
    ours, theirs, xorb = site.repo(private=True), site.repo(private=True), fresh()
    file, nothing = chunker(site, theirs).store(xorb), file_of(fresh())
    mine = chunker(site, ours, "read")
    for path in ("/v1/reconstructions", "/v2/reconstructions"):
        assert told(mine.ask("GET", f"{path}/{file}")) == told(mine.ask("GET", f"{path}/{nothing}"))
    for scope in ("read", "write"):
        answers = [
            site.ask("GET", f"/api/models/{repo}/xet-{scope}-token/main", "stranger")
            for repo in (theirs, f"{theirs}-not-there")
        ]
        texts = [each.text.replace("-not-there", "") for each in answers]
        assert [each.status_code for each in answers] == [404, 404]
        assert texts[0] == texts[1]


def test_knowing_the_name_of_a_xorb_opens_nothing_of_it(site: Site) -> None:
    repo, other, xorb = site.repo(private=True), site.repo(private=True), fresh()
    chunker(site, repo).store(xorb)
    thief = chunker(site, other)
    refused = thief.file(xorb, proof=b"\x01" * 32)
    assert refused.status_code == 400
    assert thief.statuses(xorb, file_of(xorb))["v2"] == 404


def blob_of(found: Chunker, xorb: Made) -> tuple[str, str]:
    """Return the address of the bytes of a file, and the range that it is for."""
    answer = found.ask("GET", f"/v2/reconstructions/{file_of(xorb)}", headers={"range": "bytes=25000-45000"}).json()
    [[one]] = answer["xorbs"].values()
    [asked] = one["ranges"]
    return one["url"], f"bytes={asked['bytes']['start']}-{asked['bytes']['end']}"


def test_a_signed_address_opens_one_range_of_one_object(small_site: Site) -> None:
    site, xorb, other = small_site, fresh(), fresh()
    repo = site.repo(private=True)
    mine = chunker(site, repo)
    for each in (xorb, other):
        mine.store(each)
    url, span = blob_of(mine, xorb)
    get = site.client.get
    right = get(url, headers={"range": span})
    assert right.status_code == 206
    assert right.content in xorb.body
    path, _, query = url.partition("?")
    wider = re.sub("=[0-9]+", "=0", span)
    refused = {
        "no range": get(url),
        "another range": get(url, headers={"range": "bytes=0-99"}),
        "more ranges": get(url, headers={"range": f"{span},0-9"}),
        "a wider one": get(url, headers={"range": wider}),
        "if-range": get(url, headers={"range": span, "if-range": '"x"'}),
        "a wider query": get(re.sub("r=[0-9]+", "r=0", url), headers={"range": wider}),
        "another object": get(f"{blob_of(mine, other)[0].partition('?')[0]}?{query}", headers={"range": span}),
        "later": get(re.sub("exp=([0-9]+)", r"exp=9\1", url), headers={"range": span}),
        "no signature": get(path, headers={"range": span}),
        "a table": get(f"{path.replace('/xorbs/', '/tables/')}?{query}", headers={"range": span}),
    }
    assert {name: answer.status_code for name, answer in refused.items()} == dict.fromkeys(refused, 403)


@pytest.mark.s3
@pytest.mark.xdist_group("ceph")
def test_an_address_of_the_bucket_opens_one_range(ceph_house: House) -> None:
    ceph_house.enforced()
    with Site(ceph_house) as site:
        xorb = fresh()
        mine = chunker(site, site.repo(private=True))
        mine.store(xorb)
        url, span = blob_of(mine, xorb)
        assert ceph_house.url not in url
        assert site.client.get(url, headers={"range": span}).content in xorb.body
        for headers in ({}, {"range": "bytes=0-99"}, {"range": span.replace("=", "=0,")}):
            assert site.client.get(url, headers=headers).status_code == 403


def test_a_token_is_for_its_own_address_and_time(site: Site) -> None:
    private, public, xorb = site.repo(private=True), site.repo(), fresh()
    mine, other = chunker(site, private), chunker(site, public)
    file = mine.store(xorb)
    crossed = Chunker(site, mine.cas, other.token)
    assert set(crossed.statuses(xorb, file).values()) == {403}
    later = Chunker(site, mine.cas.rpartition("/")[0] + "/g7", mine.token)
    assert set(later.statuses(xorb, file).values()) == {404}
    old = Chunker(site, mine.cas, aged(site.house, mine.token))
    assert set(old.statuses(xorb, file).values()) == {401}
    for token in ("-", "xet_", mine.token[:-2], mine.token + "A", site.tokens["owner"], "xet_" + "A" * 80):
        assert set(Chunker(site, mine.cas, token).statuses(xorb, file).values()) == {401}, token
    assert site.client.get(f"{mine.cas}/v2/reconstructions/{file}").status_code == 401


def aged(house: House, token: str) -> str:
    """Return the same token as it was a second after its end."""
    tokens = tokens_of(house)
    return tokens.issue(replace(tokens.read(token), expires=int(time.time()) - 1))


def tokens_of(house: House) -> XetTokens:
    """Return what signs and reads tokens in a house."""
    return XetTokens(Config.from_environ(house.environment).secrets(), time.time)


def test_the_next_request_of_somebody_who_was_locked_out_is_refused(site: Site) -> None:
    name, xorb = f"gone-{next(_seeds)}", fresh()
    with database_of(site.house) as database:
        accounts = Accounts(database)
        accounts.create_user(name)
        site.tokens[name] = accounts.create_token(name, "write")
        made = site.ask("POST", "/api/repos/create", name, json={"name": "mine", "private": True})
        repo = made.json()["name"]
        mine = chunker(site, repo, who=name)
        file = mine.store(xorb)
        assert mine.statuses(xorb, file)["v2"] == 200
        mine_id = tokens_of(site.house).read(mine.token).actor_id
        with database.write() as connection:
            connection.execute(sa.update(users).where(users.c.id == mine_id).values(disabled_at=now()))
    assert set(mine.statuses(xorb, file).values()) == {401}
    assert mine.send(fresh()).status_code == 401
    assert mine.file(xorb).status_code == 401


def by_batch(site: Site, repo: str, who: str) -> Chunker:
    """Get a token from the door of Git LFS."""
    asked = {"operation": "upload", "transfers": ["xet"], "objects": [{"oid": "ab" * 32, "size": 9}]}
    header = site.batch(repo, who, **asked).json()["objects"][0]["actions"]["upload"]["header"]
    return Chunker(site, header["X-Xet-Cas-Url"], header["X-Xet-Access-Token"])


def test_the_next_request_with_a_revoked_token_is_refused(site: Site) -> None:
    name, xorb = f"lost-{next(_seeds)}", fresh()
    with database_of(site.house) as database:
        accounts = Accounts(database)
        accounts.create_user(name)
        site.tokens[name] = accounts.create_token(name, "write")
        site.tokens[f"{name} again"] = accounts.create_token(name, "write")
        made = site.ask("POST", "/api/repos/create", name, json={"name": "mine", "private": True})
        repo = made.json()["name"]
        lost, kept = chunker(site, repo, who=name), chunker(site, repo, who=f"{name} again")
        file, batched = lost.store(xorb), by_batch(site, repo, name)
        assert batched.statuses(xorb, file)["v2"] == 200
        accounts.revoke_token(name, accounts.tokens(name)[0].id)
    for each in (lost, batched):
        assert set(each.statuses(xorb, file).values()) == {401}
    assert lost.send(fresh()).status_code == 401
    assert lost.file(xorb).status_code == 401
    assert site.ask("GET", f"/api/models/{repo}/xet-read-token/main", name).status_code == 401
    assert kept.statuses(xorb, file)["v2"] == 200


def test_a_deleted_repo_takes_its_tokens_with_it(site: Site) -> None:
    repo, xorb = site.repo(private=True), fresh()
    mine = chunker(site, repo)
    file = mine.store(xorb)
    assert site.ask("DELETE", "/api/repos/delete", json={"name": repo.partition("/")[2]}).status_code == 200
    assert set(mine.statuses(xorb, file).values()) == {404}
    assert mine.send(fresh()).status_code == 404
    assert mine.file(xorb).status_code == 404


def test_a_repo_that_turned_private_shuts_out_who_read_it(site: Site) -> None:
    repo, xorb = site.repo(), fresh()
    file = chunker(site, repo).store(xorb)
    guests = [chunker(site, repo, "read", who) for who in ("stranger", None)]
    assert [guest.statuses(xorb, file)["v2"] for guest in guests] == [200, 200]
    changed = site.ask("PUT", f"/api/models/{repo}/settings", json={"private": True})
    assert changed.status_code == 200, changed.text
    for guest in guests:
        assert set(guest.statuses(xorb, file).values()) <= {401, 404}
    assert chunker(site, repo, "read").statuses(xorb, file)["v2"] == 200


def test_a_file_that_is_not_what_was_declared_is_seen_by_nobody(site: Site) -> None:
    repo, other, xorb = site.repo(private=True), site.repo(private=True), fresh()
    lie, size = hashlib.sha256(content(fresh())).hexdigest(), len(content(xorb))
    mine = chunker(site, repo)
    mine.store(xorb, sha256=lie)
    line = {"key": "lfsFile", "value": {"path": "m.bin", "algo": "sha256", "oid": lie, "size": size}}
    refused = commit(site, repo, HEAD, line)
    assert refused.status_code == 400, refused.text
    assert sha256(xorb) in refused.json()["error"]
    objects = [{"oid": lie, "size": size}]
    for name in (repo, other):
        [down] = site.batch(name, operation="download", objects=objects).json()["objects"]
        assert down["error"]["code"] == 404
        [up] = site.batch(name, operation="upload", objects=objects).json()["objects"]
        assert "upload" in up["actions"]
    assert commit(site, other, HEAD, line).status_code == 400


def test_a_proven_file_is_here_for_its_own_repo_only(site: Site) -> None:
    repo, other, xorb = site.repo(private=True), site.repo(private=True), fresh()
    oid, size = sha256(xorb), len(content(xorb))
    chunker(site, repo).store(xorb, sha256=oid)
    line = {"key": "lfsFile", "value": {"path": "m.bin", "algo": "sha256", "oid": oid, "size": size}}
    assert commit(site, repo, HEAD, line).status_code == 200
    assert site.ask("GET", f"/{repo}/resolve/main/m.bin").content == content(xorb)
    assert site.ask("HEAD", f"/{repo}/resolve/main/m.bin").headers["x-xet-hash"] == file_of(xorb)
    assert commit(site, other, HEAD, line).status_code == 400
    objects = [{"oid": oid, "size": size}]
    for name, wanted in ((repo, "download"), (other, "error")):
        [down] = site.batch(name, operation="download", objects=objects).json()["objects"]
        assert wanted in (down.get("actions") or down)
    [up] = site.batch(other, operation="upload", objects=objects).json()["objects"]
    assert "upload" in up["actions"]
