"""What git-lfs pushed is kept once, by its chunks: a day later every door gives the same bytes as before."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.tables.objects import lfs_objects
from registry.tables.xet import xet_links
from tests.clients.test_git import create
from tests.clients.test_xet_ingest import head, is_proven, push, rows, until
from tests.clients.visitor import visit
from tests.services.house import House, open_house
from tests.services.programs import Git

pytestmark = pytest.mark.clients

BODY = random.Random(21).randbytes(17 << 20)
OID = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A registry of this test's own, whose clock is turned."""
    with open_house(tmp_path / "house", GC="off") as made:
        yield made


def place(house: House) -> tuple[str, str]:
    """The object's kind and key."""
    with rows(house) as database, database.read() as connection:
        chosen = sa.select(lfs_objects.c.kind, lfs_objects.c.key).where(lfs_objects.c.oid == OID)
        found = connection.execute(chosen).one()
    return found.kind, found.key


def turn_to_tomorrow(house: House) -> None:
    """Let a day pass, and the server look."""
    house.stop()
    with rows(house) as database, database.write() as connection:
        filed = datetime.now(UTC) - timedelta(hours=25)
        connection.execute(sa.update(xet_links).values(created_at=filed))
    house.start()


def told(house: House, name: str) -> float:
    """A number from /metrics."""
    lines = httpx.get(f"{house.url}/metrics", trust_env=False).text.splitlines()
    (found,) = [line for line in lines if line.startswith(name)]
    return float(found.rpartition(" ")[2])


def test_a_day_later_every_door_gives_it_from_its_chunks(house: House, git: Git, tmp_path: Path) -> None:
    repo, twin = create(house, "m"), create(house, "twin")
    assert push(git, house, repo, tmp_path / "work", BODY) == OID
    until(lambda: is_proven(house, OID))
    kind, key = place(house)
    assert kind == "whole"
    turn_to_tomorrow(house)
    until(lambda: place(house)[0] == "xet")
    assert told(house, "weightroom_xet_freed_bytes_total") == len(BODY)
    assert house.cli("gc", "--dry-run").stdout.count(key) == 0
    assert key in house.cli("gc", "--grace-key", "0h").stdout
    assert not (house.folder / "data" / "objects" / key).exists()

    git("clone", house.remote(repo), str(tmp_path / "again"))
    assert (tmp_path / "again" / "m.bin").read_bytes() == BODY
    # Another repo's push of the same bytes links the object as it is now.
    assert push(git, house, twin, tmp_path / "twin", BODY) == OID
    assert place(house)[0] == "xet"
    until(lambda: "x-xet-hash" in head(house, f"{twin}/resolve/main/m.bin"))
    for xet in (False, True):
        lines = f"""
            import hashlib
            for repo in ("{repo}", "{twin}"):
                out[repo] = hashlib.sha256(content("m.bin", repo)).hexdigest()
            """
        home = tmp_path / f"home-{xet}"
        found = visit(lines, endpoint=house.url, token=house.token, home=home, xet=xet)
        assert found == {repo: OID, twin: OID}
    headers = {"authorization": f"Bearer {house.token}", "range": "bytes=9999990-10000009"}
    part = httpx.get(f"{house.url}/{repo}/resolve/main/m.bin", headers=headers, trust_env=False)
    assert (part.status_code, part.content) == (206, BODY[9_999_990:10_000_010])
    batch(house, repo)
    assert house.findings() == []


def batch(house: House, repo: str) -> None:
    """A download is offered as any other, and by this server."""
    asked = {"operation": "download", "transfers": ["basic"], "objects": [{"oid": OID, "size": len(BODY)}]}
    media = "application/vnd.git-lfs+json"
    headers = {"authorization": f"Bearer {house.token}", "accept": media, "content-type": media}
    answer = httpx.post(
        f"{house.url}/{repo}.git/info/lfs/objects/batch", headers=headers, content=json.dumps(asked), trust_env=False
    ).json()
    href = answer["objects"][0]["actions"]["download"]["href"]
    assert answer["transfer"] == "basic"
    assert href.startswith(house.url)
    assert hashlib.sha256(httpx.get(href, trust_env=False).content).hexdigest() == OID
