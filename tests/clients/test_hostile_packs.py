"""Packs and bodies that lie: bombs, broken gzip, wrong counts, sizes, checksums and bases, and what is too much."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import pytest

from registry.git.packfile import BLOB
from tests.clients.hostile import MIB, Site, refused, unharmed
from tests.clients.pushing import LS_REFS, create, turned_down
from tests.registry.git.pushed import by_id, by_offset, delta, entry_header, one_commit, pack, whole
from tests.services.house import open_house

pytestmark = pytest.mark.clients


def bomb(begin: bytes, size: int, wbits: int = 31) -> bytes:
    """Deflate `begin` and then `size` zero bytes."""
    packer = zlib.compressobj(6, wbits=wbits)
    return packer.compress(begin) + b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()


def test_gzip_bodies_are_bounded_whole_and_alone(small_site: Site, kept: str) -> None:
    data, tip = one_commit((b"100644", b"a", b"x"))
    small = gzip.compress(create(tip, data))
    cases = {
        bomb(b"", 64 * MIB): 400,
        bomb(create(tip, data[:12]), 64 * MIB): 413,
        bomb(b"fff0", 64 * MIB): 400,
        small[:-1]: 400,
        small[:30]: 400,
        small + b"x": 400,
        small + small: 400,
        create(tip, data): 400,
        small[:20] + b"\xff" + small[21:]: 400,
        gzip.compress(small): 400,
    }
    for body, status in cases.items():
        for kind in ("gzip", "X-Gzip"):
            refused(small_site.push(kept, body, Content_Encoding=kind), "git", status)
    for body in (bomb(LS_REFS, 64 * MIB), *(gzip.compress(LS_REFS) + tail for tail in (b"x", gzip.compress(LS_REFS)))):
        answer = small_site.fetch(kept, body, Content_Encoding="gzip")
        refused(answer, "git", 413 if len(body) > 1000 else 400)
    for kind in ("br", "deflate", "gzip, gzip", "zstd"):
        assert small_site.push(kept, small, Content_Encoding=kind).status_code in (400, 415)


def reseal(data: bytes) -> bytes:
    """Write the right checksum behind what is left of a pack."""
    return data + hashlib.sha1(data).digest()


def lying_packs() -> dict[str, bytes]:
    """Packs that are not what they say."""
    data, _ = one_commit((b"100644", b"a", b"x" * 200))
    blob = whole(BLOB, b"base " * 50)
    return {
        "nothing": b"",
        "no pack": b"not a pack at all, but long enough for one",
        "version 4": reseal(b"PACK\0\0\0\4" + data[8:-20]),
        "wrong checksum": data[:-1] + bytes([data[-1] ^ 1]),
        "bit flipped": data[:40] + bytes([data[40] ^ 4]) + data[41:],
        "one object more": reseal(data[:8] + b"\0\0\0\4" + data[12:-20]),
        "one object less": reseal(data[:8] + b"\0\0\0\2" + data[12:-20]),
        "4 billion objects": reseal(data[:8] + b"\xff" * 4 + data[12:-20]),
        "0 objects with bytes": reseal(data[:8] + bytes(4) + data[12:-20]),
        "cut and resealed": reseal(data[:-40]),
        "bytes behind": data + b"x",
        "two packs": data + data,
        "bytes before the trailer": reseal(data[:-20] + b"xx"),
        "larger than said": pack(whole(BLOB, b"x" * 1000, size=10)),
        "smaller than said": pack(whole(BLOB, b"x" * 10, size=1000)),
        "exabytes": pack(entry_header(BLOB, 1 << 60) + zlib.compress(b"x")),
        "endless size": pack(b"\xbf" + b"\xff" * 40 + zlib.compress(b"x")),
        "unknown type": pack(bytes([5 << 4 | 1]) + zlib.compress(b"x")),
        "zero type": pack(bytes([1]) + zlib.compress(b"x")),
        "absent base": pack(by_id(b"\7" * 20, delta(10, [b"x"]))),
        "base of its own": pack(blob, by_offset(0, delta(10, [b"x"]))),
        "base before the pack": pack(blob, by_offset(10_000, delta(10, [b"x"]))),
        "base within an object": pack(blob, by_offset(len(blob) - 1, delta(250, [b"x"]))),
        "delta of another base": pack(blob, by_offset(len(blob), delta(99, [b"x"]))),
        "delta beyond its base": pack(blob, by_offset(len(blob), delta(250, [(200, 100)]))),
        "delta of a lying size": pack(blob, by_offset(len(blob), delta(250, [b"x"], target=1 << 50))),
        "delta of nothing": pack(blob, by_offset(len(blob), b"")),
        "the same object twice": pack(blob, blob),
        "broken zlib": pack(entry_header(BLOB, 5) + b"\x78\x9c\xff\xff\xff\xff\xff\xff"),
    }


@pytest.mark.parametrize("name", lying_packs())
def test_packs_that_lie_are_refused(small_site: Site, kept: str, name: str) -> None:
    _, tip = one_commit((b"100644", b"a", b"x" * 200))
    said = turned_down(small_site, kept, create(tip, lying_packs()[name]))
    assert any(len(reason) > 10 for reason in said)


def test_a_gigabyte_in_a_megabyte_is_refused(small_site: Site, kept: str) -> None:
    stream = bomb(b"", 1 << 30, wbits=15)
    for size in (1 << 30, 10, 60 << 20):
        with unharmed(small_site, growth=64 * MIB):
            said = turned_down(small_site, kept, create("1" * 40, pack(entry_header(BLOB, size) + stream)))
            assert said[0].startswith("unpack ")


def test_the_limits_of_a_house_are_named(tmp_path: Path) -> None:
    limits = {"MAX_PACK": "64KiB", "MAX_OBJECTS": "3", "MAX_BLOB": "4KiB"}
    with open_house(tmp_path / "h", **limits) as house, Site(house) as site:
        kept = site.repo()
        before = site.refs(kept)
        noise = hashlib.shake_128(b"1").digest(200_000)
        cases = {
            "WEIGHTROOM_MAX_PACK": one_commit((b"100644", b"a", noise)),
            "WEIGHTROOM_MAX_OBJECTS": one_commit(*((b"100644", b"%d" % n, b"%d" % n) for n in range(3))),
            "git lfs": one_commit((b"100644", b"a", noise[:5000])),
        }
        with unharmed(site):
            for named, (data, tip) in cases.items():
                said = turned_down(site, kept, create(tip, data))
                assert named in " ".join(said)
                turned_down(site, kept, gzip.compress(create(tip, data)), Content_Encoding="gzip")
        assert site.refs(kept) == before
