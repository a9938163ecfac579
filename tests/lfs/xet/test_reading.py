"""Reconstructions lead to the bytes of a file, and their links to nothing else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from lfs.errors import Busy
from lfs.store import Span
from lfs.xet import formats, hashes, routes
from lfs.xet.dedup import WEEK
from lfs.xet.index import File
from lfs.xet.shards import FiledFile, Shard, Term, build
from lfs.xet.tokens import LIFETIME, XetTokens
from tests.lfs.xet.alone import Alone
from tests.lfs.xet.memory_index import DOMAIN, OTHER, MemoryIndex
from tests.lfs.xet.sending import AT, NAME, NONE, ONE, TWO, Clock, content_of, filed, stored
from tests.lfs.xet.xorbs import random_xorb


def test_a_file_opens_for_the_repo_that_filed_it(alone: Alone, http: httpx.Client) -> None:
    stored(http, ONE)
    name = filed(http, ONE, (1, 3))
    assert http.head(f"{AT}/v1/files/{name}").headers["content-length"] == str(len(content_of(ONE, (1, 3))))
    other = {"authorization": f"Bearer {alone.token(repo=2)}"}
    for verb, at in (("HEAD", "v1/files"), ("GET", "v1/reconstructions"), ("GET", "v2/reconstructions")):
        assert http.request(verb, f"{AT}/{at}/{name}").status_code == 200
        assert http.request(verb, f"{AT}/{at}/{name}", headers=other).status_code == 404
        assert http.request(verb, f"{AT}/{at}/{NONE}").status_code == 404
        assert http.request(verb, f"{AT}/{at}/{NONE[1:]}").status_code == 400


@pytest.mark.parametrize(("first", "last"), [(None, None), (0, 0), (5, 70_000), (20_000, 20_000), (60_005, 1 << 40)])
def test_a_range_is_put_together_from_what_its_links_open(http: httpx.Client, first: int | None, last: int) -> None:
    stored(http, ONE)
    ranges = ((3, 5), (0, 2), (4, 5))
    name, whole = filed(http, ONE, *ranges), content_of(ONE, *ranges)
    asked = {} if first is None else {"range": f"bytes={first}-{last}"}
    wanted = whole if first is None else whole[first : last + 1]
    answer = http.get(f"{AT}/v2/reconstructions/{name}", headers=asked).json()
    found = {}
    for xorb, entries in answer["xorbs"].items():
        for entry in entries:
            [run] = entry["ranges"]
            found[xorb, run["chunks"]["start"]] = fetched(http, entry["url"], run["bytes"])
    older = http.get(f"{AT}/v1/reconstructions/{name}", headers=asked).json()
    for xorb, entries in older["fetch_info"].items():
        for entry in entries:
            assert fetched(http, entry["url"], entry["url_range"]) == found[xorb, entry["range"]["start"]]
    assert older["terms"] == answer["terms"]
    told = b"".join(chunks_of(found, term) for term in answer["terms"])
    assert told[answer["offset_into_first_range"] :].startswith(wanted)


def fetched(http: httpx.Client, url: str, span: dict[str, int]) -> list[bytes]:
    """Fetch a run of chunks as the client does, without a token."""
    wanted = {"range": f"bytes={span['start']}-{span['end']}", "authorization": ""}
    answer = http.get(url, headers=wanted)
    assert answer.status_code == 206
    return list(formats.chunks(answer.content))


def chunks_of(found: dict[tuple[str, int], list[bytes]], term: dict[str, Any]) -> bytes:
    """Return the bytes of a term from the run that holds it."""
    start, end = term["range"]["start"], term["range"]["end"]
    for (xorb, at), chunks in found.items():
        if xorb == term["hash"] and at <= start and end <= at + len(chunks):
            return b"".join(chunks[start - at : end - at])
    raise AssertionError("no run holds this term")


def test_a_range_behind_the_end_is_416(http: httpx.Client) -> None:
    stored(http, ONE)
    name, size = filed(http, ONE, (0, 1)), len(ONE.parts[0])
    for version in ("v1", "v2"):
        past = http.get(f"{AT}/{version}/reconstructions/{name}", headers={"range": f"bytes={size}-"})
        assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{size}")


@pytest.fixture
def link(http: httpx.Client) -> dict[str, Any]:
    """What a reconstruction says of where to fetch chunks 1 to 3 of a xorb: `url`, and the range of it as `bytes`."""
    stored(http, ONE)
    answer = http.get(f"{AT}/v2/reconstructions/{filed(http, ONE, (1, 3))}").json()
    [entry] = answer["xorbs"][NAME]
    return {"url": entry["url"], "bytes": entry["ranges"][0]["bytes"]}


def test_a_link_opens_its_range_and_nothing_else(http: httpx.Client, link: dict[str, Any]) -> None:
    url, start, end = link["url"], link["bytes"]["start"], link["bytes"]["end"]
    good = {"range": f"bytes={start}-{end}"}
    assert http.get(url, headers=good).content == ONE.body[start : end + 1]
    refused = [
        {},
        {"range": f"bytes={start}-"},
        {"range": f"bytes=0-{end}"},
        {"range": f"bytes={start}-{end + 1}"},
        {"range": f"bytes={start}-{end},0-9"},
        {"range": "bytes=-9"},
        good | {"if-range": '"another"'},
    ]
    for headers in refused:
        answer = http.get(url, headers=headers)
        assert (answer.status_code, answer.json()["error"][-1]) == (403, ".")


def test_no_link_can_be_made_out_of_another(alone: Alone, http: httpx.Client, link: dict[str, Any]) -> None:
    stored(http, TWO)
    url, start, end = link["url"], link["bytes"]["start"], link["bytes"]["end"]
    key, other = (alone.index.xorbs[xorb.hash].xorb.key for xorb in (ONE, TWO))
    foreign = XetTokens([b"another secret"], alone.clock).sign(key, Span(start, end + 1))
    wrong = [
        url.replace(f"r={start}-", "r=0-"),
        url.replace(f"-{end}&", f"-{end + 1}&"),
        url.replace(key, other),
        url.replace("exp=1", "exp=2"),
        url[:-1],
        f"{url[:-64]}{'é' * 32}",
        f"{url}&r=0-1",
        url.partition("?")[0],
        f"{url.partition('?')[0]}?{foreign}",
    ]
    for each in wrong:
        for headers in ({"range": f"bytes={start}-{end}"}, {"range": f"bytes=0-{end}"}, {}):
            assert http.get(each, headers=headers).status_code == 403


def test_a_link_ends_with_its_time_and_with_its_object(http: httpx.Client, alone: Alone, link: dict[str, Any]) -> None:
    headers = {"range": f"bytes={link['bytes']['start']}-{link['bytes']['end']}"}
    clock = alone.clock
    assert isinstance(clock, Clock)
    clock.now += LIFETIME + 1
    assert http.get(link["url"], headers=headers).status_code == 403
    clock.now -= LIFETIME + 1
    assert http.get(link["url"], headers=headers).status_code == 206
    alone.store.delete(alone.index.xorbs[ONE.hash].xorb.key)
    assert http.get(link["url"], headers=headers).status_code == 403


def test_who_asks_for_a_marked_chunk_hears_of_the_xorbs_around_it(alone: Alone, http: httpx.Client) -> None:
    stored(http, ONE, TWO)
    filed(http, ONE, (1, 3), (0, 1))
    at = f"{AT}/v1/chunks/default-merkledb/"
    first = hashes.chunk(ONE.parts[1])
    answer = http.get(at + hashes.text(first))
    key, expires = alone.index.answer_key(DOMAIN, int(alone.clock()) // WEEK)
    assert hashes.keyed(key, first) in answer.content
    assert first not in answer.content
    assert (key, expires.to_bytes(8, "little")) == (answer.content[-128:-96], answer.content[-88:-80])
    assert ONE.hash in answer.content
    assert TWO.hash not in answer.content
    assert http.get(at + hashes.text(hashes.chunk(ONE.parts[2]))).status_code == 404
    assert http.get(at + NONE).status_code == 404
    elsewhere = {"authorization": f"Bearer {alone.token(repo=3, domain=OTHER)}"}
    assert http.get(f"/xet/{OTHER}/g0/v1/chunks/default/{hashes.text(first)}", headers=elsewhere).status_code == 404


def test_a_xorb_of_one_chunk_is_named_only_to_who_asks_for_that_chunk(alone: Alone, http: httpx.Client) -> None:
    secret = random_xorb(3, 1)
    stored(http, ONE, secret)
    tables = [ONE.table(), secret.table()]
    terms = [
        Term(xorb.hash, table.raw_size, 0, table.chunks, table.span(0, table.chunks))
        for xorb, table in zip((ONE, secret), tables, strict=True)
    ]
    leaves = [leaf for table in tables for leaf in table.leaves(0, table.chunks)]
    shard = build(Shard((FiledFile(hashes.file(leaves), terms, ""),), ()))
    assert http.post(f"{AT}/v1/shards", content=shard).status_code == 200
    at = f"{AT}/v1/chunks/default/"
    known = http.get(at + hashes.text(hashes.chunk(ONE.parts[0])))
    assert ONE.hash in known.content
    # With its name another repo of the domain could file it, and read it.
    assert secret.hash == hashes.chunk(secret.parts[0])
    assert secret.hash not in known.content
    filed(http, secret, (0, 1))
    assert secret.hash in http.get(at + hashes.text(secret.hash)).content


def test_who_asks_for_a_chunk_of_a_damaged_xorb_is_told_that_nobody_has_it(alone: Alone, http: httpx.Client) -> None:
    stored(http, ONE)
    filed(http, ONE, (0, 1))
    at = f"{AT}/v1/chunks/default/{hashes.text(hashes.chunk(ONE.parts[0]))}"
    kept = alone.index.xorbs[ONE.hash].xorb
    alone.store.delete(kept.table)
    alone.store.delete(kept.key)
    alone.store.put(kept.key, bytes(kept.size), kept.size)
    alone.build()
    with alone.speaking() as again:
        assert again.get(at).status_code == 404
        alone.store.delete(kept.key)
        assert again.get(at).status_code == 404


class Crowded(MemoryIndex):
    """An index without time for those who ask for chunks."""

    def around(self, domain: str, chunk: bytes) -> File | None:
        raise Busy("Not now.")


def test_who_asks_for_a_chunk_under_load_is_told_that_nobody_has_it(alone: Alone) -> None:
    alone.index = Crowded()
    alone.build()
    with alone.speaking() as http:
        assert http.get(f"{AT}/v1/chunks/default/{NONE}").status_code == 404


def test_an_answer_of_too_many_pieces_is_refused(
    alone: Alone, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MAX_TERMS", 2)
    stored(http, ONE)
    name = filed(http, ONE, (0, 1), (2, 3), (4, 5))
    at = f"{AT}/v2/reconstructions/{name}"
    assert http.get(at).status_code == 413
    assert http.get(at, headers={"range": "bytes=0-30000"}).status_code == 200
    # Before it is planned, which would take the memory that is to be saved.
    alone.index.quarantine(ONE.hash, alone.index.xorbs[ONE.hash].xorb.key)
    assert http.get(at).status_code == 413
    assert http.get(at, headers={"range": "bytes=0-30000"}).status_code == 410
