"""Stock clients are held to a quota by their chunks, too, and a file is not counted twice on its way in."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.clients.visitor import visit
from tests.services.house import House, open_house

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

UPLOADS = """
import random
api.create_repo("ann/full", exist_ok=True)
for seed, size in ((1, 5_000_000), (2, 20_000_000)):
    data = random.Random(seed).randbytes(size)
    try:
        api.upload_file(repo_id="ann/full", path_in_repo=f"{seed}.bin", path_or_fileobj=data)
        out[str(seed)] = ""
    except Exception as error:
        out[str(seed)] = str(error)
"""


def usage(house: House) -> tuple[int, int]:
    """What ann holds and expects, in millions of bytes."""
    told = httpx.get(f"{house.url}/api/usage/ann", headers=bearer(house.token), trust_env=False).json()
    return told["used"] // 1_000_000, told["reserved"] // 1_000_000


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_chunks_that_do_not_fit_are_refused_and_those_of_a_file_count_once(tmp_path: Path) -> None:
    home = tmp_path / "client"
    with open_house(tmp_path / "house", QUOTA="8MiB") as house:
        told = visit(UPLOADS, endpoint=house.url, token=house.token, home=home, xet=True)
        # The first one fits, though it and its chunks together would not.
        assert told["1"] == ""
        # All that hf_xet shows of a refusal; it does not try again.
        assert "403 Forbidden" in str(told["2"])
        assert "do not fit into its quota of 8 MiB" in refusal(house)
        assert usage(house) == (5, 0)
        house.cli("quota", "set", "ann", "40MiB")
        assert visit(UPLOADS, endpoint=house.url, token=house.token, home=home, xet=True) == {"1": "", "2": ""}
        assert usage(house) == (25, 0)
        assert house.findings() == []


def refusal(house: House) -> str:
    """What the door says of a xorb that does not fit, before its body was read."""
    with httpx.Client(trust_env=False) as http:
        way = http.get(f"{house.url}/api/models/ann/full/xet-write-token/main", headers=bearer(house.token)).json()
        address = f"{way['casUrl']}/v1/xorbs/default/{'a' * 64}"
        answer = http.post(address, headers=bearer(way["accessToken"]), content=bytes(5_000_000))
    assert answer.status_code == 403
    return str(answer.json()["error"])
