"""An nginx before a registry, below a path of its own, in the two ways of `docs/how-to/behind-a-proxy.md`."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tests.services.programs import find, need

Way = Literal["kept", "taken off"]

_PASS = {
    "kept": "proxy_pass http://127.0.0.1:{door};",
    # A `proxy_pass` with a path would decode what it passes on; with a variable it is passed as it came.
    "taken off": "proxy_set_header X-Forwarded-Prefix {prefix}; proxy_pass http://127.0.0.1:{door}$rest;",
}
_CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    map $request_uri $rest {{ "~^{prefix}(?<tail>/.*)$" $tail; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 418; }}
        location {prefix}/ {{
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $remote_addr;
            client_max_body_size 0;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 900s;
            {passing}
        }}
    }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, *, port: int, door: int, prefix: str, way: Way) -> Iterator[None]:
    """Listen on `port` and pass what is below `prefix` on to `door`; everything else is answered with 418."""
    need("nginx")
    folder.mkdir()
    passing = _PASS[way].format(door=door, prefix=prefix)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, prefix=prefix, passing=passing))
    program = find("nginx")
    assert program is not None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)], stderr=log)
    try:
        _wait(process, port, folder / "log")
        yield
    finally:
        process.terminate()
        process.wait(20)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nginx does not listen: {log.read_text()[-2000:]}")
