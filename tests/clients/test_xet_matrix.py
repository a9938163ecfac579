"""What stock clients send by chunks, every other client reads the same: by chunks, whole, in ranges, by git-lfs.

Nobody here sets more than an endpoint and a token, but for those who say HF_HUB_DISABLE_XET=1. Each house gets its
files once, from one writer, and all readers look at these.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.visitor import surroundings, visit
from tests.services.house import House
from tests.services.programs import Git, need

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]
_numbers = itertools.count()

SUM = """
import hashlib, random
from pathlib import Path
def summed(folder):
    files = [path for path in Path(folder).rglob("*") if path.is_file() and ".cache" not in path.parts]
    sums = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    sums.pop(".gitattributes", None)
    return sums
"""

WRITE = """
repo = api.create_repo("{repo}", private=True).repo_id
dice = random.Random(7)
for number in range(500):
    name = Path(f"tree/{{number % 10}}/{{number}}.json")
    name.parent.mkdir(parents=True, exist_ok=True)
    name.write_text(json.dumps({{"n": number}}))
for number, size in enumerate([1, 5_000, 65_536, 131_072, 1_000_000, 3_000_001]):
    Path(f"tree/{{number}}.bin").write_bytes(dice.randbytes(size))
Path("tree/zeros.bin").write_bytes(bytes(4 << 20))
Path("tree/words.bin").write_bytes(b"the same words again and again, ".join(dice.randbytes(8) for _ in range(90_000)))
Path("tree/empty.bin").write_bytes(b"")
api.upload_folder(repo_id=repo, folder_path="tree")
Path("tree/m.safetensors").write_bytes(dice.randbytes(9 << 20))
api.upload_file(repo_id=repo, path_in_repo="m.safetensors", path_or_fileobj="tree/m.safetensors")
Path("tree/bytes.safetensors").write_bytes(data := dice.randbytes(2 << 20))
api.upload_file(repo_id=repo, path_in_repo="bytes.safetensors", path_or_fileobj=data)
out["sums"] = summed("tree")
names = [name for name in out["sums"] if not name.endswith((".json", "empty.bin"))]
found = api.get_paths_info(repo, names)
out["xet"] = {{each.path: [each.xet_hash, each.lfs.sha256] for each in found}}
"""


@dataclass(frozen=True)
class Stock:
    """A repo that a writer filled: the SHA-256 of each file, and what the tree says of those that went by chunks."""

    house: House
    repo: str
    sums: Mapping[str, str]
    told: Mapping[str, tuple[str, str]]


class Shop:
    """Fills one repo for each house that asks for one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filled: dict[str, Stock] = {}

    def stock(self, house: House) -> Stock:
        if house.url not in self._filled:
            since = house.log.stat().st_size
            out = run(house, self._folder / str(house.port), WRITE.format(repo="ann/matrix"))
            assert house.asked("PUT", "/lfs/", since) == 0, "files went whole"
            assert house.asked("POST", "/xet/", since) > 2
            self._filled[house.url] = Stock(house, "ann/matrix", out["sums"], out["xet"])  # type: ignore[arg-type]
        return self._filled[house.url]


def run(house: House, home: Path, code: str, *, xet: bool = True) -> dict[str, object]:
    """Run a visitor's lines, who can `summed(folder)`."""
    return visit(SUM + code, endpoint=house.url, token=house.token, home=home, seconds=300, xet=xet)


def script(house: House, home: Path, program: str, *arguments: str) -> object:
    """Run lines that import what they need, with nothing set but endpoint and token; return the JSON they print."""
    command = [sys.executable, "-c", program, *arguments]
    return json.loads(program_of(house, home, *command).splitlines()[-1])


def program_of(house: House, home: Path, *command: str) -> str:
    """Run a program of a visitor with Xet; return what it prints."""
    environment = surroundings(endpoint=house.url, token=house.token, home=home, xet=True) | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    return Shop(tmp_path_factory.mktemp("writers"))


