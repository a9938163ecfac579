"""Who has most places gives one up for who has fewer, and nobody has all filers while others wait.

Also with the client that users have: it comes again.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.sendfile import FileProtocol
from lfs.xet.checking import Tell
from lfs.xet.filing import Filing
from lfs.xet.index import Leave
from lfs.xet.places import Place, Places
from tests.lfs.conftest import serving
from tests.lfs.xet.alone import Alone
from tests.lfs.xet.client import Client
from tests.lfs.xet.sending import AT, ONE, shard_of, stored

SHARD = shard_of(ONE, (0, 1))
# What a shard says it has that ends early.
HALF = 1000


class Noted(Places):
    """Places that tell who has them."""

    def __init__(self, places: int) -> None:
        super().__init__(places)
        self._all: list[tuple[int, Place]] = []

    @contextmanager
    def taken(self, actor_id: int) -> Iterator[Place]:
        with super().taken(actor_id) as place:
            self._all.append((actor_id, place))
            try:
                yield place
            finally:
                self._all.remove((actor_id, place))

    def held(self) -> list[int]:
        """Return the sender of each place that is taken."""
        return sorted(actor_id for actor_id, place in self._all if not place.lost)


class Slow(Filing):
    """Files each shard when it is told to, and notes whose it began."""

    def __init__(self, **behind: Any) -> None:
        super().__init__(**behind)
        self.begun: list[int] = []
        self.go = threading.Semaphore(0)

    def file(self, leave: Leave, data: bytes, tell: Tell) -> bool:
        self.begun.append(leave.actor_id)
        assert self.go.acquire(timeout=20)
        return super().file(leave, data, tell)


@pytest.fixture
def alone(heavy: Heavy, tmp_path: Path) -> Alone:
    """A door with two places."""
    store = LocalStore(tmp_path / "shelf", min_free=0, fsync=False)
    return Alone(store, heavy, tmp_path / "coming", places=Noted(2))


@pytest.fixture
def slow(alone: Alone) -> Slow:
    """What files behind a door with six places."""
    alone.places, alone.filing_kind = Noted(6), Slow
    alone.build()
    assert isinstance(alone.filing, Slow)
    return alone.filing


@contextmanager
def sending(url: str, token: str, version: str, body: bytes = b"MDB") -> Iterator[socket.socket]:
    """Announce a shard and send no more than the beginning of it, while the block runs."""
    at = httpx.URL(url)
    head = f"POST {AT}/{version}/shards HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    with socket.create_connection((at.host, at.port or 80), timeout=20) as wire:
        wire.sendall(f"{head}content-length: {HALF}\r\n\r\n".encode() + body)
        yield wire


def held(alone: Alone) -> list[int]:
    """Say who has places."""
    assert isinstance(alone.places, Noted)
    return alone.places.held()


def until(fits: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not fits():
        assert time.monotonic() < deadline


def told(url: str, token: str, version: str = "v1") -> httpx.Response:
    return httpx.post(
        f"{url}{AT}/{version}/shards", content=SHARD, headers={"authorization": f"Bearer {token}"}, trust_env=False
    )


def is_refused(wire: socket.socket) -> bool:
    """Wait until a shard hears that it has to come again."""
    answer = wire.recv(4096).lower()
    return answer.startswith(b"http/1.1 429") and b"\r\nretry-after: 5\r\n" in answer


def filing(http: httpx.Client, token: str, version: str = "v1") -> Callable[[], httpx.Response]:
    return lambda: told(str(http.base_url), token, version)


@pytest.mark.parametrize(("version", "protocol"), [("v1", FileProtocol), ("v2", FileProtocol), ("v1", "h11")])
def test_who_has_most_gives_a_place_up_for_who_has_fewer(alone: Alone, version: str, protocol: Any) -> None:
    ann, bob, eve = (alone.token(actor=actor) for actor in (1, 2, 3))
    with alone.speaking() as http:
        stored(http, ONE)
    with serving(alone, http=protocol) as url:
        with sending(url, ann, version) as first:
            until(lambda: len(held(alone)) == 1)
            # Alone, she has all of them, and the next is refused before its body.
            with sending(url, ann, version) as last:
                until(lambda: held(alone) == [1, 1])
                with sending(url, ann, version, b"") as third:
                    assert is_refused(third)
                # Somebody else is filed, at the cost of what she began last.
                with sending(url, bob, version):
                    assert is_refused(last)
                    assert held(alone) == [1, 2]
                    # Two who have one each keep it.
                    with sending(url, eve, version, b"") as late:
                        assert is_refused(late)
                until(lambda: held(alone) == [1])
            assert told(url, bob, version).status_code == 200
            first.sendall(bytes(HALF - 3))
            assert first.recv(4096).startswith(b"HTTP/1.1 400" if version == "v1" else b"HTTP/1.1 200")
        # Whoever leaves gives the place back.
        until(lambda: held(alone) == [])
        assert told(url, ann, version).status_code == 200


def test_what_is_being_filed_is_never_given_up(alone: Alone, slow: Slow) -> None:
    alone.places = Noted(2)
    alone.door = alone.app()
    with alone.speaking() as http, ThreadPoolExecutor() as pool:
        stored(http, ONE)
        both = [pool.submit(filing(http, alone.token(), version)) for version in ("v1", "v2")]
        until(lambda: len(slow.begun) == 2)
        assert filing(http, alone.token(actor=2))().status_code == 429
        slow.go.release(2)
        assert [one.result().status_code for one in both] == [200, 200]


def test_who_sends_many_shards_has_one_filer_while_others_wait(alone: Alone, slow: Slow) -> None:
    with alone.speaking() as http, ThreadPoolExecutor() as pool:
        stored(http, ONE)
        sent = [pool.submit(filing(http, alone.token(), version)) for version in ("v1", "v2", "v1", "v2")]
        until(lambda: held(alone) == [1] * 4)
        sent += [pool.submit(filing(http, alone.token(actor=2))) for _ in range(2)]
        until(lambda: held(alone) == [1] * 4 + [2] * 2)
        for count in range(3, 7):
            slow.go.release()
            until(lambda count=count: len(slow.begun) == count)  # type: ignore[misc]
        slow.go.release(2)
        assert [one.result().status_code for one in sent] == [200] * 6
    # Without others she has both; one that came last is next, and then it is one of each.
    assert slow.begun[:3] == [1, 1, 2]
    assert sorted(slow.begun[3:5]) == [1, 2]


@pytest.mark.parametrize("hidden", ["nothing", "v2/"])
def test_the_client_that_users_have_comes_again_if_it_lost_its_place(
    alone: Alone, slow: Slow, hidden: str, tmp_path: Path
) -> None:
    alone.places, alone.hidden = Noted(4), [hidden]
    alone.door = alone.app()
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    with alone.speaking() as http, ThreadPoolExecutor() as pool:
        stored(http, ONE)
        url = str(http.base_url)
        others = [pool.submit(filing(http, alone.token(actor=actor))) for actor in (2, 3)]
        until(lambda: len(slow.begun) == 2)
        others.append(pool.submit(filing(http, alone.token())))
        until(lambda: held(alone) == [1, 2, 3])
        upload = pool.submit(Client(url, tmp_path / "home").upload, path)
        until(lambda: held(alone) == [1, 1, 2, 3] or upload.done())
        others.append(pool.submit(filing(http, alone.token(actor=4))))
        until(lambda: held(alone) == [1, 2, 3, 4])
        slow.go.release(6)
        assert [one.result().status_code for one in others] == [200] * 4
        assert upload.result(60)
    assert sorted(slow.begun) == [1, 1, 2, 3, 4]


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
        with sending(url, alone.token(actor=2), "v1"), sending(url, alone.token(actor=3), "v1"):
            until(lambda: held(alone) == [2, 3])
            upload = pool.submit(Client(url, tmp_path / "home").upload, path)
            until(lambda: any(one.status == 429 for one in alone.heard) or upload.done())
        assert upload.result(60)
    *refused, last = [one.status for one in alone.heard if one.path.endswith("/shards") and one.size != HALF]
    assert (set(refused) - {404}, last) == ({429}, 200)
