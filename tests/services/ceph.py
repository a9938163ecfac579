"""A Ceph of one node with its S3 gateway (RGW): the one server here that enforces all that we rely on.

It checks signatures and signed payload hashes as Amazon does; it ignores `x-amz-checksum-sha256`. It is there in six
seconds and takes 150 MB, so it runs once: take the session's fixture `ceph_server`, and mark every test that takes it,
so that one worker runs them all:

    @pytest.mark.s3
    @pytest.mark.xdist_group("ceph")
    def test_something(ceph_server: S3Endpoint) -> None:
        make_bucket(ceph_server, "name-of-my-own")
        store = open_bucket(ceph_server, "name-of-my-own", "prefix")

Buckets stay until the session ends, or for ever where `WEIGHTROOM_TEST_CEPH=http://ACCESS:SECRET@127.0.0.1:PORT`
names a gateway that runs already: give each a name that no other run takes. Virtual hosts are below `s3.test`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.services.programs import need
from tests.services.s3 import S3Endpoint

SCRIPT = Path(__file__).with_name("ceph.sh")
PROGRAMS = ("bash", "curl", "ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
DEADLINE = 15.0


@contextmanager
def ceph() -> Iterator[S3Endpoint]:
    """Run a Ceph, empty, in a folder of its own; or say where one runs already."""
    if running := os.environ.get("WEIGHTROOM_TEST_CEPH"):
        parts = urlsplit(running)
        yield S3Endpoint(f"http://{parts.hostname}:{parts.port}", parts.username or "", parts.password or "")
        return
    need(*PROGRAMS)
    # Not pytest's folder: the names of its sockets would be too long.
    folder = Path(tempfile.mkdtemp(prefix="ceph-"))
    mon, gateway, low = _ports()
    keys = {"ACCESS_KEY": "AKCEPH", "SECRET_KEY": "SKCEPHSKCEPHSKCEPH"}
    settings = {"FOLDER": folder, "MON": mon, "RGW": gateway, "LOW": low, "HIGH": low + 60}
    environment = {**os.environ, **keys, **{name: str(value) for name, value in settings.items()}}
    try:
        with (folder / "output").open("wb") as output:
            done = subprocess.run([SCRIPT], env=environment, stdout=output, stderr=output, check=False, timeout=240)
        if done.returncode != 0:
            raise RuntimeError(f"Ceph did not start: {(folder / 'output').read_text()[-2000:]}")
        yield S3Endpoint(f"http://127.0.0.1:{gateway}", keys["ACCESS_KEY"], keys["SECRET_KEY"])
    finally:
        _stop(folder / "run")
        shutil.rmtree(folder, ignore_errors=True)


def _stop(folder: Path) -> None:
    """End the daemons that left their pids here; nothing they hold is wanted any more, so nothing waits for them."""
    pids = [int(path.read_text()) for path in folder.glob("*.pid")]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + DEADLINE
    while any(map(_lives, pids)) and time.monotonic() < end:
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _ports() -> tuple[int, int, int]:
    """Find two free ports and the start of a span below the ones that systems give to clients."""
    chosen = random.SystemRandom()
    while True:
        low = chosen.randrange(20_000, 32_000, 64)
        if all(_free(port) for port in range(low, low + 64)):
            return low + 62, low + 63, low


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