@pytest.fixture
def stock(house: House, shop: Shop) -> Stock:
    return shop.stock(house)


def test_the_tree_names_both_hashes_of_each_file(stock: Stock) -> None:
    assert len(stock.sums) == 511
    assert {name: told[1] for name, told in stock.told.items()} == {name: stock.sums[name] for name in stock.told}
    assert all(len(told[0]) == 64 for told in stock.told.values())
    assert len(stock.told) == 10


def test_a_snapshot_and_a_single_file_come_by_chunks(stock: Stock, tmp_path: Path) -> None:
    since = stock.house.log.stat().st_size
    out = run(
        stock.house,
        tmp_path,
        f"""
out["snapshot"] = summed(snapshot_download("{stock.repo}", local_dir="here"))
out["one"] = hashlib.sha256(content("m.safetensors", "{stock.repo}")).hexdigest()
""",
    )
    assert out == {"snapshot": stock.sums, "one": stock.sums["m.safetensors"]}
    assert stock.house.asked("GET", "/xet/", since) >= len(stock.told)


def test_who_switches_xet_off_gets_the_same_bytes(stock: Stock, tmp_path: Path) -> None:
    since = stock.house.log.stat().st_size
    out = run(
        stock.house, tmp_path, f'out["a"] = summed(snapshot_download("{stock.repo}", local_dir="here"))', xet=False
    )
    assert out == {"a": stock.sums}
    assert stock.house.asked("GET", "/xet/", since) == 0


def test_curl_gets_any_range(stock: Stock, tmp_path: Path) -> None:
    need("curl")
    for name in ("m.safetensors", "words.bin", "zeros.bin"):
        url = f"{stock.house.url}/{stock.repo}/resolve/main/{name}"
        curl = ["curl", "-sSfL", "-H", f"Authorization: Bearer {stock.house.token}", url, "-o"]
        subprocess.run([*curl, str(tmp_path / "whole")], check=True, timeout=60)
        whole = (tmp_path / "whole").read_bytes()
        assert hashlib.sha256(whole).hexdigest() == stock.sums[name]
        for asked, wanted in {
            "0-0": whole[:1],
            "1-": whole[1:],
            "-7": whole[-7:],
            "131071-131072": whole[131_071:131_073],
            "777777-2345678": whole[777_777:2_345_679],
            f"{len(whole) - 1}-": whole[-1:],
        }.items():
            subprocess.run([*curl, str(tmp_path / "part"), "-r", asked], check=True, timeout=60)
            assert (tmp_path / "part").read_bytes() == wanted, f"{name} {asked}"


def test_git_lfs_pulls_the_same_bytes(stock: Stock, git: Git, tmp_path: Path) -> None:
    need("git-lfs")
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", stock.house.remote(stock.repo), "work", at=tmp_path)
    git("lfs", "fsck", at=tmp_path / "work")
    found = {name: hashlib.sha256((tmp_path / "work" / name).read_bytes()).hexdigest() for name in stock.sums}
    assert found == stock.sums


def test_git_lfs_pushes_what_came_by_chunks_without_a_byte(stock: Stock, git: Git, tmp_path: Path) -> None:
    need("git-lfs")
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", stock.house.remote(stock.repo), "work", at=tmp_path)
    data = (tmp_path / "work" / "m.safetensors").read_bytes()
    since = stock.house.log.stat().st_size
    git("checkout", "-q", "-b", "copies", at=tmp_path / "work")
    git.commit(tmp_path / "work", {"copy.safetensors": data})
    git("push", "-q", "origin", "copies", at=tmp_path / "work")
    assert stock.house.asked("PUT", "/lfs/", since) == 0


