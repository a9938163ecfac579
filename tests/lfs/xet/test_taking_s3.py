"""A client sends a xorb to the bucket itself, and may do there what its grant says and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from lfs.errors import BadXet, Missing, ObjectAbsent
from lfs.heavy import Heavy
from tests.lfs.xet.takers import ANN, Bench, bench
from tests.lfs.xet.xorbs import footer, random_xorb
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket, rclone

ONE, TWO = random_xorb(1), random_xorb(2)


@pytest.fixture(scope="module")
def heavy() -> Iterator[Heavy]:
    pool = Heavy(workers=1, memory_bytes=512 << 20, deadline=60)
    yield pool
    pool.close()


@pytest.fixture(scope="module", params=["moto", "rclone"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Endpoint]:
    with moto() if request.param == "moto" else rclone(tmp_path_factory.mktemp("rclone")) as endpoint:
        yield endpoint


@pytest.fixture
def place(server: S3Endpoint, heavy: Heavy, tmp_path: Path) -> Bench:
    name = f"xorbs-{uuid4().hex}"
    make_bucket(server, name)
    return bench(open_bucket(server, name, "in"), tmp_path / "new", heavy)


def send(url: str, headers: dict[str, str], body: bytes) -> int:
    with httpx.Client(trust_env=False, timeout=20) as client:
        return client.put(url, headers=headers, content=body).status_code


pytestmark = [pytest.mark.s3, pytest.mark.xdist_group("s3")]


@pytest.mark.parametrize("tail", [b"", footer(ONE)], ids=["plain", "footer"])
def test_what_a_client_puts_with_its_grant_is_live_after_the_commit(place: Bench, tail: bytes) -> None:
    body = ONE.body + tail
    ticket = place.ticket(ONE, len(body))
    with pytest.raises(ObjectAbsent):
        place.taking.commit(ANN, ticket.id, ONE.hash)
    assert send(ticket.url, dict(ticket.headers), body) == 200
    assert place.taking.commit(ANN, ticket.id, ONE.hash)
    assert not place.taking.commit(ANN, ticket.id, ONE.hash)
    place.sound()
    assert not list(place.store.walk("staging/"))
    # The URL is good for the rest of its hour, and reaches nothing that anybody reads.
    assert send(ticket.url, dict(ticket.headers), bytes(len(body))) == 200
    place.sound()


def test_another_xorb_under_a_grant_is_deleted(place: Bench) -> None:
    ticket = place.ticket(ONE)
    assert send(ticket.url, dict(ticket.headers), TWO.body) == 200
    with pytest.raises(BadXet):
        place.taking.commit(ANN, ticket.id, ONE.hash)
    assert not list(place.store.walk())


def test_a_post_goes_into_a_bucket_as_well(place: Bench) -> None:
    assert place.taking.post(ANN, ONE.hash, [ONE.body])
    place.sound()


@pytest.mark.parametrize("server", ["rclone"], indirect=True)
def test_a_grant_binds_the_length(place: Bench) -> None:
    ticket = place.ticket(ONE)
    assert send(ticket.url, dict(ticket.headers), ONE.body + b"x") == 403
    assert send(ticket.url, dict(ticket.headers), ONE.body[:-1]) == 403
    with pytest.raises(Missing):
        place.store.stat(f"staging/{ticket.id}")
