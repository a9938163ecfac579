"""Whatever a stranger sends, the door has an answer of its own to it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lfs.errors import TooLarge
from lfs.xet.asked import MAX_SHARD, spooled
from tests.lfs.xet.sending import AT, NAME

SPOKEN = ("v1", "v2", "xorbs", "shards", "chunks", "default", "files", "reconstructions", "xorb-grants", "xorb-commits")
WORDS = st.sampled_from([*SPOKEN, "grant", NAME, NAME[:-1], "0" * 64, "..", "%00", "%2F", "%F0%9F%8E%88", "blob"])
PATHS = st.lists(WORDS | st.text("abc019-_.", max_size=4), max_size=6).map("/".join)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40).map(str.strip)
HEADERS = st.dictionaries(st.sampled_from(["range", "if-range", "content-type", "accept", "x-xet-session-id"]), TEXT)
QUERIES = st.sampled_from(
    ["", "?r=0-1&exp=9999999999&sig=" + "0" * 64, "?r=9-1", "?chunk_byte_sizes=true", "?sig=%C3%A9"]
)
BODIES = st.binary(max_size=200) | st.sampled_from([b"{}", b'{"length": 5}', b'{"length": 5, "checksum": 7}', b"[[[["])


@pytest.mark.parametrize("at", [AT, "/xet/blob", "/xet"])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["GET", "HEAD", "POST", "PUT"]), PATHS, QUERIES, HEADERS, BODIES)
def test_no_request_breaks_the_door(
    http: httpx.Client, at: str, verb: str, path: str, query: str, headers: dict[str, str], body: bytes
) -> None:
    answer = http.request(verb, f"{at}/{path}{query}", headers=headers, content=body if verb != "GET" else None)
    assert answer.status_code in {200, 400, 401, 403, 404, 413, 416}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT, st.binary(max_size=60))
@example("Bearer xet_" + "é" * 4, b"")
def test_no_token_breaks_the_door(http: httpx.Client, text: str, raw: bytes) -> None:
    for sent in (text.encode("latin-1"), b"Bearer xet_" + raw.hex().encode() + b"." + raw.hex().encode()):
        answer = http.get(f"{AT}/v1/files/{NAME}", headers={b"authorization": sent.strip()})
        assert answer.status_code in {400, 401, 404}


def test_a_large_shard_waits_in_a_file_of_our_folder(tmp_path: Path) -> None:
    with spooled([b"shard" * 300_000, b"."], tmp_path) as spool:
        assert spool.read() == b"shard" * 300_000 + b"."
    with pytest.raises(TooLarge):
        spooled([bytes(MAX_SHARD), b"."], tmp_path)
    assert list(tmp_path.iterdir()) == []