def test_the_command_line_takes_a_folder_there_and_back(house: House, tmp_path: Path) -> None:
    home, hf = tmp_path / "home", str(Path(sys.executable).with_name("hf"))
    (home / "model" / "sub").mkdir(parents=True)
    sums = {}
    for name in ("m.safetensors", "sub/part.bin", "README.md"):
        data = os.urandom(2 << 20) if name != "README.md" else b"# Model\n"
        (home / "model" / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    repo = f"ann/line-{next(_numbers)}"
    program_of(house, home, hf, "upload", repo, "model", ".", "--private")
    program_of(house, tmp_path / "other", hf, "download", repo, "--local-dir", "here")
    here = tmp_path / "other" / "here"
    assert {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in sums} == sums


PUSH = """
import hashlib, json, random, sys
import torch
from datasets import Dataset
from transformers import BertConfig, BertModel
torch.manual_seed(3)
config = BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, vocab_size=4000)
model = BertModel(config)
model.push_to_hub(sys.argv[1])
dice = random.Random(5)
rows = Dataset.from_dict({"n": list(range(3000)), "data": [dice.randbytes(2000) for _ in range(3000)]})
rows.push_to_hub(sys.argv[1])
digest = hashlib.sha256(b"".join(rows["data"])).hexdigest()
print(json.dumps([sum(float(p.double().sum()) for p in model.parameters()), digest]))
"""
PULL = """
import hashlib, json, sys
from datasets import load_dataset
from huggingface_hub import HfApi
from transformers import BertModel
model = BertModel.from_pretrained(sys.argv[1])
rows = load_dataset(sys.argv[1], split="train")
digest = hashlib.sha256(b"".join(rows["data"])).hexdigest()
api = HfApi()
hashes = [info.xet_hash for info in api.list_repo_tree(sys.argv[1]) if info.path == "model.safetensors"]
tables = api.list_repo_tree(sys.argv[1], recursive=True, repo_type="dataset")
hashes += [info.xet_hash for info in tables if info.path.endswith(".parquet")]
print(json.dumps([[sum(float(p.double().sum()) for p in model.parameters()), digest], hashes]))
"""


@pytest.mark.inference
def test_transformers_and_datasets_push_and_load_by_chunks(house: House, tmp_path: Path) -> None:
    repo, since = f"ann/pushed-chunks-{next(_numbers)}", house.log.stat().st_size
    pushed = script(house, tmp_path / "writer", PUSH, repo)
    loaded, hashes = script(house, tmp_path / "reader", PULL, repo)  # type: ignore[misc]
    assert loaded == pushed
    assert len(hashes) == 2
    assert all(hashes)
    assert house.asked("PUT", "/lfs/", since) == 0


@pytest.mark.s3
@pytest.mark.xdist_group("ceph")
def test_a_bucket_that_checks_signatures_gets_and_gives_the_bytes_itself(ceph_house: House, tmp_path: Path) -> None:
    since = ceph_house.log.stat().st_size
    out = run(
        ceph_house,
        tmp_path / "writer",
        """
repo = api.create_repo("ann/bucket", private=True).repo_id
data = random.Random(1).randbytes(20 << 20)
api.upload_file(repo_id=repo, path_in_repo="m.bin", path_or_fileobj=data)
out["sum"] = hashlib.sha256(data).hexdigest()
""",
    )
    read = 'out["sum"] = hashlib.sha256(content("m.bin", "ann/bucket")).hexdigest()'
    assert run(ceph_house, tmp_path / "reader", read) == out
    assert run(ceph_house, tmp_path / "plain", read, xet=False) == out
    assert xorbs_through(ceph_house, since) == (0, 0), "bytes went through the server"


def xorbs_through(house: House, since: int) -> tuple[int, int]:
    """Count the bodies of xorbs that the server took and gave itself."""
    with house.log.open("rb") as log:
        log.seek(since)
        lines = log.read().decode(errors="replace").splitlines()
    took = sum('"method": "POST"' in line and "/v1/xorbs/" in line for line in lines)
    return took, house.asked("GET", "/xet/blob/", since)
