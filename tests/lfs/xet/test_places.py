"""A shard that finds no place is refused before it is read, and comes again; also from the client that users have."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from lfs.errors import Busy
from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.xet.places import Places
from tests.lfs.conftest import serving
from tests.lfs.xet.alone import Alone
from tests.lfs.xet.client import Client
from tests.lfs.xet.sending import AT, ONE, shard_of, stored

SHARD = shard_of(ONE, (0, 1))
# What a shard says it has that ends early.
HALF = 1000


@pytest.fixture
def alone(heavy: Heavy, tmp_path: Path) -> Alone:
    """A door with two places, one for each sender."""
    return Alone(LocalStore(tmp_path / "shelf", min_free=0, fsync=False), heavy, tmp_path / "coming", places=2)


@contextmanager
def sending(url: str, token: str, version: str, body: bytes = b"MDB") -> Iterator[socket.socket]:
    """Announce a shard and send no more than the beginning of it, while the block runs."""
    at = httpx.URL(url)
    head = f"POST {AT}/{version}/shards HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    with socket.create_connection((at.host, at.port or 80), timeout=20) as wire:
        wire.sendall(f"{head}content-length: {HALF}\r\n\r\n".encode() + body)
        yield wire


def until(fits: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not fits():
        assert time.monotonic() < deadline


def told(url: str, token: str, version: str = "v1") -> httpx.Response:
    return httpx.post(
        f"{url}{AT}/{version}/shards", content=SHARD, headers={"authorization": f"Bearer {token}"}, trust_env=False
    )


def test_so_many_have_a_place_and_half_of_them_one_sender() -> None:
    places = Places(4)
    with places.taken(1), places.taken(1):
        with pytest.raises(Busy), places.taken(1):
            pass
        with places.taken(2), places.taken(3), pytest.raises(Busy), places.taken(4):
            pass
        with places.taken(2), pytest.raises(ZeroDivisionError), places.taken(2):
            raise ZeroDivisionError
        with places.taken(2), places.taken(2):
            pass


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_shard_without_a_place_is_refused_before_it_is_read(alone: Alone, version: str) -> None:
    ann, bob, eve = (alone.token(actor=actor) for actor in (1, 2, 3))
    with alone.speaking() as http:
        url = str(http.base_url)
        stored(http, ONE)
        with sending(url, ann, version):
            until(lambda: told(url, ann).status_code == 429)
            # Somebody else is filed, and who is refused hears of it before the body.
            assert told(url, bob, version).status_code == 200
            with sending(url, ann, version, b"") as refused:
                answer = refused.recv(4096).lower()
                assert answer.startswith(b"http/1.1 429")
                assert b"\r\nretry-after: 5\r\n" in answer
            with sending(url, bob, version):
                until(lambda: told(url, eve).status_code == 429)
        # Whoever leaves gives the place back.
        until(lambda: told(url, ann, version).status_code == 200)
        assert told(url, bob, version).status_code == 200


def test_a_place_is_held_until_the_shard_is_filed(alone: Alone) -> None:
    with alone.speaking() as http:
        stored(http, ONE)
        for data in (SHARD, b"no shard at all", b""):
            for version in ("v1", "v2"):
                # One after the other, as many as ever: each has given its place back, however it ended.
                for _ in range(3):
                    assert http.post(f"{AT}/{version}/shards", content=data).status_code in (200, 400)


@pytest.mark.parametrize("hidden", ["nothing", "v2/"])
def test_the_client_that_users_have_comes_again(alone: Alone, tmp_path: Path, hidden: str) -> None:
    alone.hidden = [hidden]
    alone.build()
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    with serving(alone) as url, ThreadPoolExecutor() as pool:
        with sending(url, alone.token(), "v1"):
            until(lambda: told(url, alone.token()).status_code == 429)
            alone.heard.clear()
            upload = pool.submit(Client(url, tmp_path / "home").upload, path)
            until(lambda: any(one.status == 429 for one in alone.heard) or upload.done())
        assert upload.result(60)
    *refused, last = [one.status for one in alone.heard if one.path.endswith("/shards") and one.size != HALF]
    assert (set(refused) - {404}, last) == ({429}, 200)
