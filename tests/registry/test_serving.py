"""A server binds before it promises, and a sidecar lives and dies beside it."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from registry.serving import PortTaken, Sidecar, Welcome, allow_files, listen, sidecar_beside, url_of
from tests.registry import filing


def until(condition: threading.Event | Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not (condition.exists() if isinstance(condition, Path) else condition.is_set()):
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.01)


def test_the_url_is_one_that_this_machine_can_open() -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        with listen(host, 0) as door:
            port = door.getsockname()[1]
            assert url_of(door) == f"http://127.0.0.1:{port}"
            socket.create_connection(("127.0.0.1", port)).close()


def test_a_taken_port_is_told() -> None:
    with listen("127.0.0.1", 0) as door, pytest.raises(PortTaken, match="cannot listen"):
        listen("127.0.0.1", door.getsockname()[1])


def test_the_token_is_shown_only_when_it_was_made() -> None:
    assert "hf_x" in "\n".join(Welcome("1", "data", "http://h:1", None, "hf_x").lines())
    plain = "\n".join(Welcome("1", "data", "http://h:1", "http://h:2/v1", None).lines())
    assert "export" not in plain
    assert "http://h:2/v1" in plain


def test_who_cannot_use_xet_here_is_told_to_turn_it_off() -> None:
    for xet in (True, False):
        told = "\n".join(Welcome("1", "data", "http://h:1", None, "hf_x", xet=xet).lines())
        assert ("HF_HUB_DISABLE_XET=1" in told) == (not xet)


def test_a_sidecar_starts_when_the_registry_accepts_and_ends_with_it(tmp_path: Path) -> None:
    here, code = tmp_path / "here", "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    accepting = threading.Event()
    with sidecar_beside([sys.executable, "-c", code, str(here)], {}, accepting):
        assert not here.exists()
        accepting.set()
        until(here)
        pid = subprocess.run(["pgrep", "-f", str(here)], capture_output=True, text=True, check=True).stdout.strip()
    assert not Path(f"/proc/{pid}").exists()


def test_a_registry_that_never_accepted_starts_no_sidecar(tmp_path: Path) -> None:
    here = tmp_path / "here"
    with sidecar_beside([sys.executable, "-c", "open(sys.argv[1])", str(here)], {}, threading.Event()):
        pass
    assert not here.exists()


def test_a_sidecar_that_ends_by_itself_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    sidecar = Sidecar([sys.executable, "-c", "raise SystemExit(7)"], {})
    deadline, said = time.monotonic() + 20, ""
    while "status 7" not in said and time.monotonic() < deadline:
        said += capfd.readouterr().err
        time.sleep(0.01)
    assert "--no-sidecar" in said
    sidecar.stop()


def test_a_server_may_open_as_many_files_as_the_system_lets_it() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_files()
        allow_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == (65_536 if hard < 0 else min(hard, 65_536))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_server_offers_to_send_files_and_counts_them() -> None:
    """The offer reaches an application behind the front, here in a worker process, and the log has the bytes."""
    program = (
        "from registry.serving import listen, run_many, url_of\n"
        "if __name__ == '__main__':\n"
        "    door = listen('127.0.0.1', 0); print(url_of(door), flush=True)\n"
        "    run_many('tests.registry.filing:application', door, 2)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                body = answer.read()
            told = server.stdout.readline()
        finally:
            server.terminate()
    assert body == Path(filing.__file__).read_bytes()
    assert json.loads(told)["bytes"] == len(body)
