"""A server killed among Hub commits keeps every one it acknowledged, and comes back without repair."""

from __future__ import annotations

import base64
import json
import signal
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.services.house import House, open_house

pytestmark = pytest.mark.faults


def ask(house: House, method: str, path: str, body: bytes) -> dict[str, object]:
    """Send one request as the admin."""
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(house.url + path, body or None, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def commit(house: House, path: str) -> str:
    """Add one file; return the acknowledged commit."""
    content = base64.b64encode(path.encode()).decode()
    lines = [
        {"key": "header", "value": {"summary": f"Add {path}"}},
        {"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    return str(ask(house, "POST", "/api/models/ann/one/commit/main", body)["commitOid"])


def paths(house: House) -> set[str]:
    """What the default branch holds."""
    siblings = ask(house, "GET", "/api/models/ann/one", b"")["siblings"]
    assert isinstance(siblings, list)
    return {one["rfilename"] for one in siblings}


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with open_house(tmp_path / "house") as house:
        ask(house, "POST", "/api/repos/create", b'{"name": "one"}')
        kept: list[str] = []
        refused: set[int] = set()
        enough = threading.Event()

        def write(writer: int) -> None:
            for number in range(1000):
                path = f"{writer}/{number}.txt"
                try:
                    commit(house, path)
                except urllib.error.HTTPError as error:
                    # Three writers on one branch: after five lost races a commit is refused and nothing has changed.
                    refused.add(error.code)
                    continue
                except (OSError, HTTPException):
                    return
                kept.append(path)
                if len(kept) >= 20:
                    enough.set()

        writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for writer in writers:
            writer.start()
        assert enough.wait(timeout=60)
        house.stop(signal.SIGKILL)
        for writer in writers:
            writer.join(timeout=60)
        house.start()
        assert refused <= {409, 503}
        assert set(kept) <= paths(house)
        commit(house, "after.txt")
        assert "after.txt" in paths(house)
        assert house.cli("fsck", "--read-data").returncode == 0
        left = (house.folder / "data" / "slots").rglob("quarantine/**/*")
        assert [path for path in left if path.is_file()] == []
