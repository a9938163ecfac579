"""Servers that a benchmark compares: ours, `git http-backend` behind nginx, and a bare Starlette route."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BACKEND = "/usr/lib/git-core/git-http-backend"

NGINX = """
worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/error.log; user {user};
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; sendfile on; keepalive_timeout 75;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      fastcgi_pass unix:{root}/fcgi.sock; fastcgi_buffering off; fastcgi_request_buffering off;
      fastcgi_param SCRIPT_FILENAME {backend}; fastcgi_param GIT_PROJECT_ROOT {repos};
      fastcgi_param GIT_HTTP_EXPORT_ALL ""; fastcgi_param PATH_INFO $uri; fastcgi_param REMOTE_USER bench;
      fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding; fastcgi_param GIT_PROTOCOL $http_git_protocol;
    }}
  }}
}}
"""

BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
async def fast(request): return Response(b"ok")
def threaded(request): return Response(b"ok")
app = Starlette(routes=[Route("/async", fast), Route("/sync", threaded)])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `pid` is the process whose CPU time counts."""

    url: str
    pid: int
    token: str = ""

    def with_login(self) -> str:
        """The URL with the token in it, as git takes it."""
        return self.url.replace("http://", f"http://bench:{self.token}@") if self.token else self.url

    def cpu(self) -> float:
        """CPU seconds used so far, user and system, threads and reaped children included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(fields[n]) for n in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Find a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, seconds: float = 30) -> None:
    """Wait until a URL answers anything at all."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Stop a process that we started, and its children if it leads a session, when the block ends."""
    try:
        yield process
    finally:
        if os.getpgid(process.pid) == process.pid:
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def weightroom(data: Path, **environment: str) -> Iterator[Server]:
    """Run our registry on a fresh folder with one admin, `bench`."""
    settings = os.environ | {"WEIGHTROOM_DATA": str(data)} | environment
    cli = [sys.executable, "-m", "registry.cli"]
    subprocess.run([*cli, "migrate"], env=settings, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*cli, "user", "create", "bench", "--admin"], env=settings, check=True, stdin=subprocess.DEVNULL)
    made = subprocess.run(
        [*cli, "token", "create", "bench", "--role", "admin"], env=settings, check=True, capture_output=True
    )
    port = free_port()
    serve = [*cli, "serve", "--no-sidecar", "--port", str(port)]
    with stopped(
        subprocess.Popen(serve, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + "/health")
        yield Server(url, process.pid, made.stdout.decode().strip())


@contextlib.contextmanager
def http_backend(root: Path, repos: Path) -> Iterator[Server]:
    """Run C git's own `http-backend` behind nginx over a folder of bare repositories."""
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    user = "root" if os.geteuid() == 0 else "nobody"
    (root / "nginx.conf").write_text(NGINX.format(root=root, port=port, backend=BACKEND, repos=repos, user=user))
    socket_path = root / "fcgi.sock"
    wrapper = [shutil.which("fcgiwrap") or "fcgiwrap", "-c", "8", "-s", f"unix:{socket_path}"]
    nginx = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(root), "-c", str(root / "nginx.conf")]
    settings = os.environ | {"HOME": str(root)}
    (root / ".gitconfig").write_text("[safe]\n\tdirectory = *\n[http]\n\treceivepack = true\n")
    with stopped(subprocess.Popen(wrapper, env=settings, start_new_session=True)) as fcgi:
        while not socket_path.exists():
            time.sleep(0.02)
        with stopped(subprocess.Popen(nginx, env=settings)):
            url = f"http://127.0.0.1:{port}"
            wait_for(url + "/")
            yield Server(url, fcgi.pid)


@contextlib.contextmanager
def bare_starlette() -> Iterator[Server]:
    """Run one async and one threaded route that do nothing: the floor of any Python server."""
    port = free_port()
    with stopped(subprocess.Popen([sys.executable, "-c", BARE, str(port)])) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + "/async")
        yield Server(url, process.pid)
