"""What a change of a large file costs a client to send, counted on the wire: little more than the change.

`WEIGHTROOM_TEST_SCALE=full` takes files twice as large.
"""

from __future__ import annotations

import itertools
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.clients.visitor import visit
from tests.faults.proxy import Proxy
from tests.services.house import House

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

MB = 10**6
FULL = os.environ.get("WEIGHTROOM_TEST_SCALE") == "full"
SIZE = (200 if FULL else 100) * MB
# A change of 100 KB makes two to five new chunks, 230 KB on average; of fewer changes the average says less.
LIMIT = 0.025 if FULL else 0.03
UPLOAD = 'api.upload_file(repo_id=api.create_repo("{repo}", private=True, exist_ok=True).repo_id, path_in_repo="{name}"'
UPLOAD += ', path_or_fileobj="{path}")\n'
_numbers = itertools.count()


@dataclass
class Uploads:
    """Uploads through a proxy that counts; every folder is a machine of its own, with what it remembers."""

    house: House
    proxy: Proxy
    folder: Path
    repo: str = field(default_factory=lambda: f"counted-{next(_numbers)}")

    def send(self, machine: str, path: Path, name: str = "m.safetensors") -> tuple[int, int]:
        """Upload a file as a commit; return the bytes of xorbs and those of shards that it took."""
        since = len(self.proxy.seen)
        code = UPLOAD.format(repo=self.repo, name=name, path=path)
        visit(code, endpoint=self.proxy.url, token=self.house.token, home=self.folder / machine, xet=True, seconds=300)
        sent = [asked for asked in self.proxy.seen[since:] if asked.method == "POST"]
        assert not [asked for asked in self.proxy.seen[since:] if asked.method == "PUT"]
        xorbs = sum(asked.up for asked in sent if "/v1/xorbs/" in asked.target)
        shards = sum(asked.up for asked in sent if asked.target.endswith("/shards"))
        assert shards, "a file was not filed"
        return xorbs, shards


@pytest.fixture
def uploads(small_house: House, tmp_path: Path) -> Iterator[Uploads]:
    with Proxy(small_house.port) as proxy:
        yield Uploads(small_house, proxy, tmp_path)


def changed(data: bytes, seed: int) -> bytes:
    """Overwrite 100 KB for each 10 MB, and push seven bytes in at the middle."""
    dice, copy = random.Random(seed), bytearray(data)
    for _ in range(len(data) // (10 * MB)):
        at = dice.randrange(len(data) - 100_000)
        copy[at : at + 100_000] = dice.randbytes(100_000)
    return bytes(copy[: len(data) // 2]) + b"seven.." + bytes(copy[len(data) // 2 :])


def test_a_change_costs_little_more_than_its_bytes(uploads: Uploads, tmp_path: Path) -> None:
    path, data = tmp_path / "m.safetensors", random.Random(1).randbytes(SIZE)
    path.write_bytes(data)
    first, _ = uploads.send("first", path)
    assert SIZE <= first < SIZE * 1.01

    again, shard = uploads.send("second", path, "same.safetensors")
    assert again == 0, "a machine that never sent it sends what is here"
    assert shard < 200_000

    # Each change is of the first file, so the one does not help the other.
    for machine, seed in (("first", 2), ("cold", 3)):
        path.write_bytes(changed(data, seed))
        xorbs, shards = uploads.send(machine, path)
        share = (xorbs + shards) / SIZE
        print(f"{machine}: {xorbs} + {shards} bytes, {share:.2%} of {SIZE}")
        assert share <= LIMIT


def weights(seed: int, count: int) -> tuple[bytes, bytes]:
    """Make numbers around zero, as training leaves them: in bfloat16, and in float32."""
    dice = random.Random(seed)
    floats = struct.pack(f"<{count}f", *(dice.gauss(0, 0.02) for _ in range(count)))
    upper = bytearray(2 * count)
    # A bfloat16 is the upper half of a float.
    upper[0::2], upper[1::2] = floats[2::4], floats[3::4]
    return bytes(upper), floats


def test_a_twentieth_of_one_tensor_of_a_checkpoint_costs_little(uploads: Uploads, tmp_path: Path) -> None:
    path, (halves, floats) = tmp_path / "m.safetensors", weights(1, 2_500_000)
    path.write_bytes(halves + floats)
    first, _ = uploads.send("first", path)
    assert first < len(halves + floats), "weights pack"
    # The tensors have half a million numbers each; a whole row of changes lies together.
    for machine, tensors, width in (("first", halves, 2), ("cold", floats, 4)):
        new = weights(width, 25_000)[width // 4]
        at = 2 * 500_000 * width
        data = (halves + floats).replace(tensors, tensors[:at] + new + tensors[at + len(new) :])
        path.write_bytes(data)
        xorbs, shards = uploads.send(machine, path, f"{machine}.safetensors")
        share = (xorbs + shards) / len(data)
        print(f"{machine}: {xorbs} + {shards} bytes, {share:.2%} of {len(data)}")
        assert xorbs > 0
        assert share <= 0.025
