"""Servers that the LFS benchmark compares with: nginx with a batch stub of 40 lines, and giftless."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import peers

NGINX = """
worker_processes 2; daemon off; pid {root}/nginx.pid; error_log {root}/error.log; user {user};
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; sendfile on; tcp_nopush on; keepalive_timeout 75; keepalive_requests 100000;
  client_body_temp_path {root}/data/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  upstream stub {{ server 127.0.0.1:{stub}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location /o/ {{ alias {root}/data/; dav_methods PUT; }}
    location / {{ proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

# Answers batch requests from what lies in the folder; nginx moves the bytes. It checks and hashes nothing.
STUB = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
port, folder, base = int(sys.argv[1]), sys.argv[2], sys.argv[3]
class Stub(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "objects" not in asked:
            return self.answer(404, {"message": "no locks here"})
        upload = asked["operation"] == "upload"
        self.answer(200, {"transfer": "basic", "objects": [self.plan(each, upload) for each in asked["objects"]]})
    def plan(self, each, upload):
        there = os.path.exists(os.path.join(folder, each["oid"]))
        planned = {"oid": each["oid"], "size": each["size"], "authenticated": True}
        if there != upload:
            action = {"href": base + "/o/" + each["oid"], "expires_in": 3600}
            if upload:
                action["header"] = {"Content-Type": "application/octet-stream"}
            planned["actions"] = {"upload" if upload else "download": action}
        return planned
    def answer(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", port), Stub).serve_forever()
"""

GIFTLESS = """
TRANSFER_ADAPTERS:
  basic:
    factory: giftless.transfer.basic_streaming:factory
    options:
      storage_class: giftless.storage.local_storage:LocalStorage
      storage_options: {{path: {data}}}
      action_lifetime: 3600
AUTH_PROVIDERS: ["giftless.auth.allow_anon:read_write"]
PRE_AUTHORIZED_ACTION_PROVIDER:
  factory: giftless.auth.jwt:factory
  options: {{algorithm: HS256, private_key: "a key of this benchmark alone", default_lifetime: 3600}}
"""

# The package names none of what it imports.
GIFTLESS_NEEDS = (
    "giftless",
    "cachetools",
    "cryptography",
    "figcan",
    "flask-classful",
    "flask-marshmallow",
    "flask<3.1",
    "importlib-metadata",
    "marshmallow-enum",
    "marshmallow<4",
    "pyjwt<2.10",
    "python-dateutil",
    "python-dotenv",
    "pyyaml",
    "typing-extensions",
    "webargs<9",
    "werkzeug<3.1",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server: the address for `lfs.url`, and the processes whose CPU time and memory count."""

    name: str
    lfs_url: str
    pids: tuple[int, ...]

    def cpu(self) -> float:
        """CPU seconds used so far by the processes and their children."""
        return sum(peers.Server("", pid).cpu() for pid in self._all())

    def resident(self) -> int:
        """Anonymous memory of the largest of the processes now, in bytes."""
        return max(_anonymous(pid) for pid in self._all())

    def _all(self) -> set[int]:
        found = set(self.pids)
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) in self.pids:
                    found.add(int(path.parent.name))
        return found


@contextlib.contextmanager
def nginx(root: Path) -> Iterator[Peer]:
    """Run nginx over a folder, with the stub behind it for batch requests."""
    (root / "data").mkdir(parents=True)
    port, stub = peers.free_port(), peers.free_port()
    user = "root" if os.geteuid() == 0 else "nobody"
    (root / "nginx.conf").write_text(NGINX.format(root=root, port=port, stub=stub, user=user))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    base = f"http://127.0.0.1:{port}"
    plans = [sys.executable, "-c", STUB, str(stub), str(root / "data"), base]
    with (
        peers.stopped(subprocess.Popen(plans)) as planner,
        peers.stopped(subprocess.Popen([program, "-p", str(root), "-c", str(root / "nginx.conf")])) as server,
    ):
        peers.wait_for(f"http://127.0.0.1:{stub}/")
        peers.wait_for(base + "/")
        yield Peer("nginx", base, (server.pid, planner.pid))


@contextlib.contextmanager
def giftless(root: Path) -> Iterator[Peer]:
    """Run giftless on its local storage with eight threads; uv fetches it for this run alone."""
    root.mkdir(parents=True)
    port = peers.free_port()
    (root / "giftless.yaml").write_text(GIFTLESS.format(data=root / "data"))
    settings = os.environ | {"GIFTLESS_CONFIG_FILE": str(root / "giftless.yaml")}
    needs = [word for name in GIFTLESS_NEEDS for word in ("--with", name)]
    serve = ["uvx", *needs, "--from", "gunicorn", "gunicorn", "giftless.wsgi_entrypoint:app"]
    command = [*serve, "--threads", "8", "--keep-alive", "75", "--bind", f"127.0.0.1:{port}", "--timeout", "600"]
    quiet = subprocess.DEVNULL
    with peers.stopped(
        subprocess.Popen(command, env=settings, cwd=root, stdout=quiet, stderr=quiet, start_new_session=True)
    ) as server:
        base = f"http://127.0.0.1:{port}"
        peers.wait_for(base + "/", 120)
        yield Peer("giftless", f"{base}/bench/lfs", (server.pid, *_children(server.pid)))


def _children(pid: int) -> list[int]:
    """Return all descendants of a process."""
    told = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [one for child in map(int, told) for one in (child, *_children(child))]


def _anonymous(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
