"""Writing to a bucket: parts leave while the next one is gathered, in bounded memory."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import SizeMismatch
from lfs.s3.bucket import Place
from lfs.s3.gathering import Gathered, Memory
from lfs.s3.shelf import S3Store
from lfs.s3.writing import MAX_PARTS, PART, part_size_for
from lfs.store import PIECE, lfs_key
from tests.faults.proxy import Proxy
from tests.services.s3 import S3Endpoint, make_bucket, moto

DEADLINE = 20.0


@pytest.mark.parametrize("limit", [0, 4 * PIECE], ids=["in a file", "in memory"])
@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
def test_what_was_gathered_may_be_sent_again_and_again(limit: int, size: int) -> None:
    memory, whole = Memory(limit), random.Random(size).randbytes(size)
    with Gathered(memory, size) as gathered:
        gathered.fill(whole)
        for _ in range(2):
            body = gathered.body()
            assert (bytes(body) if isinstance(body, bytearray) else body.read()) == whole
    assert memory.take(limit)


@pytest.mark.parametrize("limit", [0, PIECE])
@pytest.mark.parametrize("sent", [9, 11])
def test_a_part_of_another_length_is_refused_and_frees_its_room(limit: int, sent: int) -> None:
    memory = Memory(limit)
    with pytest.raises(SizeMismatch), Gathered(memory, 10) as gathered:
        gathered.fill(iter([b"x" * 5, b"x" * (sent - 5)]))
    gathered.close()
    assert memory.take(limit)
    assert not memory.take(1)


@given(st.integers(1, 5 << 40))
def test_any_object_fits_the_parts_that_a_bucket_takes(size: int) -> None:
    part = part_size_for(size)
    assert part >= PART
    assert part % PIECE == 0
    assert -(-size // part) <= MAX_PARTS


@pytest.fixture(scope="module")
def moto_server() -> Iterator[S3Endpoint]:
    with moto() as endpoint:
        make_bucket(endpoint, "shelf")
        yield endpoint


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
@pytest.mark.parametrize("memory", [0, 3 * PART], ids=["by files", "in memory"])
def test_parts_leave_while_the_next_ones_are_gathered(moto_server: S3Endpoint, memory: int) -> None:
    whole = random.Random(4).randbytes(2 * PART + 1)
    keys = {"access_key": moto_server.access_key, "secret_key": moto_server.secret_key}
    with Proxy(urlsplit(moto_server.url).port or 0) as proxy:
        store = S3Store(Place("shelf", endpoint=proxy.url, **keys), memory=memory)
        key = lfs_key("ab" * 32, uuid4().hex)

        def source() -> Iterator[bytes]:
            for at in range(0, len(whole), PIECE):
                yield whole[at : at + PIECE]
                gone = (at + PIECE) // PART
                end = time.monotonic() + DEADLINE
                while len(proxy.asked("PUT", "partNumber=")) < gone:
                    assert time.monotonic() < end, f"part {gone} lies here whole and is not sent"
                    time.sleep(0.005)

        store.put(key, source(), len(whole))
        assert len(proxy.asked("PUT", "partNumber=")) == 3
        with store.open(key) as reader:
            assert reader.read_all() == whole
