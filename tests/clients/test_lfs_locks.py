"""Locks as two people meet them with git-lfs: seen by both, kept at every door, given back or taken by force."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.accounts import Accounts
from registry.config import Config
from registry.db import Database, now
from registry.tables.objects import lfs_locks
from registry.tables.repos import repos
from tests.clients.hostile import LFS
from tests.clients.test_git import create
from tests.services.house import House
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients
_numbers = itertools.count()


@dataclass(frozen=True)
class Lab:
    """An organisation with people in it, by role, each with a token; `name` is a repo of it, `url` is it for one."""

    house: House
    name: str
    tokens: dict[str, str]
    client: httpx.Client

    def url(self, who: str) -> str:
        """Clone URL of somebody."""
        return self.house.remote(self.name, self.tokens[who])

    def ask(self, who: str | None, method: str, path: str = "", **more: object) -> httpx.Response:
        """Send somebody's request to the locks of the repo."""
        headers = {"Accept": LFS, "Content-Type": LFS}
        headers |= {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        url = f"{self.house.url}/{self.name}.git/info/lfs/locks{path}"
        return self.client.request(method, url, headers=headers, **more)  # type: ignore[arg-type]

    def api(self, who: str, method: str, path: str, **more: object) -> httpx.Response:
        """Send somebody's request to the Hub's API."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"}
        return self.client.request(method, f"{self.house.url}/api/{path}", headers=headers, **more)  # type: ignore[arg-type]

    def named(self, name: str) -> Lab:
        """Return the same people with another repo."""
        return replace(self, name=name)

    def take(self, who: str, path: str, ref: str = "refs/heads/main") -> str:
        """Lock a path; return the id of the lock."""
        made = self.ask(who, "POST", json={"path": path, "ref": {"name": ref}})
        assert made.status_code == 201, made.text
        return str(made.json()["lock"]["id"])


@pytest.fixture(scope="session")
def labs() -> Iterator[dict[str, Lab]]:
    """The organisations made so far, by house."""
    made: dict[str, Lab] = {}
    yield made
    for lab in made.values():
        lab.client.close()


def lab_in(house: House, labs: dict[str, Lab]) -> Lab:
    """Return the organisation of a house, with a new repo."""
    if house.url not in labs:
        labs[house.url] = Lab(house, "", people_of(house), httpx.Client(trust_env=False, timeout=30))
    return labs[house.url].named(create(house, f"shared-{next(_numbers)}", organization="locklab", private=True))


def people_of(house: House) -> dict[str, str]:
    """Make the organisation and its people; return their tokens."""
    database = Database(Config.from_environ(house.environment).database_url)
    accounts = Accounts(database)
    accounts.create_org("locklab", "ann")
    tokens = {"ann": house.token}
    for who, role in (("bob", "write"), ("eve", "read"), ("stranger", "")):
        accounts.create_user(f"lock{who}")
        tokens[who] = accounts.create_token(f"lock{who}")
        if role:
            accounts.set_member("locklab", f"lock{who}", role)  # type: ignore[arg-type]
    database.dispose()
    return tokens


@pytest.fixture
def lab(house: House, labs: dict[str, Lab]) -> Lab:
    """A new repo of people who share it, in either kind of house."""
    return lab_in(house, labs)


@pytest.fixture
def small_lab(small_house: House, labs: dict[str, Lab]) -> Lab:
    """The same in the small house."""
    return lab_in(small_house, labs)


def refused(git: Git, *words: str, at: Path) -> str:
    """Run what must fail; return what it said."""
    done = git.attempt(*words, at=at)
    assert done.returncode != 0, f"{words} went through"
    return done.stdout + done.stderr


def test_a_locked_file_is_its_holders_at_every_door_until_it_is_given_back(
    lab: Lab, lfs_git: Git, tmp_path: Path
) -> None:
    git, anns, bobs = lfs_git, tmp_path / "anns", tmp_path / "bobs"
    git("clone", "-q", lab.url("ann"), str(anns))
    git.commit(anns, {"model.safetensors": b"one", "other.safetensors": b"one"})
    git("push", "-q", at=anns)
    git("lfs", "lock", "model.safetensors", at=anns)
    git("clone", "-q", lab.url("bob"), str(bobs))
    git("config", "lfs.locksverify", "true", at=bobs)
    assert "model.safetensors" in git("lfs", "locks", at=bobs)
    assert git("lfs", "locks", "--verify", at=bobs).startswith("model.safetensors")
    assert git("lfs", "locks", "--verify", at=anns).startswith("O model.safetensors")
    assert "ann" in refused(git, "lfs", "lock", "model.safetensors", at=bobs)

    git.commit(bobs, {"model.safetensors": b"two", "other.safetensors": b"two"})
    assert "model.safetensors" in refused(git, "push", at=bobs)
    git("-c", "lfs.locksverify=false", "lfs", "push", "--all", "origin", at=bobs)
    said = refused(git, "push", "--no-verify", "origin", "HEAD", "HEAD:refs/heads/side", at=bobs)
    assert said.count("model.safetensors is locked by ann") == 2
    assert "model.safetensors is locked by ann" in commit(lab, "bob", "model.safetensors", 403)
    commit(lab, "bob", "free.txt", 200)

    git("pull", "-q", "--rebase", at=anns)
    git.commit(anns, {"model.safetensors": b"three"})
    git("push", "-q", at=anns)
    git("reset", "-q", "--hard", "HEAD~1", at=bobs)
    git.commit(bobs, {"other.safetensors": b"four"})
    git("pull", "-q", "--no-rebase", "--no-edit", at=bobs)
    git("push", "-q", at=bobs)
    assert (bobs / "model.safetensors").read_bytes() == b"three"

    assert "ann" in refused(git, "lfs", "unlock", "model.safetensors", at=bobs)
    assert "ann" in refused(git, "lfs", "unlock", "--force", "model.safetensors", at=bobs)
    git("lfs", "unlock", "model.safetensors", at=anns)
    assert git("lfs", "locks", at=bobs) == ""
    git.commit(bobs, {"model.safetensors": b"five"})
    git("push", "-q", at=bobs)


def commit(lab: Lab, who: str, path: str, status: int) -> str:
    """Change a file by the Hub's API; return the answer."""
    lines: list[object] = [{"key": "header", "value": {"summary": "s"}}]
    lines.append({"key": "file", "value": {"path": path, "content": "eA==", "encoding": "base64"}})
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    answer = lab.api(who, "POST", f"models/{lab.name}/commit/main", content=body)
    assert answer.status_code == status, answer.text
    return answer.text


def test_an_admin_takes_a_lock_by_force_and_by_id(small_lab: Lab, lfs_git: Git, tmp_path: Path) -> None:
    lfs_git("clone", "-q", small_lab.url("ann"), "anns", at=tmp_path)
    small_lab.take("bob", "a.safetensors")
    lock_id = small_lab.take("bob", "b/c.safetensors")
    refused(lfs_git, "lfs", "unlock", f"--id={lock_id}", at=tmp_path / "anns")
    lfs_git("lfs", "unlock", "--force", "a.safetensors", at=tmp_path / "anns")
    lfs_git("lfs", "unlock", "--force", f"--id={lock_id}", at=tmp_path / "anns")
    assert small_lab.ask("bob", "GET").json()["locks"] == []
    own = small_lab.take("ann", "a.safetensors")
    lfs_git("lfs", "unlock", f"--id={own}", at=tmp_path / "anns")


def test_readers_see_locks_and_strangers_see_nothing(small_lab: Lab) -> None:
    lock_id = small_lab.take("ann", "a.bin")
    asked = [
        ("GET", "", None),
        ("POST", "", {"path": "b.bin"}),
        ("POST", "/verify", {}),
        ("POST", f"/{lock_id}/unlock", {"force": True}),
    ]
    for who, statuses in (("eve", [200, 403, 403, 403]), ("stranger", [404] * 4), (None, [401] * 4)):
        got = [small_lab.ask(who, method, path, json=body) for method, path, body in asked]
        assert [answer.status_code for answer in got] == statuses, who
        assert who == "eve" or not any(lock_id in answer.text for answer in got)
    assert small_lab.ask("eve", "GET").json()["locks"][0]["owner"] == {"name": "ann"}
    held = small_lab.ask("bob", "POST", json={"path": "a.bin"})
    assert (held.status_code, held.json()["lock"]["id"]) == (409, lock_id)


def test_a_lock_is_seen_from_every_branch_and_outlives_the_one_it_was_taken_on(
    small_lab: Lab, lfs_git: Git, tmp_path: Path
) -> None:
    git, work = lfs_git, tmp_path / "work"
    git("clone", "-q", small_lab.url("ann"), str(work))
    git("checkout", "-q", "-b", "side", at=work)
    git.commit(work, {"a.safetensors": b"one"})
    git("push", "-q", "-u", "origin", "side", at=work)
    git("lfs", "lock", "a.safetensors", at=work)
    git("checkout", "-q", "main", at=work)
    assert "a.safetensors" in git("lfs", "locks", at=work)
    git("push", "-q", "origin", ":side", at=work)
    assert "a.safetensors" in git("lfs", "locks", at=work)
    assert [lock["path"] for lock in small_lab.ask("bob", "POST", "/verify", json={}).json()["theirs"]] == [
        "a.safetensors"
    ]


def test_locks_follow_a_repo_to_its_new_name_and_end_with_it(small_lab: Lab) -> None:
    lock_id = small_lab.take("ann", "a.bin")
    moved = small_lab.named(f"{small_lab.name}-moved")
    body: dict[str, object] = {"fromRepo": small_lab.name, "toRepo": moved.name}
    assert small_lab.api("ann", "POST", "repos/move", json=body).status_code == 200
    for lab in (moved, small_lab):
        assert [lock["id"] for lock in lab.ask("bob", "GET").json()["locks"]] == [lock_id]
    organization, name = moved.name.split("/")
    body = {"name": name, "organization": organization}
    assert moved.api("ann", "DELETE", "repos/delete", json=body).status_code == 200
    assert moved.ask("ann", "GET").status_code == 404
    assert create(moved.house, name, organization=organization) == moved.name
    assert moved.ask("ann", "GET").json()["locks"] == []


KEPT = ["a", "a/b c/d.bin", "ein Gerät.bin", "ein Gera\u0308t.bin", "A.bin", "...", "-", " x ", "p" * 4096]
ODD = ["", "/a", "a/", "a//b", "./a", "a/./b", "..", "a/../b", "a/..", "a\0b", "p" * 4097, "é" * 2049]


def test_a_path_is_kept_as_given_or_refused(small_lab: Lab) -> None:
    for path in KEPT:
        small_lab.take("ann", path)
        (found,) = small_lab.ask("bob", "GET", params={"path": path}).json()["locks"]
        assert found["path"] == path
    for path in ODD:
        answer = small_lab.ask("ann", "POST", json={"path": path})
        assert (answer.status_code, "lock" in answer.json()) == (400, False), path
    assert len(small_lab.ask("ann", "GET").json()["locks"]) == len(KEPT)


@pytest.fixture
def crowded(small_lab: Lab) -> Lab:
    """A repo with 10,000 locks of bob's."""
    database = Database(Config.from_environ(small_lab.house.environment).database_url)
    mine = small_lab.take("bob", "first")
    with database.write() as connection:
        row = connection.execute(sa.select(lfs_locks).where(lfs_locks.c.id == mine)).one()
        rows = [
            {"id": f"{row.repo_id:04x}{n:028x}", "serial": n, "repo_id": row.repo_id, "path": f"d/{n}"}
            | {"path_sha": f"{n:064x}", "ref": "", "owner_id": row.owner_id, "locked_at": now()}
            for n in range(2, 10_001)
        ]
        connection.execute(sa.insert(lfs_locks), rows)
        connection.execute(sa.update(repos).where(repos.c.id == row.repo_id).values(locks_made=10_000))
    database.dispose()
    return small_lab


def test_10000_locks_are_paged_while_others_come_and_go(crowded: Lab, git: Git, tmp_path: Path) -> None:
    need("git-lfs")
    stop = threading.Event()
    ids = {lock["path"]: lock["id"] for lock in pages(crowded, "GET")}
    assert len(ids) == 10_000

    def churn() -> None:
        for n in itertools.count(2, 7):
            if stop.is_set():
                return
            path = f"d/{n % 10_000 or 2}"
            if path in ids:
                crowded.ask("bob", "POST", f"/{ids.pop(path)}/unlock", json={})
            crowded.ask("bob", "POST", json={"path": f"new/{n}"})

    busy = threading.Thread(target=churn)
    busy.start()
    try:
        listed = [lock["path"] for lock in pages(crowded, "GET")]
        verified = [lock["path"] for lock in pages(crowded, "POST")]
    finally:
        stop.set()
        busy.join()
    for found in (listed, verified):
        assert len(found) == len(set(found))
        assert set(ids) <= set(found)
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", crowded.url("ann"), "work", at=tmp_path)
    git.commit(tmp_path / "work", {"free.safetensors": b"x"})
    git("push", "-q", at=tmp_path / "work")
    git.commit(tmp_path / "work", {"first": b"x"})
    assert "first is locked by lockbob" in refused(git, "push", "--no-verify", at=tmp_path / "work")


def pages(lab: Lab, method: str) -> list[dict[str, str]]:
    """Read every page; GET lists, POST verifies as ann, whose none of the locks is."""
    found: list[dict[str, str]] = []
    cursor = ""
    while True:
        asked = {"limit": 1000, "cursor": cursor}
        page = lab.ask("ann", "GET", params=asked) if method == "GET" else lab.ask("ann", "POST", "/verify", json=asked)
        locks = page.json()["locks" if method == "GET" else "theirs"]
        assert len(locks) <= 100
        found += locks
        cursor = page.json().get("next_cursor", "")
        if not cursor:
            return found
