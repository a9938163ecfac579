"""Stock clients below a path of somebody else's host: nginx keeps the prefix or takes it off, nobody notices."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.clients.hostile import LFS
from tests.clients.visitor import visit
from tests.services.house import House, free_port, open_house
from tests.services.nginx import Way, nginx
from tests.services.programs import Git, need

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("proxied")]
PREFIX = "/lab/models"
_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """A house, and where the world sees it."""

    house: House
    url: str

    def ask(self, method: str, path: str, **more: object) -> httpx.Response:
        """Send a request through the proxy with the admin's token."""
        headers = {"Authorization": f"Bearer {self.house.token}", "Accept": "*/*"}
        with httpx.Client(trust_env=False, timeout=30) as client:
            return client.request(method, self.url + path, headers=headers, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def seen_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A house that is told its address; nothing listens there yet."""
    url = f"http://127.0.0.1:{free_port()}{PREFIX}"
    with open_house(tmp_path_factory.mktemp("house"), PUBLIC_URL=url + "/", TRUSTED_PROXIES="127.0.0.1") as house:
        yield Place(house, url)


@pytest.fixture(params=["kept", "taken off"])
def place(request: pytest.FixtureRequest, seen_at: Place, tmp_path: Path) -> Iterator[Place]:
    """The same with nginx before it."""
    way: Way = request.param
    port = int(seen_at.url.split(":")[2].split("/")[0])
    with nginx(tmp_path / "nginx", port=port, door=seen_at.house.port, prefix=PREFIX, way=way):
        yield seen_at


@pytest.mark.parametrize("xet", [True, False], ids=["by chunks", "whole"])
def test_huggingface_hub_reads_writes_and_pages(place: Place, tmp_path: Path, *, xet: bool) -> None:
    out = visit(
        f"""
        from huggingface_hub.utils import build_hf_headers, paginate
        repo = api.create_repo("ann/hub-{next(_numbers)}")
        other = api.create_repo("ann/other-{next(_numbers)}", repo_type="dataset")
        out["urls"] = [str(repo), str(other)]
        made = api.upload_file(path_or_fileobj=b"x" * 5000, path_in_repo="a b/m.safetensors", repo_id=repo.repo_id)
        api.upload_file(path_or_fileobj=b"hello", path_in_repo="a.txt", repo_id=repo.repo_id)
        api.create_branch(repo.repo_id, branch="a/b")
        out["urls"] += [str(made), made.commit_url]
        out["read"] = len(content("a b/m.safetensors", repo.repo_id, revision="a/b"))
        out["snapshot"] = sorted(os.listdir(api.snapshot_download(repo.repo_id)))
        pages = paginate(os.environ["HF_ENDPOINT"] + "/api/models", {{"limit": 1}}, build_hf_headers())
        out["listed"] = repo.repo_id in [found["id"] for found in pages]
        out["commits"] = len(api.list_repo_commits(repo.repo_id))
        api.delete_repo(other.repo_id, repo_type="dataset")
        """,
        endpoint=place.url,
        token=place.house.token,
        home=tmp_path,
        xet=xet,
    )
    urls = out.pop("urls")
    assert isinstance(urls, list)
    assert all(str(url).startswith(place.url + "/") for url in urls)
    assert out == {"read": 5000, "snapshot": [".gitattributes", "a b", "a.txt"], "listed": True, "commits": 3}


def test_git_and_git_lfs_push_clone_and_lock(place: Place, git: Git, tmp_path: Path) -> None:
    need("git-lfs")
    name = f"git-{next(_numbers)}"
    assert place.ask("POST", "/api/repos/create", json={"name": name}).status_code == 200
    remote = place.url.replace("http://", f"http://x:{place.house.token}@") + f"/ann/{name}"
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", remote, "work", at=tmp_path)
    work = tmp_path / "work"
    git.commit(work, {"model.safetensors": b"w" * 100_000, "a.txt": "x"})
    git("push", "-q", at=work)
    git("lfs", "lock", "model.safetensors", at=work)
    assert "model.safetensors" in git("lfs", "locks", "--verify", at=work)
    git("lfs", "unlock", "model.safetensors", at=work)
    git("clone", "-q", remote + ".git", "again", at=tmp_path)
    assert (tmp_path / "again/model.safetensors").read_bytes() == b"w" * 100_000
    git("lfs", "fsck", at=tmp_path / "again")


ABSOLUTE = re.compile(r"https?://[^\s\"<>,;\\]+")


def test_every_address_in_an_answer_is_below_the_prefix(place: Place) -> None:
    name, oid = f"ann/seen-{next(_numbers)}", "ab" * 32
    answers = [place.ask("POST", "/api/repos/create", json={"name": name.split("/")[1]})]
    answers.append(place.ask("POST", "/api/repos/create", json={"name": name.split("/")[1]}))
    for operation in ("upload", "download"):
        body = {"operation": operation, "objects": [{"oid": oid, "size": 1}]}
        answers.append(place.ask("POST", f"/{name}.git/info/lfs/objects/batch", json=body))
    header = {"key": "header", "value": {"summary": "s"}}
    file = {"key": "file", "value": {"path": "a/b.txt", "content": "eA==", "encoding": "base64"}}
    commit = b"\n".join(json.dumps(line).encode() for line in (header, file))
    answers.append(place.ask("POST", f"/api/models/{name}/commit/main", content=commit))
    answers += [place.ask("GET", f"/api/models/{name}"), place.ask("GET", "/api/models?limit=1")]
    answers.append(place.ask("GET", f"/api/models/{name}/tree/main?limit=1&recursive=true"))
    answers.append(place.ask("GET", f"/api/models/{name}/commits/main?limit=1"))
    answers.append(place.ask("HEAD", f"/{name}/resolve/main/a%2Fb.txt"))
    answers.append(place.ask("POST", "/api/repos/move", json={"fromRepo": name, "toRepo": name + "-moved"}))
    answers.append(place.ask("GET", f"/{name}/resolve/main/a/b.txt"))
    assert [answer.status_code for answer in answers if answer.status_code != 200] == [409]
    found = [
        url for answer in answers for text in (answer.text, *answer.headers.values()) for url in ABSOLUTE.findall(text)
    ]
    assert len(found) >= 6
    assert [url for url in found if not url.startswith(place.url + "/")] == []
    assert not any(answer.headers.get("location", "/").removeprefix(place.url).startswith("//") for answer in answers)


def test_no_dots_lead_out_of_the_prefix(place: Place) -> None:
    at = place.url.removesuffix("/lab/models")
    curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is"]

    def status(path: str) -> str:
        done = subprocess.run([*curl, at + path], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    need("curl")
    assert status(PREFIX + "/api/models") == "200"
    for path in (
        "/version",
        f"{PREFIX}x/version",
        f"{PREFIX}/../version",
        f"{PREFIX}/%2e%2e/version",
        f"{PREFIX}/..%2fversion",
    ):
        assert status(path) in ("400", "418"), path


def test_refusals_link_below_the_prefix(place: Place) -> None:
    name = f"ann/gated-{next(_numbers)}"
    place.ask("POST", "/api/repos/create", json={"name": name.split("/")[1]})
    assert place.ask("PUT", f"/api/models/{name}/settings", json={"gated": "manual"}).status_code == 200
    body = {"operation": "download", "objects": [{"oid": "ab" * 32, "size": 1}]}
    with httpx.Client(trust_env=False, timeout=30, headers={"Accept": LFS, "Content-Type": LFS}) as nobody:
        large = nobody.post(f"{place.url}/{name}.git/info/lfs/objects/batch", json=body)
        file = nobody.get(f"{place.url}/{name}/resolve/main/README.md")
    assert (large.status_code, file.status_code) == (401, 401)
    for answer in (large, file):
        assert f"{place.url}/{name}" in answer.text
