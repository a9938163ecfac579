"""`weightroom doctor storage` says what a bucket enforces, and a server that runs upon it says the same."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from uuid import uuid4

import pytest

from tests.services.house import House, open_house
from tests.services.s3 import S3Endpoint, make_bucket, moto

pytestmark = [pytest.mark.clients, pytest.mark.s3]


def settings(endpoint: S3Endpoint, bucket: str) -> dict[str, str]:
    """Settings of a house whose bytes lie in a bucket of an endpoint."""
    make_bucket(endpoint, bucket)
    return {
        "STORAGE": f"s3://{bucket}/x?endpoint={endpoint.url}&region={endpoint.region}",
        "S3_ACCESS_KEY": endpoint.access_key,
        "S3_SECRET_KEY": endpoint.secret_key,
    }


def enforced(house: House) -> str:
    """What readiness says of the bucket, once it says something."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(house.url + "/ready") as answer:
            if found := json.load(answer).get("storage"):
                return str(found)
        time.sleep(0.05)
    raise AssertionError("readiness never named what the bucket enforces")


@pytest.mark.xdist_group("ceph")
def test_a_bucket_that_enforces_hashes_is_found_out(tmp_path: Path, ceph_server: S3Endpoint) -> None:
    with open_house(tmp_path, **settings(ceph_server, f"doctor-{uuid4().hex[:8]}")) as house:
        told = house.cli("doctor", "storage", check=False)
        assert told.returncode == 0
        assert "content_sha256: wrong body: refused" in told.stdout
        assert "enforces content_sha256" in told.stdout
        assert enforced(house) == "content_sha256"


@pytest.mark.xdist_group("s3")
def test_a_bucket_that_checks_no_signature_is_a_finding(tmp_path: Path) -> None:
    with moto() as endpoint, open_house(tmp_path, **settings(endpoint, "doctor")) as house:
        told = house.cli("doctor", "storage", "--json", check=False)
        assert told.returncode == 1
        assert json.loads(told.stdout)["enforces"] == "none"
        assert json.loads(told.stdout)["details"]["tampered signature"].startswith("kept")
        assert enforced(house) == "none"


def test_a_folder_has_nothing_to_enforce(tmp_path: Path) -> None:
    with open_house(tmp_path) as house:
        told = house.cli("doctor", "storage", check=False)
        assert (told.returncode, told.stdout.count("through the server")) == (0, 1)
