"""A transfer agent of git-lfs that does what git-xet does, which no package registry has.

It takes what a batch answer says of each object, sends the file by hf_xet, and when it needs another token it asks the
address of the action for one, as whoever the remote's URL names. It downloads nothing. With `XET_AGENT_LATE` in its
environment it believes that every token has expired.

Source: git-lfs docs/custom-transfers.md; what git_xet 0.2 reads.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit


def main() -> None:
    """Answer git-lfs, a line for each of its lines."""
    headers: dict[str, str] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["event"] == "terminate":
            return
        if asked["event"] == "init":
            headers = login(asked["remote"])
            able = asked["operation"] == "upload"
            tell({} if able else {"error": {"code": 32, "message": "this agent downloads nothing"}})
            continue
        tell({"event": "progress", "oid": asked["oid"], "bytesSoFar": 1, "bytesSinceLast": 1})
        try:
            send(asked["path"], asked["oid"], asked["action"], headers)
            tell({"event": "complete", "oid": asked["oid"]})
        except Exception as error:
            tell({"event": "complete", "oid": asked["oid"], "error": {"code": 2, "message": str(error)}})


def login(remote: str) -> dict[str, str]:
    """Log in as the remote's URL does."""
    url = urlsplit(subprocess.check_output(["git", "remote", "get-url", remote], text=True).strip())
    pair = f"{url.username}:{url.password}".encode()
    return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}


def send(path: str, oid: str, action: dict[str, Any], login: dict[str, str]) -> None:
    """Upload one file, filed when this returns."""
    import hf_xet

    said = action["header"]
    late = "XET_AGENT_LATE" in os.environ
    with hf_xet.XetSession().new_upload_commit(
        endpoint=said["X-Xet-Cas-Url"],
        token="late" if late else said["X-Xet-Access-Token"],
        token_expiry_unix_secs=1 if late else int(said["X-Xet-Token-Expiration"]),
        token_refresh_url=action["href"],
        token_refresh_headers=login,
        custom_headers={"X-Xet-Session-Id": said["X-Xet-Session-Id"]},
    ) as commit:
        commit.start_upload_file(path, sha256=oid)


def tell(answer: dict[str, object]) -> None:
    """Say a line."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
