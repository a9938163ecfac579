"""Stock huggingface_hub with hf-xet moves large files by their chunks; every other client sees the same bytes."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.visitor import surroundings, visit
from tests.services.house import House, open_house
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients

LFS = "application/vnd.git-lfs+json"
SIZE = 11 << 20
MAKE = "import random, hashlib; large = random.Random({}).randbytes({})\n"


class Guest:
    """Somebody with a home of their own, Xet on or off."""

    def __init__(self, house: House, home: Path, *, xet: bool = True) -> None:
        self.house, self.home, self.xet = house, home, xet

    def run(self, code: str, *, seed: int = 1) -> dict[str, object]:
        """Run lines of Python, which find `content(seed)` in `large`."""
        lines = MAKE.format(seed, SIZE) + textwrap.dedent(code)
        return visit(lines, endpoint=self.house.url, token=self.house.token, home=self.home, xet=self.xet)

    def hf(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        environment = surroundings(endpoint=self.house.url, token=self.house.token, home=self.home, xet=self.xet)
        command = [str(Path(sys.executable).parent / "hf"), *arguments]
        return subprocess.run(
            command, env=environment, cwd=self.home, capture_output=True, text=True, check=False, timeout=120
        )


def content(seed: int = 1) -> bytes:
    """Make what guests have in `large`."""
    return random.Random(seed).randbytes(SIZE)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def client(house: House) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, headers=bearer(house), trust_env=False, follow_redirects=True) as made:
        yield made


def bearer(house: House) -> dict[str, str]:
    return {"authorization": f"Bearer {house.token}"}


def test_a_file_comes_back_the_same_by_every_way(house: House, client: httpx.Client, git: Git, tmp_path: Path) -> None:
    since = house.log.stat().st_size
    out = Guest(house, tmp_path / "writer").run(
        """
        repo = api.create_repo("ways", private=True).repo_id
        open("m.bin", "wb").write(large)
        api.upload_file(repo_id=repo, path_in_repo="m.safetensors", path_or_fileobj="m.bin")
        out["hash"] = api.get_paths_info(repo, "m.safetensors")[0].xet_hash
        out["file"] = hashlib.sha256(content("m.safetensors", repo)).hexdigest()
        """
    )
    oid = sha256(content())
    assert len(str(out["hash"])) == 64
    assert out["file"] == oid
    assert house.asked("POST", "/xet/", since) >= 2
    assert house.asked("GET", "/xet/", since) >= 1
    assert house.asked("PUT", "/lfs/", since) == 0

    plain = Guest(house, tmp_path / "plain", xet=False).run(
        """out["file"] = hashlib.sha256(content("m.safetensors", "ann/ways")).hexdigest()"""
    )
    assert plain["file"] == oid
    whole = client.get("/ann/ways/resolve/main/m.safetensors")
    assert (whole.status_code, sha256(whole.content)) == (200, oid)
    part = client.get("/ann/ways/resolve/main/m.safetensors", headers={"range": "bytes=5000000-7000000"})
    assert (part.status_code, part.content) == (206, content()[5_000_000:7_000_001])
    need("git", "git-lfs")
    git("lfs", "install", "--skip-repo")
    git("clone", house.remote("ann/ways"), str(tmp_path / "work"))
    assert sha256((tmp_path / "work" / "m.safetensors").read_bytes()) == oid


def test_a_folder_goes_in_one_commit_and_a_snapshot_brings_it_back(small_house: House, tmp_path: Path) -> None:
    Guest(small_house, tmp_path / "writer").run(
        """
        repo = api.create_repo("folder", repo_type="dataset").repo_id
        os.makedirs("tree/sub")
        for number in range(5):
            open(f"tree/sub/{number}.bin", "wb").write(large[number << 20 : (number + 3) << 20] * 2)
        open("tree/config.json", "w").write("{}")
        api.upload_folder(repo_id=repo, repo_type="dataset", folder_path="tree", commit_message="All")
        """
    )
    since = small_house.log.stat().st_size
    out = Guest(small_house, tmp_path / "reader").run(
        """
        at = snapshot_download("ann/folder", repo_type="dataset")
        for number in range(5):
            out[str(number)] = hashlib.sha256(open(f"{at}/sub/{number}.bin", "rb").read()).hexdigest()
        """
    )
    data = content()
    assert out == {str(number): sha256(data[number << 20 : (number + 3) << 20] * 2) for number in range(5)}
    assert small_house.asked("HEAD", "/datasets/ann/folder/resolve/", since) == 2, "none for what has a hash"
    assert small_house.asked("GET", "/xet/blob/", since) >= 1


def test_the_command_line_needs_nothing_but_an_endpoint_and_a_token(small_house: House, tmp_path: Path) -> None:
    guest = Guest(small_house, tmp_path / "home")
    guest.home.mkdir()
    (guest.home / "model").mkdir()
    (guest.home / "model" / "m.safetensors").write_bytes(content(seed=2))
    (guest.home / "model" / "README.md").write_text("# Model\n")
    for arguments in (("repos", "create", "by-hand"), ("upload", "ann/by-hand", "model", ".")):
        done = guest.hf(*arguments)
        assert done.returncode == 0, done.stderr
    done = Guest(small_house, tmp_path / "other").hf("download", "ann/by-hand", "--local-dir", "here")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other" / "here" / "m.safetensors").read_bytes() == content(seed=2)


def test_what_is_here_already_is_not_sent_again(small_house: House, tmp_path: Path) -> None:
    upload = 'api.upload_file(repo_id=api.create_repo("{}").repo_id, path_in_repo="m.bin", path_or_fileobj=large)'
    Guest(small_house, tmp_path / "home").run(upload.format("once"), seed=5)
    since = small_house.log.stat().st_size
    Guest(small_house, tmp_path / "fresh").run(upload.format("twice"), seed=5)
    lines = small_house.log.read_bytes()[since:].decode().splitlines()
    xorbs = [line for line in lines if '"method": "POST"' in line and "/v1/xorbs/" in line]
    assert xorbs == []


def test_a_commit_says_that_a_file_is_not_what_its_client_declared(small_house: House, tmp_path: Path) -> None:
    out = Guest(small_house, tmp_path / "home").run(
        """
        repo = api.create_repo("liar").repo_id
        op = CommitOperationAdd("m.bin", large)
        op.upload_info.sha256 = bytes(31) + b"!"
        out["told"] = told(errors.HfHubHTTPError, api.create_commit, repo, [op], commit_message="A lie")
        out["files"] = api.list_repo_files(repo)
        api.upload_file(repo_id=repo, path_in_repo="m.bin", path_or_fileobj=large)
        out["then"] = api.list_repo_files(repo)
        """
    )
    status, message = out["told"]  # type: ignore[misc]
    assert status == 400
    assert sha256(content()) in message
    assert "failed its check" in message
    assert out["files"] == [".gitattributes"]
    assert out["then"] == [".gitattributes", "m.bin"]


def test_a_private_file_is_not_to_be_had_with_the_token_of_another_repo(
    house: House, client: httpx.Client, tmp_path: Path
) -> None:
    out = Guest(house, tmp_path / "home").run(
        """
        for name in ("secret", "other"):
            api.create_repo(name, private=True)
        api.upload_file(repo_id="ann/secret", path_in_repo="m.bin", path_or_fileobj=large)
        out["hash"] = api.get_paths_info("ann/secret", "m.bin")[0].xet_hash
        """,
        seed=3,
    )
    status = {}
    for name in ("secret", "other"):
        leave = client.get(f"/api/models/ann/{name}/xet-read-token/main").json()
        url, bearer = f"{leave['casUrl']}/v2/reconstructions/{out['hash']}", f"Bearer {leave['accessToken']}"
        status[name] = client.get(url, headers={"authorization": bearer}).status_code
    assert status == {"secret": 200, "other": 404}


def test_a_batch_gives_leave_for_the_same_door(house: House, client: httpx.Client) -> None:
    assert client.post("/api/repos/create", json={"name": "batched"}).status_code == 200
    body = {"operation": "upload", "transfers": ["basic", "multipart", "xet"], "ref": {"name": "refs/heads/main"}}
    body["objects"] = [{"oid": "ab" * 32, "size": 5}]
    answer = client.post(
        "/ann/batched.git/info/lfs/objects/batch", content=json.dumps(body), headers={"content-type": LFS}
    )
    found = answer.json()
    assert found["transfer"] == "xet"
    action = found["objects"][0]["actions"]["upload"]
    header = action["header"]
    assert action["href"] == f"{house.url}/api/models/ann/batched/xet-write-token/refs%2Fheads%2Fmain"
    renewed = client.get(action["href"]).json()
    assert renewed["casUrl"] == header["X-Xet-Cas-Url"]
    assert header["X-Xet-Session-Id"]
    asked = f"{header['X-Xet-Cas-Url']}/v1/xorbs/default/{'0' * 64}"
    for token in (header["X-Xet-Access-Token"], renewed["accessToken"]):
        assert client.head(asked, headers={"authorization": f"Bearer {token}"}).status_code == 404
    assert client.head(asked, headers={"authorization": "Bearer xet_x"}).status_code == 401


def test_switched_off_files_that_came_by_chunks_are_there_and_new_ones_come_whole(tmp_path: Path) -> None:
    with open_house(tmp_path / "house") as house:
        upload = 'api.upload_file(repo_id="ann/turned", path_in_repo="{}.bin", path_or_fileobj=large)'
        Guest(house, tmp_path / "before").run('api.create_repo("turned")\n' + upload.format("a"))
        house.stop()
        house.settings = {"WEIGHTROOM_XET": "off"}
        house.start()
        back = 'out["file"] = hashlib.sha256(content("a.bin", "ann/turned")).hexdigest()'
        assert Guest(house, tmp_path / "reader").run(back) == {"file": sha256(content())}
        (tmp_path / "b.bin").write_bytes(content(seed=4))
        refused = Guest(house, tmp_path / "stock").hf("upload", "ann/turned", str(tmp_path / "b.bin"))
        assert refused.returncode != 0
        plain = Guest(house, tmp_path / "plain", xet=False)
        out = plain.run(upload.format("b") + '\nout["files"] = api.list_repo_files("ann/turned")')
        assert out["files"] == [".gitattributes", "a.bin", "b.bin"]
        assert house.findings() == []
