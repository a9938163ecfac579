"""Files made of xorbs of our own making, sent and filed as a client does it."""

from __future__ import annotations

import httpx

from lfs.xet import hashes
from lfs.xet.shards import Chunk, FiledFile, FiledXorb, Shard, Term, build, parse
from tests.lfs.xet.memory_index import DOMAIN
from tests.lfs.xet.xorbs import Made, random_xorb

AT = f"/xet/{DOMAIN}/g0"
ONE, TWO = random_xorb(1), random_xorb(2)
NAME, NONE = hashes.text(ONE.hash), hashes.text(hashes.chunk(b"nobody has this"))


class Clock:
    """A clock that a test moves."""

    now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


def shard_of(xorb: Made, *ranges: tuple[int, int], sha256: str = "", proof: bytes | None = None) -> bytes:
    """Write the shard of a file of some chunks of a xorb."""
    table, terms, leaves = xorb.table(), [], []
    for start, end in ranges:
        proven = table.span(start, end) if proof is None else proof
        terms.append(Term(xorb.hash, table.unpacked(start, end), start, end, proven))
        leaves += table.leaves(start, end)
    chunks, at = [], 0
    for part in xorb.parts:
        chunks.append(Chunk(hashes.chunk(part), at, len(part), eligible=False))
        at += len(part)
    return build(Shard((FiledFile(hashes.file(leaves), tuple(terms), sha256),), (FiledXorb(xorb.hash, chunks, at),)))


def stored(http: httpx.Client, *xorbs: Made) -> None:
    """Send xorbs."""
    for xorb in xorbs:
        sent = http.post(f"{AT}/v1/xorbs/default/{hashes.text(xorb.hash)}", content=xorb.body)
        assert (sent.status_code, sent.json()) == (200, {"was_inserted": True})


def filed(http: httpx.Client, xorb: Made, *ranges: tuple[int, int]) -> str:
    """File a file, and return the text of its hash."""
    data = shard_of(xorb, *ranges)
    sent = http.post(f"{AT}/v1/shards", content=data)
    assert (sent.status_code, sent.json()) == (200, {"result": 1})
    return hashes.text(parse(data).files[0].hash)


def content_of(xorb: Made, *ranges: tuple[int, int]) -> bytes:
    """Return the bytes of a file of some chunks of a xorb."""
    return b"".join(part for start, end in ranges for part in xorb.parts[start:end])
