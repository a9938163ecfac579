"""Start an S3 server on the loopback for as long as a test needs it.

moto checks no signature, expiry or checksum: it proves call shapes, never security. rclone checks signatures.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lfs.s3.bucket import Bucket, Patience, Place
from lfs.s3.shelf import S3Store

DEADLINE = 30.0


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """Where a server listens, and keys that it takes."""

    url: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"


@contextmanager
def moto() -> Iterator[S3Endpoint]:
    """Run moto's server, empty, in memory."""
    port = _free_port()
    program = Path(sys.executable).with_name("moto_server")
    with _running([str(program), "-H", "127.0.0.1", "-p", str(port)], port):
        yield S3Endpoint(f"http://127.0.0.1:{port}", "AKMOTO", "SKMOTO")


@contextmanager
def rclone(folder: Path) -> Iterator[S3Endpoint]:
    """Serve `folder` by rclone: each folder in it is a bucket, each file an object."""
    port = _free_port()
    program = Path(sys.executable).with_name("rclone")
    keys = ("AKRCLONE", "SKRCLONESKRCLONE")
    command = [str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(keys)]
    # Without a config file of its own it would look for one in the home of whoever runs the tests.
    command += ["--force-path-style", "--config", str(folder / ".rclone.conf"), "--log-level", "ERROR", str(folder)]
    with _running(command, port):
        yield S3Endpoint(f"http://127.0.0.1:{port}", *keys)


def make_bucket(endpoint: S3Endpoint, name: str) -> None:
    """Create a bucket."""
    client = Bucket(_place(endpoint, name, ""), Patience()).client
    client.create_bucket(Bucket=name)
    client.close()


def open_bucket(endpoint: S3Endpoint, name: str, prefix: str = "", patience: Patience | None = None) -> S3Store:
    """Return the shelf in a bucket that exists."""
    return S3Store(_place(endpoint, name, prefix), patience)


def _place(endpoint: S3Endpoint, bucket: str, prefix: str) -> Place:
    return Place(
        bucket=bucket,
        prefix=prefix,
        endpoint=endpoint.url,
        region=endpoint.region,
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} does not listen after {DEADLINE} s")
