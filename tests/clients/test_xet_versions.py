"""Every huggingface_hub that people still have moves large files, by Git LFS or by the chunks of the hf-xet beside it.

    0.24          knows nothing of Xet
    0.30, 0.34    asks the repo whether Xet is on
    0.36 to 1.19  asks the LFS batch
    1.20 and on   asks nobody; see `test_xet_matrix.py`, too

Over its versions hf-xet has changed its addresses, the end of a shard, and the kind of reconstruction that it asks for.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.clients.visitor import visit
from tests.faults.proxy import Proxy
from tests.services import installed
from tests.services.house import House

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

SIZE = 3_000_000
WRITE = """
api.create_repo("{repo}", private=True)
api.upload_file(repo_id="{repo}", path_in_repo="first.bin", path_or_fileobj="{path}")
"""
EDIT = """
import hashlib
api.upload_file(repo_id="{repo}", path_in_repo="second.bin", path_or_fileobj="{path}")
folder = snapshot_download("{repo}")
for name in ("first.bin", "second.bin"):
    out[name] = hashlib.sha256(open(folder + "/" + name, "rb").read()).hexdigest()
out["newest"] = hashlib.sha256(content("first.bin", "{newest}")).hexdigest()
"""


@dataclass(frozen=True)
class Newest:
    """A file that today's client sent."""

    repo: str
    sha256: str


@pytest.fixture(scope="module")
def newest(small_house: House, tmp_path_factory: pytest.TempPathFactory) -> Newest:
    home = tmp_path_factory.mktemp("newest")
    data = random.Random(1).randbytes(SIZE)
    (home / "first.bin").write_bytes(data)
    repo = f"ann/{home.name}"
    code = WRITE.format(repo=repo, path=home / "first.bin")
    visit(code, endpoint=small_house.url, token=small_house.token, home=home)
    return Newest(repo, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("hub", "xet"),
    [
        ("0.24.7", ""),
        ("0.30.2", "1.1.2"),
        ("0.34.6", "1.1.10"),
        ("0.36.2", "1.2.0"),
        ("1.13.0", "1.5.0"),
        ("1.33.0", "1.7.1"),
    ],
)
def test_a_former_client_sends_reads_and_edits(
    hub: str, xet: str, small_house: House, newest: Newest, tmp_path: Path
) -> None:
    # Some import click and do not say that they need it.
    python = str(installed.python(f"huggingface_hub=={hub}", *([f"hf-xet=={xet}"] if xet else []), "click"))
    repo, data = f"ann/by-{hub}", bytearray(random.Random(hub).randbytes(SIZE))
    sums, since = {}, 0
    with Proxy(small_house.port) as proxy:
        # Two machines: what the second one knows of the first file it has from the server.
        for name, code in (("first", WRITE), ("second", EDIT)):
            path, since = tmp_path / f"{name}.bin", len(proxy.seen)
            path.write_bytes(data)
            sums[path.name] = hashlib.sha256(data).hexdigest()
            lines = code.format(repo=repo, path=path, newest=newest.repo)
            home = tmp_path / name
            out = visit(lines, endpoint=proxy.url, token=small_house.token, home=home, python=python)
            data[SIZE // 2 : SIZE // 2 + 1_000] = bytes(1_000)
    assert out == sums | {"newest": newest.sha256}
    puts = [asked.target for asked in proxy.seen if asked.method == "PUT"]
    chunked = [asked for asked in proxy.seen if asked.target.startswith("/xet/")]
    assert (len(puts), bool(chunked)) == ((0, True) if xet else (2, False))
    if xet:
        assert sum(asked.up for asked in proxy.seen[since:]) < SIZE // 4, "an edit sends little more than itself"
        assert any(asked.target.startswith("/xet/blob/") for asked in chunked)
    for name, sha256 in sums.items():
        whole = httpx.get(
            f"{small_house.url}/{repo}/resolve/main/{name}", headers={"authorization": f"Bearer {small_house.token}"}
        )
        assert hashlib.sha256(whole.content).hexdigest() == sha256
