"""A CAS that believes all it is told and keeps it, and the real client that talks to it, in a process of its own.

Run `python -m tests.lfs.xet.recorder FILE …` to see what hf_xet asks and sends for these files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lfs.xet import hashes
from tests.lfs.conftest import serving

CAS = "/xet/0123/g1"
TOKEN = "/api/models/ann/tiny/xet-write-token/main"

_CLIENT = """
import json, sys
import hf_xet

url, settings, sha256, *paths = sys.argv[1:]
named = {"compute": hf_xet.COMPUTE_SHA256, "skip": hf_xet.SKIP_SHA256}
session = hf_xet.XetSession(config=hf_xet.XetConfig().with_config(json.loads(settings)))
with session.new_upload_commit(token_refresh_url=url, token_refresh_headers={"authorization": "Bearer t"}) as commit:
    handles = [commit.start_upload_file(path, sha256=named.get(sha256, sha256)) for path in paths]
infos = [handle.result().xet_info for handle in handles]
print(json.dumps([[info.hash, info.file_size, info.sha256 or ""] for info in infos]))
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What the client says of a file that it uploaded; `hash` is 32 raw bytes."""

    hash: bytes
    size: int
    sha256: str


@dataclass
class Recorder:
    """Keeps bodies and requests; `answers` are given to those who ask for a chunk, by the text of its hash."""

    xorbs: dict[bytes, bytes] = field(default_factory=dict)
    shards: list[bytes] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    def app(self) -> Starlette:
        """A server that records into this."""
        routes = [
            Route(TOKEN, self._token),
            Route(CAS + "/v1/chunks/{prefix}/{hash}", self._chunk),
            Route(CAS + "/v1/xorbs/default/{hash}", self._xorb, methods=["POST"]),
            Route(CAS + "/v1/shards", self._shard, methods=["POST"]),
            Route("/{path:path}", self._absent, methods=["GET", "HEAD", "POST", "PUT"]),
        ]
        return Starlette(routes=routes)

    def asked(self, verb: str, path: str) -> list[str]:
        """What followed `path` in requests of this verb, below the CAS URL."""
        return [at.removeprefix(CAS + path) for said, at in self.requests if said == verb and at.startswith(CAS + path)]

    async def _token(self, request: Request) -> Response:
        self._note(request)
        url = f"http://{request.headers['host']}{CAS}"
        return JSONResponse({"casUrl": url, "accessToken": "xet_t", "exp": int(time.time()) + 900})

    async def _chunk(self, request: Request) -> Response:
        self._note(request)
        answer = self.answers.get(request.path_params["hash"])
        return Response(status_code=404) if answer is None else Response(answer)

    async def _xorb(self, request: Request) -> Response:
        self._note(request)
        self.xorbs[hashes.parse(request.path_params["hash"])] = await request.body()
        return JSONResponse({"was_inserted": True})

    async def _shard(self, request: Request) -> Response:
        self._note(request)
        self.shards.append(await request.body())
        return JSONResponse({"result": 1})

    async def _absent(self, request: Request) -> Response:
        self._note(request)
        await request.body()
        return Response(status_code=404)

    def _note(self, request: Request) -> None:
        self.requests.append((request.method, request.url.path))


def upload(
    url: str, *paths: Path, home: Path, sha256: str = "compute", settings: Mapping[str, object] | None = None
) -> Sequence[Sent]:
    """Upload files in one commit with hf_xet to the server at `url`; the client remembers in `home`.

    `sha256` is "compute", "skip" or the digits to claim; `settings` are hf_xet's own, by their dotted names.
    """
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "XET_"))}
    plain = {name: value for name, value in kept.items() if not name.upper().endswith("_PROXY")}
    words = [sys.executable, "-c", _CLIENT, url + TOKEN, json.dumps(settings or {}), sha256, *map(str, paths)]
    environ = plain | {"HF_HOME": str(home), "HOME": str(home)}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [Sent(hashes.parse(name), size, digest) for name, size, digest in json.loads(done.stdout)]


def main() -> None:
    """Show what the client sends for the files that are named."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as home, serving(recorder.app(), http="auto") as url:
        print(*upload(url, *map(Path, sys.argv[1:]), home=Path(home)), sep="\n")
    print(*recorder.requests, sep="\n")
    print({hashes.text(name): len(body) for name, body in recorder.xorbs.items()}, [*map(len, recorder.shards)])


if __name__ == "__main__":
    main()
